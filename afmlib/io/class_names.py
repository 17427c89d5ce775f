"""Classes by name: those that a data set stores, or ImageNet's.

A class may have several names, as ImageNet's have: "German shepherd, German shepherd dog, ...". The
first is its main name. A name is looked up without regard to case: whole, then as a main name, then
as any other. One that is of several classes is refused, for no choice among them would be seen:
ImageNet has two "crane" and two "maillot".
"""

__all__ = ["label_indices", "names_of_classes"]

import difflib
import re
from collections.abc import Sequence
from functools import lru_cache

NUM_IMAGENET = 1000


def names_of_classes(num_classes: int | None, stored: Sequence[str] | None = None) -> list[str]:
    """Returns the name of each class, its synonyms separated by commas; none if they are unknown.

    Args:
        num_classes: The number of classes.
        stored: The names that the data set has, which may be the WordNet numbers of ImageNet's
            folders. Unless given, a thousand classes are ImageNet's.
    """
    numbers, descriptions = [str(index) for index in range(num_classes or 0)], []
    if stored and list(stored) != numbers:
        known = _wordnet() if all(re.fullmatch(r"n\d{8}", name) for name in stored) else {}
        return [known.get(name, name) for name in stored]
    if num_classes == NUM_IMAGENET:
        descriptions = list(_wordnet().values())
    return descriptions


@lru_cache(maxsize=1)
def _wordnet() -> dict[str, str]:
    """Returns WordNet number -> names, in the order of ImageNet's classes."""
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
        stored: The names that the data set has, as for `names_of_classes`.

    Raises:
        ValueError: If a name is of no class, or of several.

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
        raise ValueError(
            f"There is no class {label!r}: the model knows its classes by number alone."
        )
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
            raise ValueError(f"{label!r} is the name of several classes: give {choices} by number.")
    close = difflib.get_close_matches(wanted, [part for parts in synonyms for part in parts], n=1)
    hint = ""
    if close:
        index = next(index for index, parts in enumerate(synonyms) if close[0] in parts)
        hint = f" Did you mean {close[0]!r}, class {index}?"
    raise ValueError(f"There is no class {label!r}.{hint}")


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").lower().split())
