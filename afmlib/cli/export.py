"""``afmlib export``: a trained model, or its samples, in a format of other tools."""

__all__ = ["HELP", "add_arguments", "run"]

from typing import Any, Literal

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common, add_model, add_sampling
from afmlib.terminal import say

HELP = "Write a model, or its samples, for other tools."


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
    parser.add_argument(
        "--format",
        type=Literal["safetensors", "diffusers", "pth", "npz", "checkpoint"],
        help="safetensors: a folder with a model card; diffusers: a folder that diffusers opens as "
        "a pipeline; pth: a file in the layout of the official checkpoints; npz: balanced and "
        "shuffled samples for ADM's evaluation suite; checkpoint: a sharded checkpoint with its "
        "training state, as a plain one (default: from the ending of --out)",
    )
    parser.add_argument("--out", type=str, required=True, help="the folder or file")
    parser.add_argument(
        "--store",
        type=Literal["float16", "float32"],
        default="float32",
        help="precision of the weights in a folder; models compute in float32",
    )
    parser.add_argument("--license", type=str, help="the license in the model card")
    parser.add_argument(
        "--base-model", type=str, help="the repository whose weights were fine-tuned, in the card"
    )
    parser.add_argument("--note", type=str, help="a paragraph for the model card")
    parser.add_argument("--num", type=int, default=50_000, help="number of samples, for npz")
    add_sampling(parser)
    add_common(parser)


def run(options: Any) -> int:
    """Exports, and prints how to open the result."""
    from afmlib.cli.models import given_model, require_writable
    from afmlib.io import storage
    from afmlib.registry import load_plugin_file

    for plugin in options.plugin:
        load_plugin_file(plugin)
    form = _format(options)
    if storage.is_local(options.out):
        require_writable(options.out.rstrip("/"), is_file=form in ("npz", "pth"))
    if form == "checkpoint":
        return _export_checkpoint(options)
    if form == "npz":
        return _export_samples(options)
    given = given_model(options)
    if form == "diffusers":
        return _export_pipeline(given, options)
    return _export_file(given, options) if form == "pth" else _export_folder(given, options)


def _format(options: Any) -> str:
    endings = {".pth": "pth", ".pt": "pth", ".npz": "npz"}
    by_name = next((form for end, form in endings.items() if options.out.endswith(end)), None)
    if options.format in ("safetensors", "diffusers", "checkpoint") and by_name is not None:
        raise ValueError(
            f"--format {options.format} writes a folder, but --out is {options.out!r}."
        )
    if options.format in ("pth", "npz") and by_name != options.format:
        raise ValueError(f"--out must end in .{options.format}, got {options.out!r}.")
    return options.format or by_name or "safetensors"


def _export_checkpoint(options: Any) -> int:
    """Writes a checkpoint in the plain layout, with its training state."""
    from afmlib.io import storage
    from afmlib.io.checkpoint import (
        find_checkpoint,
        load_tensors,
        load_training_state,
        read_config,
        read_manifest,
        save_checkpoint,
        stored_networks,
    )

    folder, out = find_checkpoint(options.checkpoint), options.out.rstrip("/")
    if storage.list_files(out) or storage.list_folders(out):
        raise FileExistsError(f"{out} is not empty: choose another folder.")
    manifest = read_manifest(folder)
    networks = {name: load_tensors(folder, name) for name in sorted(stored_networks(manifest))}
    for key in ("format", "files"):
        manifest.pop(key)
    save_checkpoint(out, networks, load_training_state(folder), read_config(folder), manifest)
    say(f"{out}: a plain checkpoint of {folder}")
    say(f"To resume from it, put it in the place of {folder}.")
    return 0


def _export_folder(given: Any, options: Any) -> int:
    """Writes a folder in the layout of the Hugging Face Hub."""
    from afmlib.hub import write_export

    out = options.out.rstrip("/")
    write_export(
        out,
        given.model,
        given.manifest,
        given.config(),
        given.path,
        license=options.license,
        base_model=options.base_model,
        vae=options.vae,
        note=options.note,
        store=options.store,
    )
    say(f'{out}: afmlib.load_checkpoint("{out}"), afmlib sample --checkpoint {out}')
    if options.license is None and not (given.manifest or {}).get("license"):
        say("The model card has no license: add one with --license TEXT.")
    return 0


def _export_pipeline(given: Any, options: Any) -> int:
    """Writes a folder that diffusers opens."""
    from afmlib.hub.diffusers_folder import write_pipeline

    out = options.out.rstrip("/")
    opening = write_pipeline(
        out,
        given.model,
        given.manifest,
        given.config(),
        given.path,
        vae=options.vae,
        nfe=options.nfe,
        license=options.license,
        base_model=options.base_model,
    )
    say(f"{out}, read back and compared: {opening}")
    return 0


# --- One file in the layout of the official checkpoints -------------------------------------------


def _export_file(given: Any, options: Any) -> int:
    """Writes the file, reads it back, and compares weights and a sample."""
    from afmlib.interfaces import SampleModel
    from afmlib.io import storage
    from afmlib.io.checkpoint import CheckpointError
    from afmlib.io.official_files import write_state_dict
    from afmlib.official import load_official, official_state_dict

    out, model = options.out, given.model
    state = official_state_dict(model)
    write_state_dict(out, state)
    arguments = _arguments(model)
    again = load_official(out, **arguments)
    assert isinstance(again, SampleModel)
    if not (_same_weights(state, official_state_dict(again)) and _same_samples(model, again)):
        storage.remove_file(out)
        raise CheckpointError(f"{out} differs from the model when read back. It was removed.")
    listed = "".join(f", {name}={value!r}" for name, value in arguments.items())
    say(f'{out}, read back bit for bit: afmlib.load_official("{out}"{listed})')
    return 0


def _same_weights(one: Any, other: Any) -> bool:
    import torch

    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def _same_samples(model: Any, again: Any) -> bool:
    """Returns whether a sample of both is equal: equal weights may be different functions."""
    import torch

    from afmlib.nn.attention import Attention
    from afmlib.ops.seeding import indexed_noises
    from afmlib.sampling import sample

    # Attention backends round differently.
    layers = ([m for m in each.modules() if isinstance(m, Attention)] for each in (model, again))
    for layer, twin in zip(*layers, strict=True):
        twin.backend, twin.required = layer.backend, layer.required
    noises = indexed_noises(0, [0], again.conventions.latent_shape or ())
    one, other = (sample(each, [0], noises=noises) for each in (model, again))
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _arguments(model: Any) -> dict[str, Any]:
    """Returns the arguments of `load_official` that the weights do not determine."""
    from afmlib.official import generator_spec

    spec = generator_spec(model.generator)
    network = spec.get("generator", spec)
    predictions = {"SamplePrediction": "sample", "VelocityPrediction": "velocity"}
    return dict(
        repeats=spec.get("repeats", 1),
        nfe=model.conventions.nfe,
        prediction=predictions[model.conventions.parameterization],
        num_heads=network["num_heads"],
    )


# --- Samples --------------------------------------------------------------------------------------


def _export_samples(options: Any) -> int:
    from afmlib import processes
    from afmlib.cli.models import VAE, decoder_of, device_of, given_model, is_latent
    from afmlib.cli.sample import sample_batches
    from afmlib.evaluation.protocol import balanced_labels
    from afmlib.io.npz import write_npz
    from afmlib.launch import join_processes
    from afmlib.metrics.rgb import to_rgb_bytes

    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}.")
    device = join_processes(device_of(options.device))
    model = given_model(options).model
    shape = model.conventions.latent_shape
    has_decoder = options.vae is not None or model.autoencoder is not None
    if not has_decoder and (is_latent(model) or shape is None or len(shape) != 3):
        raise ValueError(
            "ADM's evaluation suite needs images, but the samples of this model are not images. "
            f"If they are latents, give their autoencoder, such as --vae {VAE}."
        )
    decode = decoder_of(options.vae, model, device)
    labels = balanced_labels(options.num, model.conventions.num_classes or 1, options.seed)
    batches = sample_batches(model, labels.tolist(), options, device, decode)
    if processes.rank() > 0:  # The first process writes the samples of all.
        for _ in batches:
            pass
        return 0
    write_npz(options.out, map(to_rgb_bytes, batches), labels)
    say(
        f"{options.out}: {options.num} images, classes balanced and shuffled, seed {options.seed}, "
        f"nfe {model.check_nfe(options.nfe)}"
    )
    return 0
