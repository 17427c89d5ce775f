"""The numbers, the speed and a picture of a model, for each number of network evaluations.

Every contender is asked for one, two and four evaluations and for its method's own number; what its
model refuses is "not run" and what goes wrong is "failed", with the reason, and the others are done
all the same. Noises and labels are the same for all.
"""

__all__ = ["Subject", "evaluate_all"]

import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afmlib.config import EvaluationConfig

from .jobs import Job, one_line
from .turn import EVALUATION, Turn

NFES = (1, 2, 4)
"""The numbers of evaluations that everyone is asked for."""

OVERHEAD = 4
"""What features and metrics of a sample cost, roughly, in network evaluations."""

TIMED_BATCHES = (1, 16, 256)
"""The batches whose sampling is timed, as long as the next is expected to be done soon enough."""

LONG_SECONDS = 60.0
"""What takes longer is made smaller: a timed batch, a picture."""


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    model: Any
    """The `SampleModel`; None of what trains no generator."""

    dataset: Any
    """The training data; None where they are not at hand."""

    protocol: EvaluationConfig
    """How it is evaluated."""

    reason: str | None = None
    """Why there can be no numbers of quality, if so."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        if self.dataset is not None:
            return int(self.dataset.num_classes)
        return self.model.conventions.num_classes or 1


def evaluate_all(subject: Subject, job: Job, turn: Turn, row: dict[str, Any]) -> None:
    """Evaluates with one, two and four network evaluations and with the model's own number.

    Each is in the row as soon as it is done. The row has failed if one of them has.

    Args:
        subject: What is evaluated.
        job: Whose model it is.
        turn: Gives way after each.
        row: The row that is filled.

    Raises:
        Stopped: If it was told to stop.
    """
    if subject.model is None:
        row["evaluations"] = [_entry(1, False, subject.reason)]
        return
    own = subject.model.conventions.nfe
    numbers = sorted({*NFES, own})
    total = sum(nfe + OVERHEAD for nfe in numbers)
    done = 0
    for nfe in numbers:
        picture = job.out / "pictures" / f"{job.stem}-nfe{nfe}.png"
        entry = _evaluate(subject, nfe, nfe == own, picture, job.debug)
        row["evaluations"].append(entry)
        if entry["status"] == "failed":
            reason = f"The evaluation with nfe {nfe} failed: {entry['reason']}"
            row |= {"status": "failed", "reason": row["reason"] or reason}
        done += nfe + OVERHEAD
        turn.give_way(EVALUATION, done / total)
        turn.require_running()


def _entry(nfe: int, own: bool, reason: str | None) -> dict[str, Any]:
    status = "done" if reason is None else "not run"
    entry = {"nfe": nfe, "own": own, "status": status, "reason": reason}
    return entry | {"protocol": {}, "values": {}, "picture": None}


def _evaluate(subject: Subject, nfe: int, own: bool, picture: Path, debug: bool) -> dict[str, Any]:
    try:
        subject.model.check_nfe(nfe)
    except ValueError as error:
        return _entry(nfe, own, str(error))
    entry = _entry(nfe, own, subject.reason)
    steps = (
        lambda: _judge(subject, nfe),
        lambda: _time_samples(subject, nfe),
        lambda: _draw(subject, nfe, picture, entry.get("images_per_second", 1.0)),
    )
    for step in steps:
        try:
            entry |= step()
        except Exception as error:  # What the others give is kept.
            if debug:
                traceback.print_exc()
            if entry["status"] != "failed":
                entry |= {"status": "failed", "reason": one_line(error)}
    return entry


def _judge(subject: Subject, nfe: int) -> dict[str, Any]:
    from afmlib.engine import evaluate_model

    if subject.reason is not None or not subject.protocol.metrics:
        return {}
    try:
        return evaluate_model(subject.model, subject.dataset, subject.protocol, nfe) or {}
    except OSError as error:  # An autoencoder, an extractor or a reference is not at hand.
        return {"status": "not run", "reason": str(error)}


def _time_samples(subject: Subject, nfe: int) -> dict[str, float]:
    """Returns the throughput of a full batch and the latency of a single sample."""
    seconds: dict[int, float] = {}
    for last, size in zip((0, *TIMED_BATCHES), TIMED_BATCHES, strict=False):
        if last and seconds[last] * size / last > LONG_SECONDS:
            break
        seconds[size] = _seconds(subject, size, nfe)
    batch = max(seconds)
    return {
        "batch": batch,
        "images_per_second": round(batch / seconds[batch], 4 if seconds[batch] > batch else 1),
        "latency_ms": round(1000 * seconds[1], 2),
    }


def _seconds(subject: Subject, size: int, nfe: int) -> float:
    """Returns the shortest time of three; of one, if that is long."""
    from afmlib import sample

    labels = [index % subject.num_classes for index in range(size)]
    times: list[float] = []
    while len(times) < 3 and sum(times) < LONG_SECONDS / 12:
        start = time.perf_counter()
        sample(subject.model, labels, nfe=nfe)
        times.append(time.perf_counter() - start)
    return min(times)


def _draw(subject: Subject, nfe: int, path: Path, images_per_second: float) -> dict[str, Any]:
    """Draws the same noises and labels for every contender; fewer where it would take long."""
    from afmlib import sample
    from afmlib.evaluation import save_picture

    shape = subject.model.conventions.latent_shape or subject.dataset.latent_shape
    classes = min(subject.num_classes, 10)
    rows = 8 if 80 / images_per_second < LONG_SECONDS else 1
    columns = classes if classes > 1 else 10
    is_image = len(shape) == 3
    labels = [index % classes for index in range(rows * columns if is_image else 2000)]
    save_picture(sample(subject.model, labels, nfe=nfe), path, columns)
    return {"picture": f"{path.parent.name}/{path.name}"}
