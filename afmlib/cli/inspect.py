"""``afmlib inspect``: pictures of models and of training runs."""

__all__ = ["HELP", "add_arguments", "run"]

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from afmlib.cli.options import (
    HelpFormatter,
    add_common,
    add_device,
    add_model,
    add_sampling,
)
from afmlib.terminal import say

HELP = "Draw pictures of models and of training runs."

OUT = "a .png file: a path or URL"


def add_arguments(parser: ArgumentParser) -> None:
    """Adds one sub-command per picture."""
    pictures = parser.add_subcommands(
        required=True,
        dest="picture",
        title="pictures",
        description="Show the options of a picture with: afmlib inspect PICTURE --help",
        metavar="PICTURE",
        help="",
    )
    for name, (line, add_options, _) in PICTURES.items():
        picture = ArgumentParser(description=line, formatter_class=HelpFormatter)
        pictures.add_subcommand(name, picture, help=line)
        add_options(picture)
        picture.add_argument("--out", type=str, default=f"{name}.png", help=OUT)
        add_common(picture)


def _interpolation_options(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--labels",
        type=str,
        nargs="+",
        help="classes of the rows by name or index, repeated in order (default: all classes)",
    )
    parser.add_argument("--rows", type=int, default=4, help="number of rows")
    parser.add_argument("--steps", type=int, default=8, help="samples per row, ends included")
    add_sampling(parser)


def _compare_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoints",
        type=str,
        nargs="+",
        required=True,
        help="checkpoints, folders of runs, or official checkpoints",
    )
    parser.add_argument(
        "--labels",
        type=str,
        nargs="+",
        help="classes of the columns by name or index (default: all classes)",
    )
    parser.add_argument("--rows", type=int, default=2, help="samples per class")
    for name, kind, what in (
        ("repeats", int, "depth repeats"),
        ("prediction", Literal["sample", "velocity"], "prediction types"),
        ("num-heads", int, "attention heads"),
    ):
        parser.add_argument(
            f"--{name}",
            type=kind,
            nargs="+",
            help=f"{what} of the official checkpoints: one for all, or one each",
        )
    parser.add_argument(
        "--vae", type=str, help="autoencoder that decodes latents: a folder, or a name on the hub"
    )
    parser.add_argument("--batch-size", type=int, help="samples per batch")
    _several_options(parser)


def _transport_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--checkpoint", type=str, nargs="+", required=True, help="checkpoints, or folders of runs"
    )
    parser.add_argument("--num", type=int, default=2000, help="number of noises for the numbers")
    parser.add_argument("--lines", type=int, default=150, help="number of paths in the picture")
    _several_options(parser)


def _several_options(parser: ArgumentParser) -> None:
    """Adds the options of pictures of several models."""
    parser.add_argument(
        "--nfe",
        type=int,
        nargs="+",
        help="network evaluations per sample: one for all models, or one each (default: each "
        "model's)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noises")
    parser.add_argument(
        "--online", action="store_true", help="use the online weights instead of the EMA"
    )
    add_device(parser)


def _training_options(parser: ArgumentParser) -> None:
    parser.add_argument("--work-dir", type=str, required=True, help="the folder of a run")


def run(options: Any) -> int:
    """Draws a picture."""
    from afmlib.cli.models import require_writable
    from afmlib.io import storage
    from afmlib.registry import load_plugin_file

    _, _, draw = PICTURES[options.picture]
    options = options[options.picture]
    for plugin in options.plugin:
        load_plugin_file(plugin)
    if PurePosixPath(options.out).suffix != ".png":
        raise ValueError(f"--out must end in .png, got {options.out!r}.")
    if storage.local_path(options.out) is not None:
        require_writable(options.out, is_file=True)
    storage.write_atomically(options.out, draw(options))
    say(options.out)
    return 0


# --- Pictures ---


def _interpolation(options: Any) -> bytes:
    import torch

    from afmlib.cli.models import device_of, given_model
    from afmlib.inspection import interpolate_noises, interpolation_picture

    device = device_of(options.device)
    given = given_model(options)
    strip = interpolate_noises(
        given.model,
        _labels(options, given),
        options.rows,
        options.steps,
        options.seed,
        options.nfe,
        options.batch_size,
        device,
        None if options.dtype == "float32" else getattr(torch, options.dtype),
    )
    return interpolation_picture(strip, _decoder(options, given, device))


def _compare(options: Any) -> bytes:
    from afmlib.cli.models import device_of, given_model
    from afmlib.inspection import compare, comparison_picture
    from afmlib.io.official_files import is_weights_file

    device = device_of(options.device)
    paths = options.checkpoints
    counts = _one_each("--nfe", options.nfe, len(paths), "model")
    is_official = [is_weights_file(path) for path in paths]
    columns = {  # Runs store these values, so they do not count.
        name: iter(
            _one_each(
                f"--{name.replace('_', '-')}",
                options[name],
                sum(is_official),
                "official checkpoint",
            )
        )
        for name in ("repeats", "prediction", "num_heads")
    }
    given = [
        given_model(
            Namespace(
                checkpoint=path,
                online=options.online,
                nfe=nfe,
                **{name: next(values) if official else None for name, values in columns.items()},
            )
        )
        for path, nfe, official in zip(paths, counts, is_official, strict=True)
    ]
    blocks = compare(
        [(name_of(path), one.model) for path, one in zip(paths, given, strict=True)],
        _labels(options, given[0]),
        options.rows,
        options.seed,
        counts,
        options.batch_size,
        device,
    )
    return comparison_picture(blocks, _decoder(options, given[0], device))


def _transport(options: Any) -> bytes:
    from afmlib.cli.models import device_of, newest_of
    from afmlib.config import check_evaluation
    from afmlib.config.yaml_files import parse
    from afmlib.inspection import measure_transport, transport_figure
    from afmlib.inspection.images import png_of_figure
    from afmlib.io.checkpoint import read_config
    from afmlib.registry import build_dataset
    from afmlib.sampling import load_checkpoint

    paths = options.checkpoint
    maps = []
    for path, nfe in zip(paths, _one_each("--nfe", options.nfe, len(paths), "model"), strict=True):
        folder = newest_of(path)
        device = device_of(options.device)
        model = load_checkpoint(folder, ema=not options.online, device=device)
        data, _ = check_evaluation(parse(read_config(folder), f"The config of {folder}"))
        dataset = build_dataset(data)
        maps.append(
            measure_transport(name_of(path), model, dataset, options.num, options.seed, nfe)
        )
    return png_of_figure(transport_figure(maps, options.lines))


def _training(options: Any) -> bytes:
    from afmlib.inspection import read_training, training_figure
    from afmlib.inspection.images import png_of_figure

    return png_of_figure(training_figure(read_training(options.work_dir)))


PICTURES = {
    "interpolation": (
        "Draw samples between pairs of noises, one pair per row.",
        _interpolation_options,
        _interpolation,
    ),
    "compare": (
        "Draw samples of several models from the same noises and labels.",
        _compare_options,
        _compare,
    ),
    "transport": (
        "Draw the paths of models of points from noise to data, beside the optimal ones.",
        _transport_options,
        _transport,
    ),
    "training": (
        "Draw the log, the evaluations and the phases of a run as curves.",
        _training_options,
        _training,
    ),
}
"""Name -> help, options, function."""


# --- Their inputs ---


def name_of(path: str) -> str:
    """Returns the name of a run: the last part of its path, and the images of a checkpoint."""
    from afmlib.io.checkpoint import CHECKPOINTS

    parts = [part for part in PurePosixPath(path).parts if part not in (".", "/")]
    if len(parts) > 2 and parts[-2] == CHECKPOINTS:
        return f"{parts[-3]} at {parts[-1].lstrip('0') or '0'}"
    return parts[-1] if parts else path


def _one_each(option: str, values: Sequence[Any] | None, count: int, what: str) -> list[Any]:
    """Returns one value for each of so many: its value, the value for all, or None."""
    if not values:
        return [None] * count
    if not count:
        raise ValueError(f"{option} needs an {what}, and none is given.")
    if len(values) not in (1, count):
        raise ValueError(
            f"{option} takes one value, or one per {what}: {count}, not {len(values)}."
        )
    return list(values) * count if len(values) == 1 else list(values)


def _labels(options: Any, given: Any) -> Sequence[int]:
    from afmlib.io.class_names import label_indices

    num_classes = given.model.conventions.num_classes
    if not options.labels:
        return range(num_classes or 1)
    return label_indices(options.labels, num_classes, given.class_names)


def _decoder(options: Any, given: Any, device: Any) -> Any:
    """Returns the decoder of latents; without one, says what the picture shows."""
    import logging

    from afmlib.cli.models import decoder_of, is_latent

    decode = decoder_of(options.vae, given.model, device)
    if decode is None and is_latent(given.model):
        logging.getLogger("afmlib").info(
            "the picture shows three channels of the latents; for images, add --vae"
        )
    return decode
