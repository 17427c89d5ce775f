"""What two processes do together, for tests/engine/test_distribution.py.

Each function is one experiment. The tests compare what it returns in each process with what it
returns in one process.
"""

import contextlib
import errno
from pathlib import Path

import torch
from mmengine.hooks import Hook
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from afmlib import load_checkpoint, processes
from afmlib.config import ConfigError, EvaluationConfig, load_config
from afmlib.engine import Runner, TrainingError, join_processes, leave_processes
from afmlib.evaluation import EvaluationError, evaluate_model, sample_together
from afmlib.interfaces import FeatureExtractor, Regularizer
from afmlib.io import storage
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.registry import EXTRACTORS, OBJECTIVES, REGULARIZERS, build_dataset

CPU = "cpu"

TINY = [
    "objective.generator.hidden_size=16",
    "objective.discriminator.hidden_size=16",
    "global_batch=8",
    "num_images=24",
    "evaluation.metrics=[]",
    "evaluation.extractor=null",
    "checkpoint_every=null",
    "sample_every=null",
    "precision=float64",
    "objective.gp_fraction=0.5",
    # Adam would turn the rounding errors of gradients that are zero into full steps.
    "optimizers.generator.eps=1e-3",
    "optimizers.discriminator.eps=1e-3",
]


class _Size(Regularizer):
    def forward(self, generated):
        return generated.samples.square().flatten(1).sum(1)


class _Extended(AdversarialFlow):
    """Adds a term to each player, as a researcher does."""

    def discriminator_terms(self, latents, labels, draws):
        terms = super().discriminator_terms(latents, labels, draws)
        logits = self.discriminator(latents, labels, draws.timesteps_tgt)
        terms["mine"] = 0.3 * logits.square().mean()
        return terms

    def generator_terms(self, latents, labels, draws):
        terms = super().generator_terms(latents, labels, draws)
        samples = self.generator(draws.noises_src, labels)
        terms["mine"] = 0.3 * (samples - latents).square().mean()
        return terms


for registry, component in ((REGULARIZERS, _Size), (OBJECTIVES, _Extended)):
    if component.__name__ not in registry.components():
        registry.register_module()(component)

CASES = {
    "terms": (
        "afm_digits",
        [
            "objective.type=_Extended",
            "objective.regularizers=[{type: _Size, scale: 0.1}]",
            "updates.discriminator=2",
        ],
    ),
    "afm": ("afm_digits", ["sample_every=8", "ema.decays=[0.5]"]),
    "few": ("afm_digits", ["objective.gp_fraction=0.125"]),  # One row: half the parts have none.
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
    "shortcut": ("shortcut_digits", ["objective.bootstrap_fraction=0.125"]),
    "improved": (
        "imf_digits",
        [
            "objective.generator.class_dropout_prob=0.25",
            "objective.generator.num_conditions=3",
            "objective.max_omega=8.0",
        ],
    ),
    "alpha": ("alphaflow_digits", ["objective.alpha=0.5"]),
    "solution": ("soflow_digits", ["objective.consistency_fraction=0.5"]),
    "mean": (
        "meanflow_digits",
        ["objective.generator.class_dropout_prob=0.25", "objective.kappa=0.5"],
    ),
    "terminal": (
        "tvm_digits",
        ["objective.generator.class_dropout_prob=0.25", "objective.guidance_scale=2.0"],
    ),
    "continuous": ("cafm_digits", ["init_from=null", "updates.discriminator=2"]),
    "transport": (
        "transport_digits",
        ["objective.extractors=[]", "objective.samples_per_class=4", "objective.num_positives=4"],
    ),
    "frechet": (
        "frechet_loss_digits",
        ["init_from=null", "objective.extractors=[]", "objective.num_samples=16"],
    ),
}

SECOND_DERIVATIVES = ("terminal", "continuous")
"""The cases that FSDP2 does not support."""


def config_of(case, *overrides):
    name, more = CASES[case]
    has_discriminator, has_penalty = (
        name.startswith(starts) for starts in (("afm", "gan", "cafm"), ("afm", "gan"))
    )
    tiny = [key for key in TINY if has_discriminator or "discr" not in key]
    tiny = [key for key in tiny if has_penalty or "gp_" not in key]
    if case == "classifier":
        tiny = [key.replace("generator", "classifier") for key in tiny]
    if "deep" in name:
        tiny = [key.replace("generator.hidden", "generator.generator.hidden") for key in tiny]
    return load_config(name, [*tiny, *more, *overrides])


def train(case, work_dir, *overrides, hooks=(), **options):
    runner = Runner(config_of(case, *overrides), work_dir, device=CPU, hooks=hooks, **options)
    runner.train()
    return runner


def whole(tensors):
    """Returns copies of tensors, gathered from all processes if they are sharded."""
    gathered = (t.full_tensor() if isinstance(t, DTensor) else t for t in tensors.values())
    return dict(zip(tensors, (t.detach().clone() for t in gathered), strict=True))


def gradients(case, work_dir, *overrides):
    """Returns the gradients of every step of an optimizer, the last state and the log of a run.

    The classifier that guides lies beside the run.
    """
    if case == "guided":
        classifier = Path(work_dir).parent / "classifier"
        overrides = (f"objective.guidance.classifier.checkpoint={classifier}", *overrides)
    kept = []

    def keep(optimizer, args, kwargs):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        kept.append(whole({str(i): p.grad for i, p in enumerate(parameters) if p.grad is not None}))

    handle = register_optimizer_step_pre_hook(keep)
    try:
        runner = train(case, work_dir, *overrides)
    finally:
        handle.remove()
    return {
        "gradients": kept,
        "state": whole(runner.objective.state_dict()),
        "log": (Path(work_dir) / "log.jsonl").read_text(),
    }


class StopAt(Hook):
    """Stops a run in one process, as a signal does."""

    def __init__(self, num_images, rank):
        self.num_images = num_images
        self.rank = rank

    def after_train_iter(self, runner, **kwargs):
        if processes.rank() == self.rank and runner.train_loop.num_images >= self.num_images:
            runner.stop()


def stop_and_save(case, work_dir, *overrides):
    """Trains until the last process is stopped, and saves."""
    hook = StopAt(8, rank=processes.size() - 1)
    runner = train(case, work_dir, *overrides, hooks=[hook])
    runner.save()
    return runner.train_loop.num_images


def resume(case, work_dir, *overrides):
    """Resumes a run and trains to its end."""
    runner = train(case, work_dir, *overrides, resume=True)
    return whole(runner.objective.state_dict())


class SpoilOneProcess(Hook):
    """Puts a NaN into the discriminator of one process."""

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
    """Returns the decisions of a controller and the last state of its run."""
    runner = train("afm", work_dir, *PHASES, *overrides)
    text = (Path(work_dir) / "decisions.jsonl").read_text()
    return {"decisions": text, "state": whole(runner.objective.state_dict())}


def not_finite(work_dir):
    """Returns the message of the error."""
    try:
        train("gan", work_dir, hooks=[SpoilOneProcess()])
    except TrainingError as error:
        return str(error)
    return "nothing"


def second_derivative_under_fsdp(work_dir):
    """Returns the message of the error."""
    overrides = ("objective.penalty=AutogradPenalty", "distributed=fsdp")
    try:
        Runner(config_of("afm", *overrides), work_dir, device=CPU)
    except ConfigError as error:
        return str(error)
    return "nothing"


def samples(checkpoint):
    """Returns samples of a model; the last batch is smaller."""
    return sample_together(load_checkpoint(checkpoint), torch.arange(23) % 10, batch_size=3, seed=4)


class _FailsInOneProcess(FeatureExtractor):
    name = "fails"
    outputs = frozenset({"features"})

    def forward(self, images):
        if processes.rank() == 1:
            raise ValueError("this process fails")
        return images.flatten(1)


if "_FailsInOneProcess" not in EXTRACTORS.components():
    EXTRACTORS.register_module()(_FailsInOneProcess)


def failed_evaluation(checkpoint):
    """Returns the message of the error."""
    config = EvaluationConfig(
        metrics=["FrechetDistance"], extractor="_FailsInOneProcess", num_samples=20, batch_size=4
    )
    try:
        evaluate_model(load_checkpoint(checkpoint), build_dataset("Digits"), config)
    except EvaluationError as error:
        return str(error)
    return "nothing"


def everything(folder):
    """Runs all experiments of two processes, and saves the results of each process."""
    join_processes(CPU)
    results = {}
    for distributed in ("ddp", "fsdp"):
        option = f"distributed={distributed}"

        def path(name, distributed=distributed):
            return f"{folder}/{name}-{distributed}"

        for case in CASES:
            if distributed == "fsdp" and case in SECOND_DERIVATIVES:
                continue
            results[f"{case}-{distributed}"] = gradients(case, path(case), option)
        results[f"micro-{distributed}"] = gradients("afm", path("micro"), "micro_batch=2", option)
        results[f"stopped-{distributed}"] = stop_and_save("afm", path("stopped"), option)
        results[f"resumed-{distributed}"] = resume("afm", path("of-one"), option)
        stop_and_save("afm", path("both"), option)
        results[f"both-{distributed}"] = resume("afm", path("both"), option)
        results[f"phases-{distributed}"] = phases(path("phases"), option)
    results["not finite"] = not_finite(f"{folder}/not-finite")
    results["refused"] = second_derivative_under_fsdp(f"{folder}/refused")
    results["samples"] = samples(f"{folder}/model")
    results["failed evaluation"] = failed_evaluation(f"{folder}/model")
    torch.save(results, f"{folder}/results-{processes.rank()}.pt")
    leave_processes()


def train_sharded(folder):
    """Begins and resumes two equal runs, of which one has sharded checkpoints."""
    for num_images in (16, 32):
        for name, sharded in (("sharded", "true"), ("plain", "false")):
            settings = ["distributed=fsdp", f"sharded_checkpoints={sharded}", "checkpoint_every=8"]
            settings += [f"num_images={num_images}", "keep_last=9"]
            train("afm", Path(folder, name), *settings, resume=num_images > 16)
    with contextlib.suppress(OSError), _full_disk_in_the_second(Path(folder)):
        settings = ["distributed=fsdp", "sharded_checkpoints=true"]
        train("afm", Path(folder, "full"), *settings)
    leave_processes()


@contextlib.contextmanager
def _full_disk_in_the_second(folder):
    write = storage.write_atomically

    def full(path, content):
        if processes.rank() == 1 and "generator" in path:
            raise OSError(errno.ENOSPC, "No space left on device", path)
        write(path, content)

    storage.write_atomically = full
    try:
        yield
    except OSError as error:
        (folder / f"full-{processes.rank()}.txt").write_text(str(error))
        raise
    finally:
        storage.write_atomically = write
