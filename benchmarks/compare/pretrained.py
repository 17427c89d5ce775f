"""A contender that is trained already: a run, a checkpoint, or a file as the authors publish it.

Where the data of its config are at hand it is judged like the others; where they are not, it is
sampled, shown and timed all the same.
"""

__all__ = ["evaluate_pretrained"]

from collections.abc import Mapping
from typing import Any

import torch

from afmlib import build_dataset, load_checkpoint, load_official
from afmlib.config import RunConfig, check_config
from afmlib.interfaces import SampleModel
from afmlib.io.official_files import is_weights_file

from .evaluations import Subject, evaluate_all
from .jobs import Job
from .turn import Turn


def evaluate_pretrained(job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Evaluates the model of a checkpoint and fills the row.

    Raises:
        CheckpointError: If there is no checkpoint, or it is damaged or of something else.
        OSError: If it cannot be read.
        ValueError: If it does not fit the data.
        Stopped: If it was told to stop.
    """
    config = job.contender.load()
    config["plugins"] = [*(config.get("plugins") or []), *job.plugins]
    checked = check_config(config)
    if checked.num_threads is not None:
        torch.set_num_threads(checked.num_threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _load(str(job.contender.checkpoint), config).to(device)
    row["objective"] = model.conventions.objective
    row["parameters"] = {"generator": sum(weights.numel() for weights in model.parameters())}
    evaluate_all(_subject(model, checked, device), job, turn, row)


def _load(checkpoint: str, config: Mapping[str, Any]) -> SampleModel:
    if not is_weights_file(checkpoint):
        return load_checkpoint(checkpoint)
    model = load_official(checkpoint, num_heads=_num_heads(config["objective"].get("generator")))
    if not isinstance(model, SampleModel):
        raise ValueError(f"{checkpoint} is of a {type(model).__name__}, which makes no samples.")
    return model


def _num_heads(spec: Any) -> int | None:
    """Returns the heads of a generator that is not of a published size: weights do not tell."""
    if not isinstance(spec, Mapping):
        return None
    return spec.get("num_heads", _num_heads(spec.get("generator")))


def _subject(model: SampleModel, config: RunConfig, device: torch.device) -> Subject:
    try:
        dataset = build_dataset(config.data).to(device)
    except FileNotFoundError as error:
        return Subject(model, None, config.evaluation, str(error))
    return Subject(model, dataset, config.evaluation)
