"""The configs of the paper's schedules equal its Tables 10 and 11."""

from dataclasses import dataclass, replace

import pytest
from mmengine.hooks import Hook

from afmlib.augmentation.paired import PairedAugmentation
from afmlib.config import check_config, load_config
from afmlib.engine import Runner

EPOCH = 1_281_167
"""Images of ImageNet."""


@dataclass(frozen=True)
class Row:
    """A model of Tables 10 and 11; learning rates in units of 1e-5."""

    epochs: tuple[int, ...]
    generator_lr: tuple[float, ...]
    ot_end: float = 0.005
    ot_start: float = 0.2
    discriminator_lr: tuple[float, ...] | None = None
    clip: float = 50
    nfe: int = 1
    prediction: str = "sample"
    guidance: tuple = ("ClassifierGuidance", 0.003, [0, 0.1])


ONE_STEP = (10, 8, 3, 5)
DEEP = Row((), (), clip=5)
FEW_STEPS = Row(
    (),
    (10, 8, 3, 3),
    ot_start=0.25,
    clip=5,
    prediction="velocity",
    guidance=("TargetClassifierGuidance", 0.02, [0]),
)
TABLE = {
    "afm_b2": Row((150, 155, 170, 200), ONE_STEP, ot_end=0.01),
    "afm_m2": Row((100, 105, 110, 120), ONE_STEP),
    "afm_l2": Row((85, 105, 110, 120), ONE_STEP),
    "afm_xl2": Row((90, 110, 120, 125), ONE_STEP),
    "afm_2nfe_xl2": replace(FEW_STEPS, epochs=(75, 85, 90, 95), nfe=2),
    "afm_4nfe_xl2": replace(
        FEW_STEPS,
        epochs=(130, 135, 140, 145),
        nfe=4,
        guidance=("TargetClassifierGuidance", 0.02, [0, 0.25]),
    ),
    "afm_xl2_deep56": replace(
        DEEP,
        epochs=(75, 80, 85, 95),
        generator_lr=(5, 4, 1.5, 1),
        discriminator_lr=(10, 8, 3, 2),
    ),
    "afm_xl2_deep112": replace(
        DEEP,
        epochs=(90, 95, 100, 120),
        generator_lr=(2.5, 2, 0.25, 0.5),
        discriminator_lr=(10, 8, 1, 2),
    ),
}


def phases_of_run(run):
    """Returns the settings in each phase of a run, and its start."""
    holds = {"ot_scale": None, "lr_factor": 1.0, "ema_reload_every": 0}
    holds |= {"guidance": True, "augmentation": True}
    found = [] if run.phases[0].at == 0 else [{**holds, "at": 0, "reload_ema": False}]
    for phase in run.phases:
        given = {**vars(phase), **phase.settings}
        holds |= {name: given[name] for name in holds if given.get(name) is not None}
        found.append({**holds, "at": phase.at, "reload_ema": phase.reload_ema})
        assert not phase.restore
    return found


def check_schedule(run, row, num_phases):
    phases = phases_of_run(run)
    assert [phase["at"] for phase in phases] == [0, *(e * EPOCH for e in row.epochs)][:num_phases]
    assert run.num_images == row.epochs[num_phases - 1] * EPOCH
    assert [phase["ot_scale"] for phase in phases] == [None, 0.001, 0.001, 0.001][:num_phases]
    reloads = [phase["ema_reload_every"] for phase in phases]
    assert reloads == [0, EPOCH, EPOCH, 0][:num_phases]
    return phases


@pytest.mark.parametrize("name", TABLE)
def test_hyperparameters_of_the_paper(name):
    run, row = check_config(load_config(name)), TABLE[name]

    for optimizer in run.optimizers.values():
        assert optimizer.type == "AdamW"
        assert list(optimizer.betas) == [0, 0.9]
        assert (optimizer.eps, optimizer.weight_decay) == (1e-8, 0.01)
        assert optimizer.clip_grad_norm == row.clip
    assert (run.global_batch, run.ema.decay, run.ema.warmup) == (256, 0.9999, False)
    assert run.precision == "tf32"
    assert run.objective["ot_scale"] == {
        "type": "CosineSchedule",
        "start": row.ot_start,
        "end": row.ot_end,
        "length": 500_000 * 256,  # The public configs: 1,000,000 steps of D and G together.
    }
    assert run.objective["gp_scale"] == 0.25
    assert (run.objective["nfe"], run.objective["prediction"]) == (row.nfe, row.prediction)
    repeats = {"afm_xl2_deep56": 2, "afm_xl2_deep112": 4}.get(name)
    assert run.objective["generator"].get("repeats") == repeats


@pytest.mark.parametrize("name", TABLE)
def test_schedule_without_guidance(name):
    run = check_config(load_config(name))

    check_schedule(run, TABLE[name], num_phases=3)
    assert "guidance" not in run.objective


def guided(name):
    return name.replace("afm_", "afm_guided_")


@pytest.mark.parametrize("name", TABLE)
def test_schedule_of_the_paper(name):
    run, row = check_config(load_config(guided(name))), TABLE[name]

    *before, last = check_schedule(run, row, num_phases=4)
    assert not any(phase["guidance"] or phase["augmentation"] for phase in before)
    assert last["guidance"]
    assert last["augmentation"]
    assert last["reload_ema"]
    kind, scale, when = row.guidance
    found = run.objective["guidance"]
    assert (found["type"], found["scale"]) == (kind, scale)
    assert found["timesteps" if kind == "ClassifierGuidance" else "targets"] == when
    assert found["classifier"]["type"] == "PretrainedClassifier"
    assert run.objective["augmentation"] == "PairedAugmentation"
    assert PairedAugmentation().probability == 0.4  # App. D.
    without = check_config(load_config(name))
    same = ("ot_scale", "gp_scale", "nfe", "prediction", "generator", "discriminator")
    assert all(run.objective[key] == without.objective[key] for key in same)
    assert run.optimizers == without.optimizers
    assert run.phases[1:3] == without.phases


SMALL = {
    "generator": "hidden_size=16 depth=1 num_heads=2",
    "discriminator": "hidden_size=16 depth=1 num_heads=2",
}


CLASSIFIER = {"type": "DiTClassifier", "hidden_size": 16, "depth": 1, "num_heads": 2}


def shortened(name, batch=8):
    """Loads a config with small networks and data, and one update per phase."""
    networks = []
    for role, arguments in SMALL.items():
        inner = ".generator" if "deep" in name and role == "generator" else ""
        networks += [f"objective.{role}{inner}.{argument}" for argument in arguments.split()]
    config = load_config(name, [*networks, "data={type: Digits}", f"global_batch={batch}"])
    config["phases"] = [
        {**phase, "at": batch * index + (batch if config["phases"][0]["at"] else 0)}
        for index, phase in enumerate(config["phases"])
    ]
    config["num_images"] = batch * (len(config["phases"]) + 2)
    if "guidance" in config["objective"]:
        config["objective"]["guidance"]["classifier"] = CLASSIFIER
    return config | {"num_workers": 0, "sample_every": None, "checkpoint_every": None}


class Rates(Hook):
    """Records the learning rates of a run, in units of 1e-5, when one of them changes."""

    def __init__(self):
        self.seen = {"generator": [], "discriminator": []}

    def after_train_iter(self, runner, **kwargs):
        for player, seen in self.seen.items():
            rate = runner.step.optimizers[player].optimizer.param_groups[0]["lr"] * 1e5
            if not seen or rate != pytest.approx(seen[-1]):
                seen.append(rate)


@pytest.mark.parametrize("is_guided", [False, True], ids=["", "guided"])
@pytest.mark.parametrize("name", TABLE)
def test_reduced_run_through_all_phases(name, is_guided, tmp_path):
    rates, row = Rates(), TABLE[name]
    config = shortened(guided(name) if is_guided else name)
    runner = Runner(config, tmp_path, device="cpu", hooks=[rates])
    runner.train()

    assert runner.objective.ot_scale == 0.001
    assert runner.objective.uses_guidance
    expected = {
        "generator": row.generator_lr,
        "discriminator": row.discriminator_lr or row.generator_lr,
    }
    for player, seen in rates.seen.items():
        if name.startswith(("afm_2nfe", "afm_4nfe")):  # The last two are the same there.
            assert seen == pytest.approx(expected[player][:3])
        else:
            assert seen == pytest.approx(expected[player][: 4 if is_guided else 3])
