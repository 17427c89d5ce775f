"""Tests for afmlib.engine.distribution: two processes do what one does."""

import json

import pytest
import torch
import two_processes
from forks import run_together

from afmlib.config import ConfigError
from afmlib.engine import Runner

CASES = list(two_processes.CASES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The runs, of which two were begun by one process; a classifier that guides; a model."""
    folder = tmp_path_factory.mktemp("distribution")
    two_processes.train("classifier", folder / "classifier", "optimizers.classifier.lr=0.1")
    two_processes.train("afm", folder / "model")
    for distributed in ("ddp", "fsdp"):
        two_processes.stop_and_save("afm", folder / f"of-one-{distributed}")
    return folder


@pytest.fixture(scope="module")
def of_two(folder):
    """The results of all experiments in each of two processes."""
    run_together(folder, two_processes.everything, str(folder))
    return [torch.load(folder / f"results-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def of_one(folder):
    """The results of one process, by case."""
    return {case: two_processes.gradients(case, folder / f"{case}-one") for case in CASES}


@pytest.fixture(scope="module")
def phases_of_one(folder):
    return two_processes.phases(folder / "phases-one")


def assert_close(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize(
    ("case", "distributed"),
    [
        *((case, "ddp") for case in CASES),
        *((case, "fsdp") for case in CASES if case not in two_processes.SECOND_DERIVATIVES),
    ],
)
def test_gradients_match_one_process(of_one, of_two, case, distributed):
    for results in of_two:
        together = results[f"{case}-{distributed}"]
        assert len(of_one[case]["gradients"]) in (3, 6, 9)
        for one, two in zip(of_one[case]["gradients"], together["gradients"], strict=True):
            assert_close(one, two)
        assert_close(of_one[case]["state"], together["state"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("micro_batch", [2, 4])
def test_micro_batch_gradients_match_full_batch(of_one, case, micro_batch, folder):
    run = folder / f"{case}-parts-{micro_batch}"
    parts = two_processes.gradients(case, run, f"micro_batch={micro_batch}")

    for one, two in zip(of_one[case]["gradients"], parts["gradients"], strict=True):
        assert_close(one, two)
    assert_close(of_one[case]["state"], parts["state"])


@pytest.mark.parametrize("name", ["micro-ddp", "micro-fsdp"])
def test_micro_batches_in_two_processes(of_one, of_two, name):
    for one, two in zip(of_one["afm"]["gradients"], of_two[0][name]["gradients"], strict=True):
        assert_close(one, two)


@pytest.mark.parametrize("name", ["afm-ddp", "afm-fsdp", "deep-fsdp"])
def test_ema_is_equal_in_all_processes(of_two, name):
    first, second = (results[name]["state"] for results in of_two)

    assert any(key.startswith("generator_ema.") for key in first)
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_guidance_has_gradients(of_one):
    for line in of_one["guided"]["log"].splitlines():
        assert json.loads(line)["generator/gradient_guidance"] > 1e-3


@pytest.mark.parametrize("name", ["afm-ddp", "afm-fsdp", "guided-fsdp", "flow-ddp", "micro-ddp"])
def test_log_matches_one_process(of_one, of_two, name):
    case = "afm" if name == "micro-ddp" else name.split("-")[0]
    one, two = (
        [json.loads(line) for line in text.splitlines()]
        for text in (of_one[case]["log"], of_two[0][name]["log"])
    )

    assert len(one) == len(two) == 3
    for here, there in zip(one, two, strict=True):
        assert here.keys() == there.keys()
        for key in here.keys() - {"images_per_second", "peak_memory_gib"}:
            assert here[key] == pytest.approx(there[key], rel=1e-9, abs=1e-9), key


@pytest.mark.parametrize("distributed", ["ddp", "fsdp"])
def test_resume_two_processes_in_one(of_one, of_two, folder, distributed):
    assert [results[f"stopped-{distributed}"] for results in of_two] == [8, 8]

    resumed = two_processes.resume("afm", folder / f"stopped-{distributed}")

    assert_close(of_one["afm"]["state"], resumed)


@pytest.mark.parametrize("distributed", ["ddp", "fsdp"])
def test_resume_one_process_in_two(of_one, of_two, distributed):
    for results in of_two:
        assert_close(of_one["afm"]["state"], results[f"resumed-{distributed}"])


@pytest.mark.parametrize("distributed", ["ddp", "fsdp"])
def test_resume_two_processes_in_two(of_two, distributed):
    for results in of_two:
        whole, resumed = results[f"afm-{distributed}"]["state"], results[f"both-{distributed}"]
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize("distributed", ["ddp", "fsdp"])
def test_phases_match_one_process(phases_of_one, of_two, distributed):
    one = phases_of_one
    actions = [json.loads(line) for line in one["decisions"].splitlines()]
    assert {len(action["restore"]) for action in actions} == {0, 1, 3}
    assert any(action["reload_ema"] for action in actions)

    for results in of_two:
        together = results[f"phases-{distributed}"]
        assert together["decisions"] == one["decisions"]
        assert_close(one["state"], together["state"])


def test_nan_in_one_process_stops_all(of_two):
    for results in of_two:
        assert "is not finite after 8 images" in results["not finite"]


def test_samples_match_one_process(of_two, folder):
    alone = two_processes.samples(str(folder / "model"))

    assert of_two[1]["samples"] is None
    assert torch.equal(of_two[0]["samples"], alone)


def test_evaluation_that_fails_in_one_process_fails_in_all(of_two):
    first, second = (results["failed evaluation"] for results in of_two)

    assert first == "The evaluation failed in another process."
    assert "this process fails" in second


def test_fsdp_rejects_second_derivative(of_two):
    for results in of_two:
        assert "AutogradPenalty needs a second derivative" in results["refused"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["micro_batch=0"], "micro_batch must be at least 1"),
        (["distributed=dpp"], "distributed"),
    ],
)
def test_bad_settings_are_rejected(overrides, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Runner(two_processes.config_of("afm", *overrides), tmp_path / "run", device="cpu")


def test_one_process_makes_no_distributed_call(monkeypatch, tmp_path):
    harmless = {"is_available", "is_initialized"}

    def refuse(*args, **kwargs):
        raise AssertionError("A distributed call in a single process.")

    for name in torch.distributed.__all__ if hasattr(torch.distributed, "__all__") else []:
        if callable(getattr(torch.distributed, name, None)) and name not in harmless:
            monkeypatch.setattr(torch.distributed, name, refuse)
    for name in ("init_process_group", "all_reduce", "broadcast", "barrier", "all_gather"):
        monkeypatch.setattr(torch.distributed, name, refuse)

    two_processes.train("afm", tmp_path / "run", "num_images=8")
