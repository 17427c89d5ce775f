"""The command ``afmlib``: parses the command line, runs a command, and reports errors.

Torch is not imported here, so that ``--help`` takes no time.
"""

__all__ = ["main"]

import difflib
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser

import afmlib
from afmlib.cli import bench
from afmlib.cli.options import HelpFormatter
from afmlib.slurm import join_slurm_step
from afmlib.terminal import say

DONE, FAILED, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit status."""

COMMANDS = (
    "train",
    "sample",
    "evaluate",
    "encode",
    "convert",
    "reference",
    "export",
    "push",
    "inspect",
    "list",
    "check",
    "doctor",
    "bench",
)


def build_parser() -> ArgumentParser:
    """Builds the parser of all commands."""
    parser = ArgumentParser(
        prog="afmlib",
        description="Train, sample and evaluate one-step and few-step image generators.",
        version=afmlib.__version__,
        formatter_class=HelpFormatter,
    )
    commands = parser.add_subcommands(
        required=True,
        dest="command",
        title="commands",
        description="Show the options of a command with: afmlib COMMAND --help",
        metavar="COMMAND",
        help="",
    )
    for name in COMMANDS:
        module = importlib.import_module(f"afmlib.cli.{name}")
        command = ArgumentParser(description=module.HELP, formatter_class=HelpFormatter)
        commands.add_subcommand(name, command, help=module.HELP)
        module.add_arguments(
            command
        )  # After add_subcommand, as jsonargparse wants it of nested ones.
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and not argv[0].startswith("-") and argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0].lower(), COMMANDS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        print(
            f"afmlib: There is no command {argv[0]!r}.{hint} Available: {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        return USAGE
    if argv[:1] == ["bench"]:
        return bench.main(argv[1:])
    parser = build_parser()
    if not argv:
        parser.print_help()
        return USAGE
    arguments = parser.parse_args(argv)
    command = str(arguments.command)
    options = arguments[command]
    signal.signal(signal.SIGTERM, _terminate)
    logger = logging.getLogger("afmlib")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)
    try:
        join_slurm_step()
        status = int(importlib.import_module(f"afmlib.cli.{command}").run(options) or DONE)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from afmlib.launch import leave_processes

            leave_processes()
        return status
    except _Terminated:
        say("afmlib: terminated", file=sys.stderr)
        return TERMINATED
    except KeyboardInterrupt:
        say("afmlib: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # Such as `afmlib list | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        say(f"afmlib: {_process()}{_message(error)}", file=sys.stderr)
        return USAGE if _is_usage(error) else FAILED


class _StderrHandler(logging.Handler):
    """Prints log records to the current ``sys.stderr``, which a progress bar may replace."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and os.environ.get("RANK", "0") != "0":
            return  # Only the first of several processes prints it.
        say(f"afmlib: {record.getMessage()}", file=sys.stderr)


class _Terminated(KeyboardInterrupt):
    """SIGTERM. As Ctrl-C, it passes through plugins that are being imported."""


def _terminate(signum: int, frame: Any) -> None:
    raise _Terminated


def _is_usage(error: Exception) -> bool:
    """Returns whether the user asked for something impossible, as opposed to a runtime error."""
    return isinstance(error, ValueError | TypeError | FileExistsError) and not isinstance(
        error, UnicodeError
    )


def _process() -> str:
    """Names the process, if torchrun or srun started several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"process {os.environ.get('RANK', '?')}: " if several else ""


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif not isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        text = f"{type(error).__name__}: {text}"
    return " ".join((text or type(error).__name__).split())
