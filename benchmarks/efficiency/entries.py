"""The entry of a contender in the results."""

__all__ = ["empty_entry"]

from typing import Any


def empty_entry(name: str, status: str = "done", reason: str | None = None) -> dict[str, Any]:
    """Returns an entry that is yet to be filled: see the schema in the documentation."""
    return {
        "contender": name,
        "status": status,
        "reason": reason,
        "parameters": {},
        "flops": None,
        "measured": None,
    }
