"""The command ``afmlib``: arguments, exit status, and errors in one sentence.

Nothing heavy is imported here, so that ``--help`` is instant.
"""

__all__ = ["main"]

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

DONE, TROUBLE, USAGE, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
"""Exit status."""

COMMANDS = (
    "train",
    "sample",
    "evaluate",
    "encode",
    "reference",
    "export",
    "inspect",
    "list",
    "doctor",
)


def build_parser() -> ArgumentParser:
    """Builds the parser of all commands."""
    parser = ArgumentParser(prog="afmlib", description=afmlib.__doc__, version=afmlib.__version__)
    commands = parser.add_subcommands(required=True, dest="command")
    for name in COMMANDS:
        module = importlib.import_module(f"afmlib.cli.arguments.{name}")
        command = module.build_parser()
        commands.add_subcommand(name, command)
        if name == "inspect":
            module.add_pictures(command)  # jsonargparse wants the outer level first.
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    parser = build_parser()
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return USAGE
    arguments = parser.parse_args(argv)
    command = str(arguments.command)
    options = arguments[command]
    signal.signal(signal.SIGTERM, _terminate)
    _show_log()
    try:
        run = importlib.import_module(f"afmlib.cli.{command}").run
        status = int(run(options) or DONE)
        _leave_processes()
        return status
    except KeyboardInterrupt:
        print("afmlib: interrupted", file=sys.stderr)
        return INTERRUPTED
    except _Terminated:
        print("afmlib: terminated", file=sys.stderr)
        return TERMINATED
    except BrokenPipeError:  # The reader of a list has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        if _wants_traceback(options):
            traceback.print_exc()
        print(f"afmlib: {_process()}{_message(error)}", file=sys.stderr)
        return USAGE if _is_usage(error) else TROUBLE


class _StderrHandler(logging.Handler):
    """Prints what the library logs to whatever standard error is by then: also above a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING and os.environ.get("RANK", "0") != "0":
            return  # The first of several processes says it.
        print(f"afmlib: {record.getMessage()}", file=sys.stderr)


def _show_log() -> None:
    """Shows what the library logs, such as the attention that was chosen, once."""
    logger = logging.getLogger("afmlib")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        logger.addHandler(_StderrHandler())
        logger.setLevel(logging.INFO)


class _Terminated(BaseException):
    """SIGTERM."""


def _terminate(signum: int, frame: Any) -> None:
    raise _Terminated


def _wants_traceback(options: Any) -> bool:
    """Tells whether ``--debug`` was given, to the command or to what it does."""
    picture = options.get("picture")
    return bool((options if picture is None else options[picture]).debug)


def _is_usage(error: Exception) -> bool:
    """Tells whether the user asked for something that cannot be, as opposed to bad luck."""
    return isinstance(error, ValueError | TypeError | FileExistsError) and not isinstance(
        error, UnicodeError
    )


def _leave_processes() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from afmlib.engine.launch import leave_processes

        leave_processes()


def _process() -> str:
    """Names the process, if torchrun started several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return f"process {os.environ.get('RANK', '?')}: " if several else ""


def _message(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    elif not isinstance(error, ValueError | TypeError | OSError | RuntimeError):
        text = f"{type(error).__name__}: {text}"
    return " ".join((text or type(error).__name__).split())
