"""The frame of every page: one file that needs no network, for any screen, light or dark.

The look is in ``page.css``, the frame in ``page.html``.
"""

__all__ = ["render_document"]

from collections.abc import Mapping
from pathlib import Path
from string import Template

from .elements import escape

FOLDER = Path(__file__).parent


def render_document(title: str, heading: str, lead: str, sections: Mapping[str, str]) -> str:
    """Returns a page as HTML.

    Args:
        title: The title of the window, as text.
        heading: The heading, as text.
        lead: What stands below it, as HTML.
        sections: The HTML of each section, by its heading as text.
    """
    return Template(_read("page.html")).substitute(
        title=escape(title),
        heading=escape(heading),
        lead=lead,
        style=_read("page.css"),
        script=_read("page.js"),
        sections="\n".join(_section(name, content) for name, content in sections.items()),
    )


def _section(heading: str, content: str) -> str:
    anchor = escape(heading.lower().replace(" ", "-"))
    return (
        f'<section aria-labeledby="{anchor}">\n<h2 id="{anchor}">{escape(heading)}</h2>\n'
        f"{content}\n</section>"
    )


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8").strip()
