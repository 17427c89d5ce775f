"""Extractors that a training used: their numbers do not show the quality of samples."""

__all__ = ["judges_of"]

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from afmlib.config import EvaluationConfig
from afmlib.registry import EXTRACTORS


def judges_of(objective: Any, protocol: EvaluationConfig) -> tuple[str, ...]:
    """Returns the extractors of a protocol that the objective of a run used too, by type.

    Args:
        objective: The spec of the objective, as in a config.
        protocol: The protocol.

    Example:
        >>> objective = {"type": "Mine", "features": {"type": "DigitsExtractor"}}
        >>> judges_of(objective, EvaluationConfig(extractor="DigitsExtractor"))
        ('DigitsExtractor',)
    """
    judging = {*_extractors(protocol.extractor), *_extractors(protocol.metrics)}
    return tuple(sorted(judging & {*_extractors(objective)}))


def _extractors(spec: Any) -> Iterator[str]:
    if isinstance(spec, str):
        if spec in EXTRACTORS.components():
            yield spec
    elif isinstance(spec, Mapping):
        yield from _extractors(list(spec.values()))
    elif isinstance(spec, Sequence):
        for part in spec:
            yield from _extractors(part)
