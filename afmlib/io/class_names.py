"""Class names: those stored with a dataset, or those of ImageNet.

A class may have synonyms, as in ImageNet: "German shepherd, German shepherd dog, ...". The first is
its main name. Lookup ignores case. It tries the complete text first, then main names, then
synonyms. An ambiguous name is an error: ImageNet has two "crane" and two "maillot".
"""

__all__ = ["label_indices", "names_of_classes"]

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

NUM_IMAGENET = 1000


def names_of_classes(num_classes: int | None, stored: Sequence[str] | None = None) -> list[str]:
    """Returns the name of each class with comma-separated synonyms, or an empty list if unknown.

    Args:
        num_classes: The number of classes.
        stored: The class names of the dataset, which may be the WordNet IDs of ImageNet's folders.
            Defaults to the names of ImageNet if there are 1000 classes.
    """
    numbers = [str(index) for index in range(num_classes or 0)]
    if stored and list(stored) != numbers:
        known = _wordnet() if all(re.fullmatch(r"n\d{8}", name) for name in stored) else {}
        return [known.get(name, name) for name in stored]
    return list(_wordnet().values()) if num_classes == NUM_IMAGENET else []


@lru_cache(maxsize=1)
def _wordnet() -> dict[str, str]:
    """Returns WordNet ID -> names, in the order of ImageNet's classes."""
    from timm.data import ImageNetInfo  # Takes seconds to import.

    info = ImageNetInfo()
    numbers = [info.index_to_label_name(index) for index in range(NUM_IMAGENET)]
    return {number: str(info.label_name_to_description(number)) for number in numbers}


def label_indices(
    labels: Sequence[str], num_classes: int | None, stored: Sequence[str] | None = None
) -> list[int]:
    """Returns the index of each class.

    Args:
        labels: Names, and indices as text. A class named "3" comes before index 3.
        num_classes: The number of classes.
        stored: The class names of the dataset, as in `names_of_classes`.

    Raises:
        ValueError: If a name is unknown or ambiguous.

    Example:
        >>> label_indices(["2", "blue jay"], 3, ["robin", "blue jay, jay", "wren"])
        [2, 1]
    """
    names: list[str] | None = None
    found = []
    for label in labels:
        if stored and label in stored:  # Also a class named "3".
            found.append(list(stored).index(label))
            continue
        if re.fullmatch(r"[+-]?\d{1,18}", label.strip()):
            found.append(int(label))
            continue
        if names is None:
            names = names_of_classes(num_classes, stored)
        found.append(_index(label, names))
    return found


def _index(label: str, names: Sequence[str]) -> int:
    if not names:
        raise ValueError(f"The model has no class names, got {label!r}: give class indices.")
    wanted = _plain(label)
    synonyms = [[_plain(part) for part in name.split(",")] for name in names]
    for matches in (
        [index for index, name in enumerate(names) if "," in label and _plain(name) == wanted],
        [index for index, parts in enumerate(synonyms) if parts[0] == wanted],
        [index for index, parts in enumerate(synonyms) if wanted in parts],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = " or ".join(f"{index} ({names[index]})" for index in matches)
            raise ValueError(f"{label!r} is the name of several classes: give the index {choices}.")
    close = difflib.get_close_matches(wanted, [part for parts in synonyms for part in parts], n=1)
    hint = ""
    if close:
        index = next(index for index, parts in enumerate(synonyms) if close[0] in parts)
        hint = f" Did you mean {close[0]!r}, class {index}?"
    raise ValueError(f"There is no class {label!r}.{hint}")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
