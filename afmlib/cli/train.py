"""``afmlib train``: a run by a config."""

__all__ = ["run"]

import shlex
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from afmlib import processes
from afmlib.cli.files import device_of
from afmlib.config import check_config, dump, load_config
from afmlib.registry import load_plugin_file

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}

SAME_SIGNAL = 5.0
"""Seconds in which torchrun passes on what the terminal sent to all processes already."""


def run(options: Any) -> int:
    """Trains, and returns the exit status."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    config = load_config(options.name, options.set)
    if options.plugin:
        paths = [str(Path(plugin).resolve()) for plugin in options.plugin]
        config["plugins"] = [*(config.get("plugins") or []), *paths]
    check_config(config)
    if options.print_config:
        print(dump(config), end="")
        return 0
    name = Path(options.name).stem

    from afmlib.engine import Runner

    runner = Runner(
        config,
        options.work_dir or f"runs/{name}",
        name=name,
        resume=options.resume,
        device=str(device_of(options.device)),
        console=Console(stderr=True),
    )
    stopped_by = _stop_on_signals(runner)
    for line in runner.describe():
        runner.report(line)
    return _train(runner, stopped_by)


def _train(runner: Any, stopped_by: Sequence[signal.Signals]) -> int:
    from afmlib.engine import TrainingError

    try:
        runner.train()
    except (TypeError, ValueError) as error:  # Nothing that was asked for: that was checked.
        raise TrainingError(f"{type(error).__name__}: {error}") from error
    except OSError:
        runner.report(f"the last good checkpoint is {runner.last_checkpoint or 'none yet'}")
        raise
    loop = runner.train_loop
    is_unfinished = not loop.has_ended or runner.was_aborted
    if processes.any_of(bool(stopped_by)) and is_unfinished:
        folder = runner.save()
        runner.report(f"stopped and saved {folder}; the same command with --resume goes on")
        return STATUS[stopped_by[0] if stopped_by else signal.SIGTERM]
    for line in _farewell(runner):
        runner.report(line)
    return 0


def _farewell(runner: Any) -> Iterator[str]:
    """Yields where everything is and what to type next."""
    folder, quoted = runner.folder, shlex.quote(runner.folder)
    yield f"done: the model is {runner.last_checkpoint}"
    has_samples = runner.objective.sample_model is not None
    pictures = f"pictures: {folder}/samples; " if has_samples else ""
    yield f"{pictures}losses and their like: {folder}/log.jsonl"
    if runner.run_config.evaluation.metrics:
        yield f"evaluations: {folder}/evaluations.jsonl"
    if has_samples:
        yield f"next: afmlib sample --checkpoint {quoted} --out samples.png"
    yield f"{'     ' if has_samples else 'next:'} afmlib evaluate --checkpoint {quoted}"


def _stop_on_signals(runner: Any) -> list[signal.Signals]:
    """Makes SIGINT and SIGTERM end the run after its iteration, and one more SIGINT at once.

    Returns:
        A list that the signal is put into.
    """
    received: list[signal.Signals] = []
    first = 0.0

    def stop(signum: int, frame: Any) -> None:
        nonlocal first
        is_again = processes.size() == 1 or time.monotonic() - first > SAME_SIGNAL
        if received and signum == signal.SIGINT and is_again:
            raise KeyboardInterrupt
        if not received:
            first = time.monotonic()
            received.append(signal.Signals(signum))
            runner.stop()

    for number in STATUS:
        signal.signal(number, stop)
    return received
