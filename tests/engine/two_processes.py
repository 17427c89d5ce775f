"""What two processes do together; run by torchrun in the tests of the distribution.

Each function is one experiment. What it returns, in each process, is compared in the tests with
what one process does by itself: they call the same functions.
"""

import sys
from pathlib import Path

import torch
from mmengine.hooks import Hook

from afmlib import load_checkpoint, processes
from afmlib.config import ConfigError, load_config
from afmlib.engine import (
    Runner,
    TrainingError,
    evaluate_model,
    join_processes,
    leave_processes,
    sample_together,
)

CPU = "cpu"

TINY = [
    "objective.generator.hidden_size=16",
    "objective.discriminator.hidden_size=16",
    "global_batch=8",
    "num_images=24",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
    "checkpoint_every=null",
    "sample_every=8",
    "precision=float64",
    "objective.gp_fraction=0.5",
    # Some gradients are zero but for rounding, of which Adam would make steps of full length.
    "optimizers.generator.eps=1e-3",
    "optimizers.discriminator.eps=1e-3",
]

CASES = {
    "afm": ("afm_digits", []),
    "clipped": ("afm_digits", ["optimizers.generator.clip_grad_norm=1e-3"]),
    "any": ("afm_any_digits", ["objective.prediction=velocity"]),
    "deep": ("afm_deep_digits", []),
    "guided": (
        "afm_guided_digits",
        [
            "objective.guidance.scale=10.0",
            "objective.augmentation=PairedAugmentation",
            "init_from=null",
        ],
    ),
    "gan": ("gan_digits", ["objective.gradient_normalization=false", "objective.loss=HingeLoss"]),
    "classifier": ("classifier_digits", []),
    "flow": ("flow_matching_digits", ["objective.generator.class_dropout_prob=0.5"]),
    "consistency": ("consistency_digits", []),
    "scm": ("scm_digits", []),
    "shortcut": ("shortcut_digits", ["objective.bootstrap_fraction=0.5"]),
    "mean": (
        "meanflow_digits",
        ["objective.generator.class_dropout_prob=0.25", "objective.kappa=0.5"],
    ),
}


def config_of(case, *overrides):
    name, more = CASES[case]
    game = name.startswith(("afm", "gan"))
    tiny = [key for key in TINY if game or ("discr" not in key and "gp_" not in key)]
    if case == "classifier":
        tiny = [key.replace("generator", "classifier") for key in tiny]
    if "deep" in name:
        tiny = [key.replace("generator.hidden", "generator.generator.hidden") for key in tiny]
    return load_config(name, [*tiny, *more, *overrides])


def train(case, work_dir, *overrides, hooks=(), **options):
    runner = Runner(config_of(case, *overrides), work_dir, device=CPU, hooks=hooks, **options)
    runner.train()
    return runner


def whole(runner, tensors):
    gather = runner.step.distribution.gather
    return {name: gather(tensor.detach()).clone() for name, tensor in tensors.items()}


class KeepGradients:
    """Keeps what each optimizer of a run is given, by wrapping its step."""

    def __init__(self, runner):
        self.kept = []
        for player in runner.objective.players:
            self._wrap(runner, player)

    def _wrap(self, runner, player):
        optimizer = runner.step.optimizers[player]
        step = optimizer.step

        def keep_and_step():
            gradients = {str(i): g for i, g in enumerate(optimizer.gradients)}
            self.kept.append(whole(runner, gradients))
            step()

        optimizer.step = keep_and_step


def gradients(case, work_dir, *overrides):
    """Returns the gradient of every update of a run, and what it ends with.

    A classifier that guides lies beside the run.
    """
    if case == "guided":
        classifier = Path(work_dir).parent / "classifier"
        overrides = (f"objective.guidance.classifier.checkpoint={classifier}", *overrides)
    runner = Runner(config_of(case, *overrides), work_dir, device=CPU)
    keep = KeepGradients(runner)
    runner.train()
    return {
        "gradients": keep.kept,
        "state": whole(runner, runner.objective.state_dict()),
        "log": (Path(work_dir) / "log.jsonl").read_text(),
    }


class StopAt(Hook):
    """Asks for the end of a run, as a signal does, in one process."""

    def __init__(self, num_images, rank):
        self.num_images = num_images
        self.rank = rank

    def after_train_iter(self, runner, **kwargs):
        if processes.rank() == self.rank and runner.train_loop.num_images >= self.num_images:
            runner.stop()


def stop_and_save(case, work_dir, *overrides):
    """Runs until the last process is asked to stop, and saves."""
    hook = StopAt(8, rank=processes.size() - 1)
    runner = train(case, work_dir, *overrides, hooks=[hook])
    runner.save()
    return runner.train_loop.num_images


def resume(case, work_dir, *overrides):
    """Goes on to the end."""
    runner = train(case, work_dir, *overrides, resume=True)
    return whole(runner, runner.objective.state_dict())


class SpoilOneProcess(Hook):
    """Puts a NaN into the generator of one process."""

    def before_train_iter(self, runner, **kwargs):
        if processes.rank() == 1 and runner.train_loop.num_images == 8:
            next(runner.objective.discriminator.parameters()).data.fill_(float("nan"))


PHASES = [
    "phases={every: 8, patience: 1, tolerance: 0.3, ot_images: 24, max_phase_images: 64}",
    "num_images=160",
    "evaluation.num_samples=20",
    "optimizers.generator.lr=0.05",
    "optimizers.discriminator.lr=0.05",
]


def phases(work_dir, *overrides):
    """Returns the decisions of a controller and what a run ends with."""
    runner = train("afm", work_dir, *PHASES, *overrides)
    text = (Path(work_dir) / "decisions.jsonl").read_text()
    return {"decisions": text, "state": whole(runner, runner.objective.state_dict())}


def not_finite(work_dir):
    """Returns what the error says."""
    try:
        train("gan", work_dir, hooks=[SpoilOneProcess()])
    except TrainingError as error:
        return str(error)
    return "nothing"


def second_derivative_under_fsdp(work_dir):
    """Returns what the error says."""
    overrides = ("objective.penalty=AutogradPenalty", "distributed=fsdp")
    try:
        Runner(config_of("afm", *overrides), work_dir, device=CPU)
    except ConfigError as error:
        return str(error)
    return "nothing"


def samples(checkpoint):
    """Returns samples of a model, batches of which do not come out even."""
    return sample_together(load_checkpoint(checkpoint), torch.arange(23) % 10, batch_size=3, seed=4)


def numbers(checkpoint, runner):
    """Returns an evaluation of a model."""
    model = load_checkpoint(checkpoint)
    return evaluate_model(model, runner.dataset, runner.run_config.evaluation)


def everything(folder):
    """Runs all experiments of two processes."""
    join_processes(CPU)
    results = {}
    for case in CASES:
        for distributed in ("ddp", "fsdp"):
            name = f"{case}-{distributed}"
            option = f"distributed={distributed}"
            results[name] = gradients(case, f"{folder}/{name}", option)
    results["parts"] = gradients("afm", f"{folder}/parts", "micro_batch=2")
    results["parts-fsdp"] = gradients(
        "afm", f"{folder}/parts-fsdp", "micro_batch=2", "distributed=fsdp"
    )
    for distributed in ("ddp", "fsdp"):
        option = f"distributed={distributed}"
        work_dir = f"{folder}/stopped-{distributed}"
        results[f"stopped-{distributed}"] = stop_and_save("afm", work_dir, option)
        results[f"resumed-{distributed}"] = resume("afm", f"{folder}/of-one-{distributed}", option)
        both = f"{folder}/both-{distributed}"
        stop_and_save("afm", both, option)
        results[f"both-{distributed}"] = resume("afm", both, option)
        results[f"phases-{distributed}"] = phases(f"{folder}/phases-{distributed}", option)
    results["not finite"] = not_finite(f"{folder}/not-finite")
    results["refused"] = second_derivative_under_fsdp(f"{folder}/refused")
    results["samples"] = samples(f"{folder}/model")
    return results


if __name__ == "__main__":
    torch.save(everything(sys.argv[1]), f"{sys.argv[1]}/results-{processes.rank()}.pt")
    leave_processes()
