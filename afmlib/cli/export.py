"""``afmlib export``: a trained model, or its samples, in a form that others read."""

__all__ = ["run"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afmlib import processes
from afmlib.cli.files import device_of, require_writable
from afmlib.cli.model_card import model_card
from afmlib.cli.models import GivenModel, decoder_of, given_model, is_latent
from afmlib.cli.sample import VAE, sample_batches
from afmlib.evaluation.protocol import balanced_labels
from afmlib.interfaces import SampleModel
from afmlib.io import storage
from afmlib.io.checkpoint import CheckpointError, save_checkpoint
from afmlib.io.npz_samples import write_npz
from afmlib.io.official_files import write_state_dict
from afmlib.metrics.rgb import to_rgb_bytes
from afmlib.nn.attention import Attention
from afmlib.official import generator_spec, load_official, public_state_dict
from afmlib.ops.seeding import indexed_noises
from afmlib.registry import load_plugin_file
from afmlib.sampling import sample

NETWORK = "generator_ema"
"""The name of the weights in a checkpoint that are sampled."""


def run(options: Any) -> int:
    """Exports, and says how it is opened."""
    for plugin in options.plugin:
        load_plugin_file(plugin)
    form = _format(options)
    if storage.is_local(options.out):
        require_writable(options.out.rstrip("/"))
    if form == "npz":
        return _export_samples(options)
    given = given_model(options)
    return _export_file(given, options) if form == "pth" else _export_folder(given, options)


def _format(options: Any) -> str:
    endings = {".pth": "pth", ".pt": "pth", ".npz": "npz"}
    by_name = next((form for end, form in endings.items() if options.out.endswith(end)), None)
    if options.format == "safetensors" and by_name is not None:
        raise ValueError(f"--format safetensors writes a folder, and --out is {options.out!r}.")
    if options.format in ("pth", "npz") and by_name != options.format:
        raise ValueError(f"--out must end in .{options.format}, got {options.out!r}.")
    return options.format or by_name or "safetensors"


# --- A folder -------------------------------------------------------------------------------------


def _export_folder(given: GivenModel, options: Any) -> int:
    out = options.out.rstrip("/")
    if storage.list_files(out) or storage.list_folders(out):
        raise FileExistsError(f"{out} holds something already: name another folder.")
    manifest = dict(given.manifest or _manifest(given.model))
    for key in ("format", "files", "snapshots"):
        manifest.pop(key, None)
    if given.manifest is not None:  # An export keeps what is said of its weights.
        manifest.setdefault("weights", "online" if options.online else "averaged")
    config = given.config()
    save_checkpoint(out, {NETWORK: given.model.generator.state_dict()}, None, config, manifest)
    card = model_card(given, manifest, config, out.rsplit("/", 1)[-1], options.license)
    storage.write_atomically(storage.join(out, "README.md"), card.encode())
    print(f'{out}: afmlib.load_checkpoint("{out}"), afmlib sample --checkpoint {out}')
    if options.license is None:
        print("The model card says nothing of the license: --license TEXT does.")
    return 0


def _manifest(model: SampleModel) -> dict[str, Any]:
    return dict(
        conventions=model.conventions.as_dict(),
        generator=generator_spec(model.generator),
        plugins=[],
    )


# --- One file in the published layout -------------------------------------------------------------


def _export_file(given: GivenModel, options: Any) -> int:
    out, model = options.out, given.model
    state = public_state_dict(model)
    write_state_dict(out, state)
    arguments = _arguments(model)
    again = load_official(out, **arguments)
    assert isinstance(again, SampleModel)
    if not (_same_weights(state, public_state_dict(again)) and _same_samples(model, again)):
        storage.remove_file(out)
        raise CheckpointError(f"{out} was not read back as it was written, and is removed.")
    listed = "".join(f", {name}={value!r}" for name, value in arguments.items())
    print(f'{out}, read back bit for bit: afmlib.load_official("{out}"{listed})')
    return 0


def _same_weights(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def _same_samples(model: SampleModel, again: SampleModel) -> bool:
    """Tells whether equal weights are the same function: one sample of both is equal."""
    _share_attention(model, again)
    noises = indexed_noises(0, [0], again.conventions.latent_shape or ())
    one, other = (sample(each, [0], noises=noises) for each in (model, again))
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _share_attention(model: SampleModel, again: SampleModel) -> None:
    """Lets both attend by the same backends, each of which rounds in its own way."""
    layers = ([m for m in each.modules() if isinstance(m, Attention)] for each in (model, again))
    for one, other in zip(*layers, strict=True):
        other.backend, other.required = one.backend, one.required


def _arguments(model: SampleModel) -> dict[str, Any]:
    """Returns all that weights do not tell of a model, for `load_official`."""
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
    from afmlib.engine import join_processes

    if options.num < 1:
        raise ValueError(f"--num must be at least 1, got {options.num}.")
    device = join_processes(device_of(options.device))
    model = given_model(options).model
    shape = model.conventions.latent_shape
    if options.vae is None and (is_latent(model) or shape is None or len(shape) != 3):
        raise ValueError(
            "ADM's evaluation suite judges images, and this model does not make them itself: give "
            f"what decodes its latents, such as --vae {VAE}."
        )
    decode = decoder_of(options.vae, model, device)
    labels = balanced_labels(options.num, model.conventions.num_classes or 1, options.seed)
    batches = sample_batches(model, labels.tolist(), options, device, decode)
    if processes.rank() > 0:  # Of several processes, the first one has the samples.
        for _ in batches:
            pass
        return 0
    write_npz(options.out, map(to_rgb_bytes, batches), labels)
    print(
        f"{options.out}: {options.num} images, classes balanced and shuffled, seed {options.seed}, "
        f"nfe {model.check_nfe(options.nfe)}"
    )
    return 0
