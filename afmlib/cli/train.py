"""``afmlib train``: a run by a config."""

__all__ = ["run"]

import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from afmlib.cli.files import device_of
from afmlib.config import ConfigError, check_config, dump, load_config
from afmlib.registry import load_plugin_file

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}


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
    work_dir = options.work_dir or f"runs/{name}"
    if "://" in work_dir:
        raise ConfigError(f"--work-dir is a local folder, not {work_dir}.")

    from afmlib.engine import Runner, TrainingError

    console = Console(stderr=True)
    runner = Runner(
        config,
        work_dir,
        name=name,
        resume=options.resume,
        device=str(device_of(options.device)),
        console=console,
    )
    for line in runner.describe():
        runner.report(line)
    stopped_by = _stop_on_signals(runner)
    try:
        runner.train()
    except (TypeError, ValueError) as error:  # Nothing that was asked for: that was checked.
        raise TrainingError(f"{type(error).__name__}: {error}") from error
    loop = runner.train_loop
    if stopped_by and loop.num_images < loop.total_images:
        folder = runner.save()
        runner.report(f"stopped and saved {folder}; the same command with --resume goes on")
        return STATUS[stopped_by[0]]
    runner.report(f"done: checkpoints, samples and logs are in {work_dir}")
    runner.report(f"next: afmlib sample --checkpoint {work_dir} --out samples.png")
    return 0


def _stop_on_signals(runner: Any) -> list[signal.Signals]:
    """Makes the first SIGINT or SIGTERM end the run after its iteration, and a second one at once.

    Returns:
        A list that the signal is put into.
    """
    received: list[signal.Signals] = []

    def stop(signum: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(signum))
        runner.train_loop.stop_training = True

    for number in STATUS:
        signal.signal(number, stop)
    return received
