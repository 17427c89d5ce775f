"""``afmlib list``: the registered components and the shipped configs."""

__all__ = ["HELP", "add_arguments", "run"]

import sys
from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common
from afmlib.terminal import printable, say

HELP = "List components, configs and the models of the zoo."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "group",
        type=str,
        nargs="?",
        help="a group such as generators, or configs, or zoo (default: all)",
    )
    add_common(parser)


def run(options: Any) -> int:
    """Prints the components of one group or of all."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from afmlib.cli.models import report_plugin_files
    from afmlib.config import config_names
    from afmlib.io.zoo import zoo_names
    from afmlib.registry import REGISTRIES, UnknownComponentError, nearest

    report_plugin_files(options.plugin)
    groups = [*REGISTRIES, "configs", "zoo"]
    if options.group is not None and options.group not in groups:
        raise UnknownComponentError(
            f"There is no group {options.group!r}.{nearest(options.group, groups)} "
            f"Available: {', '.join(groups)}."
        )
    table = Table("group", "name", "from", "state")
    for group in [options.group] if options.group else groups:
        if group in ("configs", "zoo"):
            for name in config_names() if group == "configs" else zoo_names():
                table.add_row(group, name, "afmlib", "")
            continue
        registry = REGISTRIES[group]
        problems = registry.problems()
        for name, origin in sorted(registry.components().items()):
            broken = name in problems and name not in registry.builtins
            state = "[red]broken" if broken else ""
            table.add_row(group, printable(name), escape(printable(origin)), state)
        for name in registry.presets:
            table.add_row(group, name, "afmlib", "preset")
        for problem in problems.values():
            say(f"afmlib: {problem}", file=sys.stderr)
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    return 0
