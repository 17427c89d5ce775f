"""Tests for afmlib.engine.runner."""

import copy
import inspect
import io
import json
import subprocess
import sys
import threading

import mmengine.runner
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image
from rich.console import Console

from afmlib import load_checkpoint, sample
from afmlib.config import ConfigError, dump
from afmlib.engine import Runner, TrainingError
from afmlib.engine.batches import BatchLayout, PlayerBatches
from afmlib.engine.same_run import check_same_run
from afmlib.interfaces import AdversarialLoss
from afmlib.io.checkpoint import (
    CheckpointError,
    checkpoint_folders,
    load_training_state,
    read_manifest,
)
from afmlib.metrics.diversity import Diversity
from afmlib.registry import LOSSES


def state_of(runner):
    """Returns all that a run is, as tensors by name."""
    state = dict(runner.objective.state_dict())
    for player in runner.objective.players:
        moments = runner.step.optimizers[player].optimizer.state_dict()["state"]
        for index, values in moments.items():
            for name, value in values.items():
                state[f"optimizer.{player}.{index}.{name}"] = torch.as_tensor(value)
    return state


def assert_equal_bit_for_bit(one, other):
    one, other = state_of(one), state_of(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


class _StopAt(Hook):
    """Ends a run early, as a signal does."""

    def __init__(self, num_images):
        self.num_images = num_images

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.train_loop.num_images >= self.num_images:
            runner.stop()


@pytest.mark.parametrize(
    "name",
    [
        "afm_digits",
        "afm_any_digits",
        "afm_lean_digits",
        "flow_matching_digits",
        "gan_gaussians2d",
        "consistency_digits",
        "scm_digits",
        "alphaflow_digits",
        "imf_digits",
        "soflow_digits",
        "tvm_digits",
        "meanflow_digits",
        "shortcut_digits",
    ],
)
def test_resume_is_exact(run, name, tmp_path):
    whole = run(name=name, work_dir=tmp_path / "whole")
    first = run(name=name, work_dir=tmp_path / "parts", hooks=[_StopAt(32)])
    assert first.train_loop.num_images == 32
    first.save()
    resumed = run(name=name, work_dir=tmp_path / "parts", resume=True)

    assert_equal_bit_for_bit(whole, resumed)
    assert (tmp_path / "whole/samples/000000064.png").read_bytes() == (
        tmp_path / "parts/samples/000000064.png"
    ).read_bytes()


def test_resumed_log_has_each_entry_once(run, tmp_path):
    first = run("log.every=8", hooks=[_StopAt(32)])
    first.save()
    with (tmp_path / "run/log.jsonl").open("a") as file:
        file.write('{"num_images": 40, "written": "before it was killed"}\n{"num_im')
    run("log.every=8", resume=True)

    entries = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [entry["num_images"] for entry in entries] == list(range(8, 72, 8))
    assert all("generator/transport" in entry for entry in entries)


def test_training_matches_plain_loop(run, tiny_config):
    runner = run("ema.warmup=false", "optimizers.generator.clip_grad_norm=0.5")

    fresh = Runner(tiny_config(), runner.work_dir + "-fresh", device="cpu")
    objective, dataset = fresh.objective, fresh.dataset
    objective.total_images = 64
    optimizers = {
        player: torch.optim.AdamW(
            [p for p in objective.get_submodule(player).parameters() if p.requires_grad],
            lr=2e-3,
            betas=(0.0, 0.9),
            weight_decay=0.01,
            fused=True,
        )
        for player in ("discriminator", "generator")
    }
    batches = {
        player: PlayerBatches(dataset, objective, BatchLayout(8), (0, index), torch.device("cpu"))
        for index, player in enumerate(optimizers)
    }
    for _ in range(8):
        for player, optimizer in optimizers.items():
            (batch,) = batches[player].next()
            terms = objective.terms(player, batch.latents, batch.labels, batch.draws)
            optimizer.zero_grad()
            sum(terms.values()).backward()
            if player == "generator":
                torch.nn.utils.clip_grad_norm_(objective.generator.parameters(), 0.5)
            optimizer.step()
        with torch.no_grad():
            for average, online in zip(
                objective.generator_ema.parameters(), objective.generator.parameters(), strict=True
            ):
                average.lerp_(online, 1 - 0.995)
        objective.num_images += 8

    for name, value in objective.state_dict().items():
        torch.testing.assert_close(runner.objective.state_dict()[name], value, msg=name)


def test_seed_determines_the_run(run, tmp_path):
    torch.manual_seed(1)
    one = run(work_dir=tmp_path / "one")
    torch.manual_seed(2)
    same = run(work_dir=tmp_path / "same")
    other = run("seed=1", work_dir=tmp_path / "other")

    assert_equal_bit_for_bit(one, same)
    assert not torch.equal(
        one.objective.generator.final_layer.linear.weight,
        other.objective.generator.final_layer.linear.weight,
    )


def test_run_folder_contents(run, tmp_path):
    run("checkpoint_every=24", "sample_every=32", "keep_last=2")

    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "log.jsonl", "checkpoints"}
    assert [path.name for path in sorted((folder / "samples").iterdir())] == [
        "000000032.png",
        "000000064.png",
    ]
    picture = np.asarray(Image.open(folder / "samples/000000064.png"))
    assert picture.std() > 0
    names = [path.rsplit("/", 1)[1] for path in checkpoint_folders(str(folder))]
    assert names == ["000000064", "000000048"]


def test_interval_is_due_when_reached(run, tmp_path):
    run("checkpoint_every=20", "keep_last=9")

    names = [path.rsplit("/", 1)[1] for path in checkpoint_folders(str(tmp_path / "run"))]
    assert sorted(map(int, names)) == [24, 40, 64]  # Of 8 images an iteration: 20, 40, 60.


def test_loaded_checkpoint_samples_as_the_run(run, tmp_path):
    runner = run()

    for ema, expected in ((True, runner.objective.generator_ema), (False, None)):
        model = load_checkpoint(str(tmp_path / "run"), ema=ema)
        if expected is None:
            state = runner.objective.generator.state_dict()
            assert all(torch.equal(model.generator.state_dict()[k], v) for k, v in state.items())
        else:
            assert torch.equal(
                sample(model, [0, 1, 2], seed=3), sample(runner.objective, [0, 1, 2], seed=3)
            )
    assert model.conventions.num_classes == 10
    assert tuple(model.conventions.latent_shape) == (1, 8, 8)


def test_folder_with_a_run_needs_resume(run):
    run()

    with pytest.raises(FileExistsError, match="already holds a run"):
        run()


def test_resume_in_empty_folder_starts(run, tmp_path):
    assert_equal_bit_for_bit(
        run(work_dir=tmp_path / "a", resume=True), run(work_dir=tmp_path / "b")
    )


def test_resume_of_finished_run_changes_nothing(run, tmp_path):
    whole = run()
    log = (tmp_path / "run/log.jsonl").read_text()

    again = run(resume=True)

    assert_equal_bit_for_bit(whole, again)
    assert (tmp_path / "run/log.jsonl").read_text() == log


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("objective.prediction=velocity", "parameterization"),
        ("objective.generator.hidden_size=32", "objective.generator.hidden_size"),
        ("seed=5", "seed"),
        ("global_batch=4", "global_batch"),
        ("data.split=test", "data.split"),
        ("optimizers.generator.lr=0.5", "optimizers.generator.lr"),
        ("ema.decay=0.5", "ema.decay"),
        ("precision=float64", "precision"),
        ("phases=[{at: 32, lr_factor: 0.5}]", "phases"),
    ],
)
def test_resume_with_another_config_raises(run, override, key, tmp_path):
    run()
    before = (tmp_path / "run/config.yaml").read_text()

    with pytest.raises(CheckpointError, match=f"its {key} is .*, not "):
        run(override, resume=True)

    assert (tmp_path / "run/config.yaml").read_text() == before


def test_other_conventions_or_data_raise(run, tmp_path):
    runner = run()
    (folder,) = checkpoint_folders(str(tmp_path / "run"))
    manifest = read_manifest(folder)
    other = {**manifest, "conventions": manifest["conventions"] | {"num_classes": 11}}

    with pytest.raises(CheckpointError, match="its num_classes is 10, not 11"):
        check_same_run(folder, runner.full_config, other)
    with pytest.raises(CheckpointError, match="on 1437 samples, and the data have 1438"):
        check_same_run(folder, runner.full_config, {**manifest, "num_samples": 1438})


def test_run_with_other_draws_is_sampled_and_not_resumed(run, tmp_path, monkeypatch):
    old = Runner._manifest

    def without_version(self):
        return {name: value for name, value in old(self).items() if name != "draws_version"}

    with monkeypatch.context() as patch:
        patch.setattr(Runner, "_manifest", without_version)
        runner = run()

    with pytest.raises(CheckpointError, match="cannot be resumed: another version of afmlib"):
        run("num_images=128", resume=True)
    model = load_checkpoint(str(tmp_path / "run"))
    assert torch.equal(sample(model, [0, 1]), sample(runner.objective, [0, 1]))


def test_explicit_default_is_the_same_run(run):
    run()

    runner = run("objective.cp_scale=0.01", "seed=0", "updates.generator=1", resume=True)

    assert runner.train_loop.num_images == 64


def test_failed_resume_keeps_corrupt_checkpoints(run, tmp_path):
    run("checkpoint_every=32")
    newest = tmp_path / "run/checkpoints/000000064"
    (newest / "training.pt").write_bytes(b"damaged")

    with pytest.raises(CheckpointError, match="its seed is 0, not 7"):
        run("checkpoint_every=32", "seed=7", resume=True)
    assert newest.exists()

    run("checkpoint_every=32", resume=True)
    assert newest.with_name("000000064.damaged").exists()


def test_data_may_move_but_not_change(run, tmp_path):
    runner = run()
    (folder,) = checkpoint_folders(str(tmp_path / "run"))
    manifest, config = read_manifest(folder), runner.full_config
    moved = {**config, "data": {**config["data"], "path": "elsewhere", "checkpoint": "there"}}

    check_same_run(folder, moved, manifest)
    with pytest.raises(CheckpointError, match=r"its data\.type is 'Digits', not 'ImageFolder'"):
        check_same_run(folder, {**config, "data": {"type": "ImageFolder"}}, manifest)


def test_resume_with_more_images(run):
    run()

    assert run("num_images=96", resume=True).train_loop.num_images == 96


def test_kill_in_first_checkpoint_restarts(run, tmp_path):
    (tmp_path / "run/checkpoints/000000032").mkdir(parents=True)
    (tmp_path / "run/config.yaml").write_text("seed: 0")

    assert run(resume=True).train_loop.num_images == 64


def test_failed_evaluation_loses_nothing(run, tmp_path, monkeypatch):
    def fail(self, evaluation):
        raise ValueError("out of order")

    monkeypatch.setattr(Diversity, "__call__", fail)
    runner = run("evaluation.metrics=[Diversity]", "evaluation.num_samples=20")

    assert "out of order" in runner.failed_evaluation
    assert runner.train_loop.num_images == 64
    assert load_checkpoint(str(tmp_path / "run"))


def test_unfit_evaluation_raises_before_the_run(run, tmp_path):
    with pytest.raises(ConfigError, match="optimal transport to Digits is unknown"):
        run("evaluation.metrics=[TransportMap]", "evaluation.num_samples=20")

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_classes=5", "has 5 classes; the data have 10"),
        ("input_size=16", r"shape \(1, 16, 16\); the data have shape \(1, 8, 8\)"),
    ],
)
def test_networks_of_wrong_shape_raise(run, override, message, tmp_path):
    networks = ("generator", "discriminator")
    with pytest.raises(ConfigError, match=message):
        run(*(f"objective.{network}.{override}" for network in networks))

    assert not (tmp_path / "run").exists()


def test_training_state_loads_without_unpickling_code(run, tmp_path):
    run()

    state = load_training_state(checkpoint_folders(str(tmp_path / "run"))[0])

    assert state["average_updates"] == 8
    assert state["objective"]["gradient_normalization.square_avg"] > 0


def test_non_finite_term_stops_the_run(run, tiny_config, tmp_path):
    name = "_NaNFromTheThirdUpdate"
    if name not in LOSSES.components():

        @LOSSES.register_module(name=name)
        class NaNLoss(AdversarialLoss):
            def __init__(self):
                super().__init__()
                self.calls = 0

            def discriminator_loss(self, logits_real, logits_fake):
                return logits_fake - logits_real

            def generator_loss(self, logits_real, logits_fake):
                self.calls += 1
                # The first call is the try-out of the networks before the run.
                return -logits_fake * (float("nan") if self.calls == 4 else 1.0)

    runner = Runner(tiny_config("afm_digits", f"objective.loss={name}"), tmp_path / "nan")
    states = []

    class Keep(Hook):
        def after_train_iter(self, runner, **kwargs):
            states.append(copy.deepcopy(runner.objective.generator.state_dict()))

    runner.register_hook(Keep())
    with pytest.raises(TrainingError, match="generator/adversarial is not finite after 16 images"):
        runner.train()

    assert len(states) == 2
    for key, value in states[-1].items():
        assert torch.equal(runner.objective.generator.state_dict()[key], value)


def test_at_most_fifteen_lines_before_training(tiny_config, tmp_path):
    text = io.StringIO()
    runner = Runner(tiny_config(), tmp_path / "run", console=Console(file=text, width=80))
    for line in runner.describe():
        runner.report(line)

    lines = text.getvalue().splitlines()
    assert 3 <= len(lines) <= 15
    assert any("M parameters" in line for line in lines)


def test_plain_lines_without_a_terminal(run):
    text = io.StringIO()
    run(console=Console(file=text, width=200), name="afm_digits")

    assert "64/64 images" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_one_line_on_a_terminal(run):
    text = io.StringIO()
    run(console=Console(file=text, width=200, force_terminal=True))

    assert "images" in text.getvalue()
    assert "img/s" in text.getvalue()


def test_evaluations_are_written_with_their_protocol(run, tmp_path):
    run("evaluation.metrics=[Diversity]", "evaluation.num_samples=20", "evaluate_every=32")

    lines = (tmp_path / "run/evaluations.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    assert [entry["num_images"] for entry in entries] == [32, 64]
    assert entries[0]["protocol"]["num_samples"] == 20
    assert set(entries[0]["values"]) == {"diversity"}


@pytest.mark.parametrize("precision", ["float64", "bfloat16"])
def test_other_precisions_train(run, precision, monkeypatch):
    monkeypatch.setattr("afmlib.engine.runner.cpu_has_bfloat16", lambda: True)  # Slow, but right.
    runner = run(f"precision={precision}")

    dtype = torch.float64 if precision == "float64" else torch.float32
    assert {p.dtype for p in runner.objective.parameters()} == {dtype}
    assert all(torch.isfinite(p).all() for p in runner.objective.parameters())


def test_bfloat16_needs_a_cpu_that_has_it(run, tmp_path, monkeypatch):
    monkeypatch.setattr("afmlib.engine.runner.cpu_has_bfloat16", lambda: False)

    with pytest.raises(ConfigError, match="100 times slower than in float32"):
        run("precision=bfloat16")
    assert not (tmp_path / "run").exists()


COMPILED = """
import functools, sys, torch
from afmlib.cli import main
torch.compile = functools.partial(torch.compile, backend="eager")
sys.exit(main(["train", "config.yaml", "--work-dir", "compiled", "--set", "compile=true"]))
"""


@pytest.mark.slow
def test_compiled_networks_train_to_the_same_weights(run, tiny_config, tmp_path):
    plain = run("num_images=16")
    (tmp_path / "config.yaml").write_text(dump(tiny_config("afm_digits", "num_images=16")))
    # In a process of its own: there, signatures are not checked, which compilation cannot trace.
    subprocess.run([sys.executable, "-c", COMPILED], cwd=tmp_path, check=True)

    compiled = load_checkpoint(str(tmp_path / "compiled"), ema=False)
    for name, value in plain.objective.generator.state_dict().items():
        torch.testing.assert_close(compiled.generator.state_dict()[name], value)


def test_overridden_mmengine_methods_exist():
    ours = {
        name
        for name, member in vars(Runner).items()
        if inspect.isfunction(member) or isinstance(member, property)
    }
    repaired = {
        "build_logger",
        "_log_env",
        "get_hooks_info",
        "build_visualizer",
        "dump_config",
        "wrap_model",
        "load_or_resume",
        "call_hook",
        "train",
        "timestamp",
    }

    assert repaired <= ours
    assert all(hasattr(mmengine.runner.Runner, name) for name in repaired)


def test_signal_aborts_evaluation_and_resume_redoes_it(run, tmp_path, monkeypatch):
    settings = ["evaluation.metrics=[Diversity]", "evaluation.num_samples=20", "evaluate_every=32"]
    whole = run(*settings, work_dir=tmp_path / "whole")
    called = []

    def stop_first(self, evaluation):
        called.append(len(evaluation.samples))
        if len(called) == 1:
            runners[0].stop()
        return diversity(self, evaluation)

    from afmlib.metrics.diversity import Diversity

    diversity = Diversity.__call__
    monkeypatch.setattr(Diversity, "__call__", stop_first)
    runners = []

    class Keep(Hook):
        def before_train(self, runner):
            runners.append(runner)

    stopped = run(*settings, work_dir=tmp_path / "parts", hooks=[Keep()])
    assert stopped.was_aborted
    assert stopped.train_loop.num_images == 32
    stopped.save()
    resumed = run(*settings, work_dir=tmp_path / "parts", resume=True)

    assert_equal_bit_for_bit(whole, resumed)
    entries = [(tmp_path / name / "evaluations.jsonl").read_text() for name in ("whole", "parts")]
    assert entries[0] == entries[1]
    assert len(entries[0].splitlines()) == 2


@pytest.mark.parametrize("split", [24, 40])
def test_log_entry_across_a_checkpoint(run, split, tmp_path):
    def entries(name):
        lines = (tmp_path / name / "log.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        for entry in entries:
            del entry["images_per_second"], entry["peak_memory_gib"]
        return entries

    run("log.every=32", work_dir=tmp_path / "whole")
    run("log.every=32", work_dir=tmp_path / "parts", hooks=[_StopAt(split)]).save()
    run("log.every=32", work_dir=tmp_path / "parts", resume=True)

    assert entries("whole") == entries("parts")


def test_saving_twice_writes_once(run, monkeypatch):
    runner = run()
    monkeypatch.setattr("afmlib.engine.runner.copy_run", lambda *args: pytest.fail("written again"))

    assert runner.save() == runner.last_checkpoint


def test_training_continues_while_a_copy_is_written(run, tmp_path, monkeypatch):
    from afmlib.io import storage

    write, overtaken = storage.write_atomically, threading.Event()

    def slow(path, content):
        if "000000016/generator.s" in path:
            assert overtaken.wait(60)
        write(path, content)

    class Watch(Hook):
        def after_train_iter(self, runner, **kwargs):
            if runner.train_loop.num_images == 24:
                assert runner.last_checkpoint is None
                overtaken.set()

    settings = ["checkpoint_every=16", "keep_last=9"]
    run(*settings, work_dir=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_atomically", slow)
        run(*settings, work_dir=tmp_path / "run", hooks=[Watch()])

    saved = [tmp_path / name / "checkpoints/000000016" for name in ("whole", "run")]
    for file in saved[0].glob("*.[!j]*"):  # Not the manifest.
        assert file.read_bytes() == (saved[1] / file.name).read_bytes(), file.name


def test_failed_save_keeps_last_checkpoint(run, tmp_path, monkeypatch):
    import errno

    from afmlib.io import storage

    written = []

    def full(path, content):
        written.append(path)
        if "000000032/generator.s" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        return write(path, content)

    write = storage.write_atomically
    monkeypatch.setattr(storage, "write_atomically", full)
    seen = []

    class Watch(Hook):
        def after_train_iter(self, runner, **kwargs):
            seen.append(runner.train_loop.num_images)

    with pytest.raises(OSError, match="No space left"):
        run("checkpoint_every=16", hooks=[Watch()])

    assert seen[-1] in (32, 40)  # It is an error in the next iteration, at 40 or 48 images.
    (folder,) = checkpoint_folders(str(tmp_path / "run"))
    assert folder.endswith("000000016")
    assert read_manifest(folder)["num_images"] == 16
