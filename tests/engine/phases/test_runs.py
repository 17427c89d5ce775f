"""Runs with phases: what a controller decides is done, resumed and replayed to the bit."""

import io
import itertools
import json
import shutil
import signal
import uuid

import mortal
import pytest
import torch
from forks import Fork
from mmengine.hooks import Hook
from rich.console import Console

from afmlib.config import ConfigError, load_config
from afmlib.engine import Runner
from afmlib.engine.phases import phases_of
from afmlib.io import storage
from afmlib.io.checkpoint import CheckpointError, checkpoint_folders, read_manifest

CLASSIFIER = "{type: DiTClassifier, hidden_size: 16, depth: 1, num_heads: 2}"
GUIDANCE = f"objective.guidance={{type: ClassifierGuidance, scale: 0.1, classifier: {CLASSIFIER}}}"
TINY = [
    "objective.generator.hidden_size=16",
    "objective.generator.depth=1",
    "objective.discriminator.hidden_size=16",
    "objective.discriminator.depth=1",
    "global_batch=8",
    "num_images=320",
    "evaluation={metrics: [], extractor: null, num_samples: 20}",
    "log.every=40",
    "checkpoint_every=null",
    "sample_every=null",
    GUIDANCE,
    # Fast enough for a plateau, and back.
    "optimizers.generator.lr=0.02",
    "optimizers.discriminator.lr=0.02",
]
AUTOMATIC = "phases={every: 16, patience: 1, tolerance: 0.02, ot_images: 96}"


def train(folder, *overrides, **options):
    runner = Runner(load_config("afm_digits", [*TINY, *overrides]), folder, device="cpu", **options)
    runner.train()
    return runner


class StopAt(Hook):
    """Asks a run to stop after so many images."""

    def __init__(self, num_images):
        self.num_images = num_images

    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == self.num_images:
            runner.stop()


def entries(folder, name="decisions.jsonl"):
    text = storage.read_bytes(storage.join(str(folder), name)).decode()
    return [json.loads(line) for line in text.splitlines()]


def assert_same_weights(one, other):
    one, other = one.objective.state_dict(), other.objective.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def automatic(tmp_path_factory):
    """A run that goes through all four phases; its folder, and its runner."""
    folder = tmp_path_factory.mktemp("automatic")
    with torch.random.fork_rng(devices=[]):
        return folder, train(folder, AUTOMATIC)


def test_controller_runs_all_phases(automatic):
    folder, runner = automatic
    made = entries(folder)

    assert made[0]["changes"] == {"ot_scale": 0.2, "guidance": False}
    for phase in ("averaging", "refining", "guidance"):
        assert any(f"{phase} begins, " in decision["reason"] for decision in made)
    assert any(decision["restore"] == ["discriminator"] for decision in made)
    assert all(decision["reason"] for decision in made)
    assert [decision["stop"] for decision in made] == [False] * (len(made) - 1) + [True]
    assert runner.train_loop.has_ended
    assert runner.train_loop.num_images < 320
    assert runner.objective.uses_guidance
    scales = [d["changes"]["ot_scale"] for d in made if "ot_scale" in d["changes"]]
    assert runner.objective.ot_scale == scales[-1]


def test_last_checkpoint_has_the_best_model(automatic):
    folder, runner = automatic
    measured = entries(folder, "measured.jsonl")[1:]
    guided = next(e["at"] for e in entries(folder) if e["changes"].get("guidance"))
    measured = [entry for entry in measured if entry["num_images"] > guided]
    best = min(measured, key=lambda entry: entry["values"]["pixel_frechet_distance"])

    again = runner.phases._measure(runner, runner.phases.protocol)

    assert again == best["values"]["pixel_frechet_distance"]
    entries_before = entries(folder, "measured.jsonl")[:-1]  # Measuring wrote one more.
    (folder / "measured.jsonl").write_text("".join(json.dumps(e) + "\n" for e in entries_before))
    assert runner.last_checkpoint.endswith(f"{runner.train_loop.num_images:09d}")


def test_selection_and_evaluation_use_different_noises(automatic):
    folder, runner = automatic
    protocols = [entry["protocol"] for entry in entries(folder, "measured.jsonl")]

    assert {protocol["seed"] for protocol in protocols} == {1}
    assert runner.run_config.evaluation.seed == 0


def resume_after(folder, split):
    train(folder, AUTOMATIC, hooks=[StopAt(split)]).save()
    return train(folder, AUTOMATIC, resume=True)


@pytest.mark.parametrize(
    "split", [56, *(pytest.param(at, marks=pytest.mark.slow) for at in range(8, 192, 8))]
)
def test_run_with_phases_resumes_exactly(automatic, tmp_path, split):
    resumed = resume_after(tmp_path, split)

    folder, whole = automatic
    assert_same_weights(whole, resumed)
    for name in ("decisions.jsonl", "measured.jsonl"):
        assert entries(folder, name) == entries(tmp_path, name)


def test_resume_within_a_trial_on_any_storage(automatic):
    folder, whole = automatic
    trial = next(e for e in entries(folder) if e["restore"] == ["discriminator"])
    url = f"memory://{uuid.uuid4().hex}/run"

    resumed = resume_after(url, trial["at"] + 8)

    assert_same_weights(whole, resumed)
    assert entries(folder) == entries(url)
    needed = set()
    for checkpoint in checkpoint_folders(url):
        needed |= set(read_manifest(checkpoint)["snapshots"])
    kept = storage.list_folders(storage.join(url, "snapshots"))
    assert {int(name) for name in kept} == needed


def start(folder, function, count):
    """Runs in a fork that dies at some call of a function; returns its exit status."""
    settings = [f"--set={override}" for override in [*TINY, AUTOMATIC, "checkpoint_every=24"]]
    command = ["train", "afm_digits", *settings, "--work-dir", str(folder), "--resume"]
    return Fork(f"{folder}.txt", mortal.run, function, count, 0, *command, "--device=cpu").wait()


def assert_same_run(automatic, folder):
    whole, _ = automatic
    for name in ("decisions.jsonl", "measured.jsonl"):
        assert entries(whole, name) == entries(folder, name)
    last = max((whole / "checkpoints").iterdir()).name
    assert max((folder / "checkpoints").iterdir()).name == last
    for path in (whole / "checkpoints" / last).glob("*.safetensors"):
        assert path.read_bytes() == (folder / "checkpoints" / last / path.name).read_bytes()


def test_resume_after_kill_in_a_snapshot(automatic, tmp_path):
    # After the config, a snapshot at 16 and a checkpoint at 24: the third file of a snapshot at 32.
    assert start(tmp_path, "replace", 16) == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [f"{24:09d}"]
    assert not (tmp_path / "snapshots" / f"{32:09d}" / "manifest.json").exists()
    with (tmp_path / "decisions.jsonl").open("a") as file:
        file.write('{"num_images": 3')
    train(tmp_path, AUTOMATIC, "checkpoint_every=24", resume=True)

    assert_same_run(automatic, tmp_path)


@pytest.mark.slow
def test_kill_at_every_write(automatic, tmp_path):
    """One after another, each in the run that the last one left."""
    for count in itertools.count(1):
        status = start(tmp_path, "replace", count)
        if status == 0:
            break
        assert status == -signal.SIGKILL

    assert count > 10
    assert_same_run(automatic, tmp_path)


def test_kill_before_first_checkpoint_restarts(automatic, tmp_path):
    train(tmp_path, AUTOMATIC, hooks=[StopAt(24)])  # Which nobody saved.
    train(tmp_path, AUTOMATIC, resume=True, hooks=[StopAt(80)])

    assert entries(tmp_path) == [e for e in entries(automatic[0]) if e["num_images"] <= 80]


def test_decisions_replay_as_a_fixed_schedule(automatic, tmp_path):
    folder, whole = automatic
    replayed = train(tmp_path, f"phases={json.dumps(phases_of(str(folder)))}")

    assert replayed.train_loop.num_images == whole.train_loop.num_images
    assert_same_weights(whole, replayed)
    assert not (tmp_path / "measured.jsonl").exists()


def test_finished_run_does_nothing(automatic):
    folder, whole = automatic
    before = entries(folder)
    again = train(folder, AUTOMATIC, resume=True)

    assert again.train_loop.has_ended
    assert_same_weights(whole, again)
    assert entries(folder) == before


def test_only_needed_snapshots_are_kept(automatic):
    folder, runner = automatic
    kept = {int(path.name) for path in (folder / "snapshots").iterdir()}

    assert kept <= set(runner.phases.controller.snapshots())


def test_resume_without_snapshots_raises(tmp_path):
    train(tmp_path, AUTOMATIC, hooks=[StopAt(56)]).save()
    (tmp_path / "snapshots" / f"{48:09d}" / "manifest.json").unlink()

    with pytest.raises(CheckpointError, match="snapshots/000000048 is not a checkpoint"):
        train(tmp_path, AUTOMATIC, resume=True)


class Watch(Hook):
    """Notes what a fixed schedule has made of a run after each iteration."""

    def __init__(self):
        self.seen = {}

    def after_train_iter(self, runner, **kwargs):
        objective = runner.objective
        pairs = zip(
            objective.generator.parameters(), objective.generator_ema.parameters(), strict=True
        )
        self.seen[runner.train_loop.num_images] = {
            "ot_scale": objective.ot_scale,
            "factors": [runner.step.optimizers[p].phase_factor for p in objective.players],
            "is_reloaded": all(torch.equal(online, average) for online, average in pairs),
            "switches": (objective.uses_guidance, objective.uses_augmentation),
            "discriminator": [p.detach().clone() for p in objective.discriminator.parameters()],
        }


def test_fixed_schedule_is_applied(tmp_path):
    watch = Watch()
    phases = [
        {"at": 0, "guidance": False},
        {"at": 16, "ot_scale": 0.05, "lr_factor": 0.5, "ema_reload_every": 16},
        {"at": 40, "restore": ["discriminator"], "restore_from": 20, "ema_reload_every": 0},
        {"at": 41, "restore": ["discriminator"], "restore_from": 23, "guidance": True},
        {"at": 48, "lr_factor": {"generator": 0.1, "discriminator": 0.2}},
        {"at": 56, "reload_ema": True},
        {"at": 64, "stop": True},
    ]
    runner = train(
        tmp_path, f"phases={json.dumps(phases)}", "objective.ot_scale=0.2", hooks=[watch]
    )

    seen = watch.seen
    assert [s["ot_scale"] for s in seen.values()] == [0.2] + [0.05] * 7
    assert seen[8]["factors"] == [1.0, 1.0]
    assert seen[40]["factors"] == [0.5, 0.5]
    assert seen[48]["factors"] == [0.2, 0.1]  # The discriminator comes first.
    assert [at for at, s in seen.items() if s["is_reloaded"]] == [32, 56]
    assert [s["switches"] for s in seen.values()] == [(False, True)] * 5 + [(True, True)] * 3
    for at in (32, 40, 48, 56):  # 20 and 23 are both reached by the iteration that ends at 24.
        pairs = zip(seen[24]["discriminator"], seen[at]["discriminator"], strict=True)
        assert all(torch.equal(then, now) for then, now in pairs) == (at in (40, 48))
    assert max(seen) == 64
    assert runner.train_loop.has_ended


class WatchAverages(Hook):
    """Notes both EMAs after each iteration."""

    def __init__(self):
        self.seen = {}

    def after_train_iter(self, runner, **kwargs):
        networks = (runner.objective.generator_ema, runner.objective.generator_ema_0_5)
        self.seen[runner.train_loop.num_images] = [
            [p.detach().clone() for p in network.parameters()] for network in networks
        ]


def test_more_emas_are_restored_with_the_ema(tmp_path):
    watch = WatchAverages()
    phases = "phases=[{at: 32, restore: [generator_ema], restore_from: 16}]"

    train(tmp_path, phases, "ema.decays=[0.5]", "num_images=40", hooks=[watch])

    for then, now, later in zip(*(watch.seen[at] for at in (16, 32, 40)), strict=True):
        assert all(torch.equal(*pair) for pair in zip(then, now, strict=True))
        assert not all(torch.equal(*pair) for pair in zip(then, later, strict=True))


FIRST = "{at: 16, ot_scale: 0.05}"
BACK = "{at: 48, restore: [discriminator], restore_from: 20}"
KEPT = ["num_images=64", "checkpoint_every=8", "keep_every=8"]


@pytest.fixture(scope="module")
def stalled(tmp_path_factory):
    """A run with a list of phases, stopped after 40 images."""
    folder = tmp_path_factory.mktemp("stalled")
    with torch.random.fork_rng(devices=[]):
        train(folder, f"phases=[{FIRST}, {{at: 56, stop: true}}]", *KEPT, hooks=[StopAt(40)])
    return folder


def test_later_phases_may_change_and_restore(stalled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(stalled, folder)

    resumed = train(folder, f"phases=[{FIRST}, {BACK}]", *KEPT, resume=True)

    assert_same_weights(train(tmp_path / "2", f"phases=[{FIRST}, {BACK}]", *KEPT), resumed)
    assert entries(folder) == entries(tmp_path / "2")


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (f"[{{at: 16, ot_scale: 0.06}}, {BACK}]", r"its phases\[0\].ot_scale is 0.05, not 0.06"),
        (f"[{FIRST}, {{at: 40, stop: true}}]", "is of another run: its phases is"),
        ("{every: 8}", "is of another run: its phases is"),
    ],
)
def test_started_phases_must_not_change(stalled, phases, message):
    with pytest.raises(CheckpointError, match=message):
        train(stalled, f"phases={phases}", *KEPT, resume=True)


def test_restore_of_deleted_checkpoint_raises(stalled, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(stalled, folder)
    shutil.rmtree(folder / "checkpoints" / f"{24:09d}")

    message = "restore the state at 20 images, .* there are checkpoints at 8, 16, 32, 40"
    with pytest.raises(CheckpointError, match=message):
        train(folder, f"phases=[{FIRST}, {BACK}]", *KEPT, resume=True)


def test_restore_across_changed_networks_raises(tmp_path):
    first = "{at: 24, reload_ema: true}"
    train(tmp_path, f"phases=[{first}]", *KEPT, hooks=[StopAt(40)])

    with pytest.raises(CheckpointError, match="restore the state at 20 images, where they also"):
        train(tmp_path, f"phases=[{first}, {BACK}]", *KEPT, resume=True)


def test_reload_keeps_optimizer_state(tmp_path):
    class Moments(Hook):
        seen = ()

        def after_train_iter(self, runner, **kwargs):
            state = runner.step.optimizers["generator"].optimizer.state_dict()["state"]
            self.seen += (json.dumps([float(m["exp_avg_sq"].sum()) for m in state.values()]),)

    with_reload, without = Moments(), Moments()
    train(tmp_path / "1", "phases=[{at: 8, reload_ema: true}]", "num_images=8", hooks=[with_reload])
    train(tmp_path / "2", "num_images=8", hooks=[without])

    assert with_reload.seen == without.seen


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("7", "phases must be a list, or the settings of a controller"),
        ("{every: 0}", "phases: every must be at least 1"),
        ("{evry: 5}", "phases: there is no key 'evry'. Did you mean 'every'"),
        ("{seed: 0}", "phases.seed must differ from evaluation.seed, 0"),
        ("{metric: FrechetDistence}", "FrechetDistance"),
        ("{metric: Diversity}", "phases.metric is Diversity, which has no distances"),
        (
            "{metric: KernelDistance, value: kernel_distance_std}",
            "phases.value is 'kernel_distance_std', which is not a .* Available: kernel_distance",
        ),
        ("{ot_start: 0.001}", "phases: ot_start must be at least ot_min, got 0.001"),
        ("{ot_min: 0.5}", "the transport scale starts at 0.2, below its minimum 0.5"),
        ("{lr_factors: [1]}", "lr_factors must be three"),
        ("{lr_factors: [1, 0, 1]}", r"lr_factors\[1\] must be positive, got 0"),
        ("{lr_factors: [1, {generator: 2}, 1]}", r"lr_factors\[1\] is one number, or one for each"),
        ("[{at: 5, lr_factor: -1}]", r"phases\[0\]: lr_factor must be positive"),
        ("[{at: 5, lr_factor: {generator: 0, discriminator: 1}}]", "lr_factor.generator must be"),
        ("[{at: 5, lr_factor: {generatr: 1}}]", r"phases\[0\].lr_factor is one number, or one"),
        ("[{at: 5, augmentation: true}]", r"phases\[0\]: .* has no setting 'augmentation'"),
        ("[{at: 5, restore: [generator]}]", r"phases\[0\]: restore and restore_from belong"),
        ("[{at: 5, restore: [generator], restore_from: 9}]", "restore_from must be before 5"),
        ("[{at: 5, restore: [generator], restore_from: 0}]", "restore_from must be at least 1"),
        ("[{at: 5, restore: [critic], restore_from: 1}]", "there is no network 'critic'"),
    ],
)
def test_mistakes_raise_before_the_run(tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        Runner(load_config("afm_digits", [*TINY, f"phases={phases}"]), tmp_path, device="cpu")


def test_unknown_value_of_the_metric_raises(tmp_path):
    message = r"phases\.value is 'frechet_distance'; .* are pixel_frechet_distance here"
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, "phases={every: 8, value: frechet_distance}")


def test_failed_metric_is_not_measured(tmp_path, monkeypatch):
    def fail(self, evaluation):
        raise ValueError("all samples are alike")

    monkeypatch.setattr("afmlib.metrics.frechet_distance.FrechetDistance.__call__", fail)
    console = Console(record=True, file=io.StringIO())
    runner = train(tmp_path, "phases={every: 8}", "num_images=16", console=console)

    assert runner.phases.controller.memory.best_at is None
    assert "at 0 images, FrechetDistance cannot be computed: all samples are alike" in (
        console.export_text()
    )
    assert "nothing was measured" in entries(tmp_path)[-1]["reason"]


def test_guidance_phase_needs_guidance(tmp_path):
    settings = [*TINY[:-3], "phases=[{at: 5, guidance: true}]"]
    with pytest.raises(ConfigError, match=r"phases\[0\]: .* has no setting 'guidance'"):
        Runner(load_config("afm_digits", settings), tmp_path, device="cpu")


@pytest.mark.parametrize("phases", ["{}", "[{at: 8, ot_scale: 0.1}]"])
def test_scale_phases_need_a_transport_scale(tmp_path, phases):
    config = load_config("flow_matching_digits", [f"phases={phases}"])
    with pytest.raises(ConfigError, match=r"FlowMatching has no setting .*ot_scale"):
        Runner(config, tmp_path, device="cpu")


def test_default_lengths_are_fractions_of_the_run(tmp_path):
    options = [*TINY, "phases={}", "num_images=3200", "objective.ot_scale.start=0.3"]
    open_, given = (
        Runner(load_config("afm_digits", [*options, *more]), tmp_path, device="cpu").phases
        for more in ([], ["objective.ot_scale.length=500", "phases={every: 7}"])
    )

    assert (open_.controller.every, given.controller.every) == (100, 7)
    assert open_.controller.max_phase_images == 2560
    schedules = [phases.controller.ot_schedule for phases in (open_, given)]
    assert [(s.start, s.end, s.length) for s in schedules] == [
        (0.3, 0.005, 3200),
        (0.3, 0.005, 500),
    ]


def test_measurements_take_bounded_space():
    """Of counts of images alone: what is needed never grows with the run."""
    from afmlib.engine.phases.memory import Memory

    memory = Memory("transport", 0.2, 0.2)
    for at, value in zip(range(1, 1000), itertools.cycle([3.0, 2.0, 5.0]), strict=False):
        memory.measure(at, value - at / 1000, 0.01)
        memory.keep_candidate(at, 3)
        assert len(memory.needed) <= 8
        assert memory.best_at in memory.candidates
