"""Parts of a page of the documentation that are written from results, between two marks.

A mark is a comment of HTML, which no reader sees. What is outside of the marks is a person's.
"""

__all__ = ["replace_between_marks"]


def replace_between_marks(page: str, name: str, content: str) -> str:
    """Returns a page with other content between the marks of a name.

    Args:
        page: The page.
        name: What stands there, such as "the claims".
        content: The new content, which ends a line.

    Raises:
        ValueError: If the page does not have these marks once each and in order.
    """
    begin = f"<!-- {name[0].upper()}{name[1:]}, written by benchmarks/report.py. -->"
    end = f"<!-- The end of {name}. -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"The page needs the lines {begin!r} and {end!r}, once and in this order.")
    before, rest = page.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{content}\n{end}{after}"
