"""Runs with phases: what a controller decides is done, resumed and replayed to the bit."""

import json

import pytest
import torch
from mmengine.hooks import Hook

from afmlib.config import ConfigError
from afmlib.engine import Runner

AUTOMATIC = [
    "phases={every: 16, metric: Diversity, value: diversity, patience: 1, num_candidates: 2}",
    "evaluation.num_samples=20",
    "num_images=320",
    "log.every=40",
]


class StopAt(Hook):
    def __init__(self, num_images):
        self.num_images = num_images

    def after_train_iter(self, runner, **kwargs):
        if runner.train_loop.num_images == self.num_images:
            runner.stop()


def decisions(folder):
    return [json.loads(line) for line in (folder / "decisions.jsonl").read_text().splitlines()]


def assert_same_weights(one, other):
    one, other = one.objective.state_dict(), other.objective.state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def automatic(run, tmp_path):
    return run(*AUTOMATIC, work_dir=tmp_path / "auto")


def test_the_controller_changes_the_run(automatic, tmp_path):
    made = decisions(tmp_path / "auto")

    assert made[0]["changes"]["ot_scale"] == 0.2
    assert made[-1]["stop"]
    assert all(decision["reason"] for decision in made)
    assert automatic.train_loop.has_ended
    assert (
        automatic.objective.ot_scale
        == [d["changes"]["ot_scale"] for d in made if "ot_scale" in d["changes"]][-1]
    )
    assert any(decision["restore"] for decision in made)


@pytest.mark.parametrize("split", [24, 48, 64, 80])
def test_a_run_with_phases_resumes_exactly(run, automatic, tmp_path, split):
    first = run(*AUTOMATIC, work_dir=tmp_path / "parts", hooks=[StopAt(split)])
    first.save()
    resumed = run(*AUTOMATIC, work_dir=tmp_path / "parts", resume=True)

    assert_same_weights(automatic, resumed)
    assert decisions(tmp_path / "auto") == decisions(tmp_path / "parts")


def test_decisions_replay_as_a_fixed_schedule(run, automatic, tmp_path):
    from afmlib.engine.phases.replay import phases_of

    phases = phases_of(str(tmp_path / "auto"))
    text = json.dumps(phases)
    replayed = run(f"phases={text}", "num_images=320", "log.every=40", work_dir=tmp_path / "replay")

    assert replayed.objective.num_images == automatic.objective.num_images
    assert_same_weights(automatic, replayed)


def test_a_finished_run_has_nothing_to_do(run, automatic, tmp_path):
    again = run(*AUTOMATIC, work_dir=tmp_path / "auto", resume=True)

    assert again.train_loop.has_ended
    assert_same_weights(automatic, again)


def test_only_snapshots_that_may_be_needed_are_kept(automatic, tmp_path):
    kept = {int(path.name) for path in (tmp_path / "auto/snapshots").iterdir()}

    assert kept <= set(automatic.phases.controller.snapshots())


def test_a_fixed_schedule_does_what_it_says(run, tmp_path):
    class Watch(Hook):
        def __init__(self):
            self.seen = {}

        def after_train_iter(self, runner, **kwargs):
            objective = runner.objective
            same = all(
                torch.equal(online, average)
                for online, average in zip(
                    objective.generator.parameters(),
                    objective.generator_ema.parameters(),
                    strict=True,
                )
            )
            factor = runner.optim_wrapper["generator"].phase_factor
            self.seen[runner.train_loop.num_images] = (objective.ot_scale, factor, same)

    watch = Watch()
    phases = [
        {"at": 16, "ot_scale": 0.05, "lr_factor": 0.5, "ema_reload_every": 16},
        {"at": 40, "restore": ["discriminator"], "restore_from": 20},
        {"at": 48, "stop": True},
    ]
    runner = run(f"phases={json.dumps(phases)}", "objective.ot_scale=0.2", hooks=[watch])

    assert watch.seen[8] == (0.2, 1.0, False)
    assert watch.seen[16][:2] == (0.05, 0.5)
    assert watch.seen[24][2] is False
    assert watch.seen[32][2] is True
    assert max(watch.seen) == 48
    assert runner.train_loop.has_ended


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ("7", "phases: expected a list or the keys of a controller"),
        ("{every: 0}", "phases: every must be at least 1"),
        ("{evry: 5}", "phases: there is no key 'evry'. Did you mean 'every'"),
        ("{every: 5, metric: FrechetDistence}", "FrechetDistance"),
        ("[{at: 5, lr_factor: -1}]", r"phases\[0\]: lr_factor must be positive"),
        ("[{at: 5, restore: [generator]}]", r"phases\[0\]: restore and restore_from belong"),
        ("[{at: 5, restore: [generator], restore_from: 9}]", "restore_from must be before 5"),
        ("[{at: 5, restore: [critic], restore_from: 1}]", "there is no network 'critic'"),
    ],
)
def test_mistakes_are_found_before_the_run(tiny_config, tmp_path, phases, message):
    with pytest.raises(ConfigError, match=message):
        Runner(tiny_config("afm_digits", f"phases={phases}"), tmp_path / "run", device="cpu")


def test_a_number_that_the_metric_does_not_give_is_named(run):
    with pytest.raises(ConfigError, match=r"phases\.value is 'fid'; Diversity gives diversity"):
        run("phases={every: 8, metric: Diversity, value: fid}", "evaluation.num_samples=20")


def test_phases_of_the_transport_scale_need_an_objective_that_has_one(tiny_config, tmp_path):
    with pytest.raises(ConfigError, match="FlowMatching has no transport scale"):
        Runner(
            tiny_config("flow_matching_digits", "phases={every: 8}"), tmp_path / "r", device="cpu"
        )
