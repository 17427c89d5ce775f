"""Text for a terminal, in which no name of a file can move the cursor or hide a line."""

__all__ = ["printable", "say"]

import sys
from typing import TextIO


def printable(text: str) -> str:
    r"""Returns a text with escapes such as ``\x1b`` for all but printable characters, \n and \t.

    Example:
        >>> print(printable("data\x1b[2J/naïve 猫.png"))
        data\x1b[2J/naïve 猫.png
    """
    return "".join(
        character
        if character.isprintable() or character in "\n\t"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def say(message: object, file: TextIO | None = None) -> None:
    """Prints a message, to ``sys.stdout`` by default."""
    print(printable(str(message)), file=file or sys.stdout)
