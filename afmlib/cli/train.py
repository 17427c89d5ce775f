"""``afmlib train``: trains a model from a config."""

__all__ = ["HELP", "add_arguments", "run"]

import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_device, add_set

HELP = "Train a model from a config."

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
if hasattr(signal, "SIGUSR1"):  # Not on Windows. SLURM sends it before the time limit.
    STATUS[signal.SIGUSR1] = 138

SAME_SIGNAL = 5.0
"""Seconds in which torchrun forwards a signal that all processes already have."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "name",
        type=str,
        help="a config such as afm_digits, or a .yaml file; with --data, a method such as afm",
    )
    parser.add_argument(
        "--data",
        type=str,
        metavar="FOLDER",
        help="your own images, with one sub-folder per class or none: a path or URL",
    )
    parser.add_argument(
        "--size",
        type=int,
        help="the size to which they are resized: 28, 32, 64 or 128 pixels (default: 32)",
    )
    parser.add_argument(
        "--work-dir",
        type=str,
        help="the folder of the run: a path or URL such as s3://bucket/run (default: runs/NAME)",
    )
    add_set(parser, "objective.ot_scale=0.1")
    parser.add_argument("--resume", action="store_true", help="resume the run in the folder")
    add_device(parser)
    parser.add_argument(
        "--print-config", action="store_true", help="print the composed config and exit"
    )
    add_common(parser)


def run(options: Any) -> int:
    """Trains, and returns the exit status."""
    from afmlib.config import check_config, dump, images_config, load_config
    from afmlib.io.lock import only_writer

    if options.data is not None:
        config = images_config(
            options.name, options.data, options.size, options.set, options.plugin
        )
    elif options.size is not None:
        raise ValueError("--size is the size of your own images: add --data FOLDER.")
    else:
        config = load_config(options.name, options.set, options.plugin)
    check_config(config)
    if options.print_config:
        print(dump(config), end="")
        return 0
    name = Path(options.name).stem
    if options.data is not None:
        name += f"_{Path(options.data).name or 'images'}"
    folder = options.work_dir or f"runs/{name}"
    with only_writer(folder):
        return _train(config, name, folder, options)


def _train(config: Any, name: str, folder: str, options: Any) -> int:
    from rich.console import Console

    from afmlib import processes
    from afmlib.cli.models import device_of
    from afmlib.engine import Runner, TrainingError

    runner = Runner(
        config,
        folder,
        name=name,
        resume=options.resume,
        device=str(device_of(options.device)),
        console=Console(stderr=True),
    )
    stopped_by = _stop_on_signals(runner, processes.size())
    for line in runner.describe():
        runner.report(line)
    try:
        runner.train()
    except (TypeError, ValueError) as error:  # Not a usage error: the config was checked.
        raise TrainingError(f"{type(error).__name__}: {error}") from error
    except OSError:
        runner.report(f"the last valid checkpoint is {runner.last_checkpoint or 'none'}")
        raise
    is_unfinished = not runner.train_loop.has_ended or runner.was_aborted
    if processes.any_of(bool(stopped_by)) and is_unfinished:
        saved = runner.save()
        runner.report(f"stopped and saved {saved}; to resume, repeat the command with --resume")
        return STATUS[stopped_by[0] if stopped_by else signal.SIGTERM]
    for line in _farewell(runner):
        runner.report(line)
    return 0


def _farewell(runner: Any) -> Iterator[str]:
    """Yields the paths of the outputs and the next commands."""
    folder, quoted = runner.folder, shlex.quote(runner.folder)
    yield f"done: the model is {runner.last_checkpoint}"
    has_samples = runner.objective.sample_model is not None
    pictures = f"samples: {folder}/samples; " if has_samples else ""
    yield f"{pictures}training log: {folder}/log.jsonl"
    if runner.run_config.evaluation.metrics:
        yield f"evaluations: {folder}/evaluations.jsonl"
    if has_samples:
        yield f"next: afmlib sample --checkpoint {quoted} --out samples.png"
    yield f"{'     ' if has_samples else 'next:'} afmlib evaluate --checkpoint {quoted}"


def _stop_on_signals(runner: Any, num_processes: int) -> list[signal.Signals]:
    """Makes signals end the run after its iteration. A second SIGINT ends it at once.

    Returns:
        A list that receives the signal.
    """
    received: list[signal.Signals] = []
    first = 0.0

    def stop(signum: int, frame: Any) -> None:
        nonlocal first
        is_second = num_processes == 1 or time.monotonic() - first > SAME_SIGNAL
        if received and signum == signal.SIGINT and is_second:
            raise KeyboardInterrupt
        if not received:
            first = time.monotonic()
            received.append(signal.Signals(signum))
            runner.stop()

    for number in STATUS:
        signal.signal(number, stop)
    return received
