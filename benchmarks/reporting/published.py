"""The published numbers on the page of a report: folded away, and far from those measured here."""

__all__ = ["published_numbers"]

from .elements import Entry, escape, fold, plain_table
from .literature import HEADS, NOT_COMPARABLE, Record, by_dataset


def published_numbers() -> str:
    """Returns a folded table for each data set."""
    tables = "".join(
        fold(
            f"{dataset}, as published ({len(records)})",
            plain_table(f"{dataset}, published: table", HEADS, map(_line, records)),
        )
        for dataset, records in by_dataset().items()
    )
    return f'<p class="about">{escape(NOT_COMPARABLE)}</p>{tables}'


def _line(record: Record) -> list[Entry]:
    name, *texts = record.texts
    numbers = [
        Entry(escape(text), value, "number")
        for text, value in zip(texts, record.numbers, strict=False)
    ]
    others = [Entry(escape(text), text or None) for text in texts[len(numbers) :]]
    return [Entry(escape(name), name), *numbers, *others]
