"""The numbers, the speed and a picture of a model, for each number of network evaluations.

Every contender is asked for one, two and four evaluations and for its method's own number; what its
model refuses is "not run", with the reason. Noises and labels are the same for all.
"""

__all__ = ["Subject", "evaluate_all"]

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afmlib.config import EvaluationConfig

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


def evaluate_all(
    subject: Subject, stem: Path, on_share: Callable[[float], None]
) -> list[dict[str, Any]]:
    """Evaluates with one, two and four network evaluations and with the model's own number.

    Args:
        subject: What is evaluated.
        stem: What the paths of its pictures begin with.
        on_share: Called after each with the share of the work that is done.
    """
    if subject.model is None:
        return [_entry(1, False, subject.reason)]
    own = subject.model.conventions.nfe
    numbers = sorted({*NFES, own})
    total = sum(nfe + OVERHEAD for nfe in numbers)
    entries, done = [], 0
    for nfe in numbers:
        picture = stem.with_name(f"{stem.name}-nfe{nfe}.png")
        entries.append(_evaluate(subject, nfe, nfe == own, picture))
        done += nfe + OVERHEAD
        on_share(done / total)
    return entries


def _entry(nfe: int, own: bool, reason: str | None) -> dict[str, Any]:
    status = "done" if reason is None else "not run"
    entry = {"nfe": nfe, "own": own, "status": status, "reason": reason}
    return entry | {"protocol": {}, "values": {}, "picture": None}


def _evaluate(subject: Subject, nfe: int, own: bool, picture: Path) -> dict[str, Any]:
    from afmlib.engine import evaluate_model

    try:
        subject.model.check_nfe(nfe)
    except ValueError as error:
        return _entry(nfe, own, str(error))
    entry = _entry(nfe, own, subject.reason)
    if subject.reason is None and subject.protocol.metrics:
        try:
            entry |= evaluate_model(subject.model, subject.dataset, subject.protocol, nfe) or {}
        except OSError as error:  # An autoencoder, an extractor or a reference is not at hand.
            entry |= {"status": "not run", "reason": str(error)}
    entry |= _time_samples(subject, nfe)
    _draw(subject, nfe, picture, entry["images_per_second"])
    return entry | {"picture": f"{picture.parent.name}/{picture.name}"}


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


def _draw(subject: Subject, nfe: int, path: Path, images_per_second: float) -> None:
    """Draws the same noises and labels for every contender; fewer where it would take long."""
    from afmlib import sample
    from afmlib.engine.pictures import save_picture

    shape = subject.model.conventions.latent_shape or subject.dataset.latent_shape
    classes = min(subject.num_classes, 10)
    rows = 8 if 80 / images_per_second < LONG_SECONDS else 1
    columns = classes if classes > 1 else 10
    is_image = len(shape) == 3
    labels = [index % classes for index in range(rows * columns if is_image else 2000)]
    save_picture(sample(subject.model, labels, nfe=nfe), path, columns)
