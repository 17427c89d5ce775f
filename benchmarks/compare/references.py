"""Rows that are no contenders: what real data score, and what a trap scores.

"Real test split" is the floor that no generator should pass but by chance: held-out images against
the training data. "Class means" repeats one blurred image per class, which fools distances of
features and accuracy, and shows why recall and diversity stand beside them.
"""

__all__ = ["reference_rows"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from afmlib import build_dataset
from afmlib.config import check_config
from afmlib.engine import evaluate_samples
from afmlib.evaluation import save_picture
from afmlib.interfaces import Dataset, PointDataset


def reference_rows(config: Mapping[str, Any], out: Path) -> list[dict[str, Any]]:
    """Evaluates real data and class means by the protocol of a config; none for points."""
    checked = check_config(config)
    dataset = build_dataset(checked.data)
    held_out = dataset.held_out()
    if isinstance(dataset, PointDataset) or held_out is None or not checked.evaluation.metrics:
        return []
    count = min(checked.evaluation.num_samples, len(held_out))
    real, labels = _all(held_out, count)
    rows = []
    for name, samples in (
        ("real test split", real),
        ("class means", _class_means(dataset)[labels]),
    ):
        data = str(checked.data["type"])
        picture = out / "pictures" / f"{data}-{name.replace(' ', '-')}.png"
        save_picture(_by_class(samples, labels, dataset.num_classes), picture, dataset.num_classes)
        rows.append(
            {
                "name": name,
                "data": data,
                "picture": f"{picture.parent.name}/{picture.name}",
                **evaluate_samples(samples, labels, dataset, checked.evaluation),
            }
        )
    return rows


def _all(dataset: Dataset, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    stored, labels = dataset.__getitems__(list(range(count)))
    return dataset.augment(stored, None), labels


def _class_means(dataset: Dataset) -> torch.Tensor:
    latents, labels = _all(dataset, len(dataset))
    means = [latents[labels == label].mean(0) for label in range(dataset.num_classes)]
    return torch.stack(means)


def _by_class(samples: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Picks eight samples of each class, row by row."""
    picked = [samples[labels == label][:8] for label in range(num_classes)]
    rows = min(len(part) for part in picked)
    return torch.stack([part[:rows] for part in picked], 1).flatten(0, 1)
