"""Text that Markdown takes for text, whatever stands in it."""

__all__ = ["code", "escape"]

import re
from typing import Any

from .records import clean


def escape(text: Any) -> str:
    """Escapes what Markdown or HTML would take for its own."""
    text = re.sub(r"([\\`*\[\]|~$])", r"\\\1", clean(text))
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: Any) -> str:
    """Returns a code span, whatever backticks there are in it."""
    text = clean(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"{fence}{text}{fence}"
