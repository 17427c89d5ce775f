"""Models as pipelines of diffusers.

diffusers' own ``DiTPipeline`` samples a plain transformer of latents, with a fixed number of steps.
Its time embedder has other frequencies than the official one, so the embeddings of the sampling
times are stored as a table: the first layer tells the times apart, and the second holds a row for
each. Any other model becomes an `AFMPipeline` of this library.
"""

__all__ = ["write_pipeline"]

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from afmlib.data.diffusers_autoencoder import DiffusersAutoencoder
from afmlib.hub.card import PICTURE, model_card
from afmlib.hub.folder import filled_manifest, write_picture
from afmlib.interfaces import SampleModel
from afmlib.io import storage
from afmlib.io.checkpoint import CheckpointError
from afmlib.io.class_names import names_of_classes
from afmlib.io.diffusers_layout import INDEX, to_diffusers
from afmlib.networks.dit import DiTGenerator
from afmlib.nn.attention import Attention
from afmlib.ops.time_grid import sampling_times
from afmlib.sampling import VAE, decode_latents, evaluating, load_autoencoder

FREQUENCIES = 256
"""The inputs of diffusers' time embedder."""

TOLERANCE = 1e-4
"""The largest difference of an image, in units of its range, before an export is an error."""

STOCK = "SamplePrediction", "VelocityPrediction", "InstantaneousVelocity"


def write_pipeline(
    out: str,
    model: SampleModel,
    manifest: Mapping[str, Any] | None,
    config: str | None,
    path: str,
    vae: str | None = None,
    nfe: int | None = None,
    license: str | None = None,
    base_model: str | None = None,
) -> str:
    """Writes a folder that diffusers opens, with a model card, and reads it back.

    Args:
        out: The folder on a local disk, which must be empty or new.
        model: The model.
        manifest: The manifest of its checkpoint; None for an official checkpoint.
        config: The config of its run, if it is known.
        path: Where the model comes from.
        vae: The autoencoder, which a model of latents needs. It is copied into the folder.
        nfe: The number of network evaluations. Defaults to the model's.
        license: The license in the card.
        base_model: The repository whose weights were fine-tuned.

    Returns:
        How to open it.

    Raises:
        OSError: If diffusers is not installed.
        ValueError: If the model makes no images, or needs an autoencoder.
        CheckpointError: If its images differ from those of the model.
    """
    _require_diffusers(out)
    shape = model.conventions.latent_shape
    if shape is None or len(shape) != 3:
        raise ValueError("A pipeline of diffusers makes images, and this model does not.")
    if model.is_latent and vae is None and model.autoencoder is None:
        raise ValueError(f"A pipeline of latents needs their autoencoder, such as --vae {VAE}.")
    if not storage.is_local(out):
        raise ValueError(f"diffusers writes to a local disk only, not to {out}.")
    if storage.list_files(out) or storage.list_folders(out):
        raise FileExistsError(f"{out} is not empty: choose another folder.")
    nfe = model.check_nfe(nfe)
    model = model.to("cpu")
    decoder = model.autoencoder
    if vae is not None:
        decoder = load_autoencoder(vae, model, torch.device("cpu"))
    filled = filled_manifest(model, manifest, config, path, license, base_model)
    folder = str(storage.local_path(out))
    opening = _write_checked(folder, model, filled, decoder, nfe)
    has_picture = write_picture(model, decoder, os.path.join(folder, PICTURE))
    card = model_card(model, filled, config, out, has_picture, f"```python\n{opening}\n```")
    Path(folder, "README.md").write_text(card)
    return opening.replace("\n", "; ")


def _require_diffusers(out: str) -> None:
    try:
        import diffusers  # noqa: F401
    except ImportError as error:
        raise OSError(f"{out} needs the package diffusers: pip install 'afmlib[vae]'") from error


def _write_checked(
    out: str, model: SampleModel, manifest: Mapping[str, Any], decoder: Any, nfe: int
) -> str:
    """Writes diffusers' own pipeline if its images are right, else that of this library."""
    last, steps = (model.conventions.num_classes or 1) - 1, f"num_inference_steps={nfe}"
    stock = _stock_pipeline(model, decoder, nfe)
    if stock is not None:
        stock.save_pretrained(out)
        _add_labels(out, model)
        if _difference(_reopened(type(stock), out), model, decoder, nfe) <= TOLERANCE:
            return (
                "from diffusers import DiffusionPipeline\n"
                f'pipeline = DiffusionPipeline.from_pretrained("{out}")\n'
                f"images = pipeline([0, {last}], guidance_scale=1.0, {steps}).images"
            )
        storage.remove_folder(out)
    pipeline = _own_pipeline(model, manifest, decoder)
    pipeline.save_pretrained(out)
    difference = _difference(_reopened(type(pipeline), out), model, decoder, nfe)
    if not difference <= TOLERANCE:
        raise CheckpointError(f"The images of {out} differ by {difference:.2g} from the model's.")
    return (
        "from afmlib.hub.pipeline import AFMPipeline\n"
        f'pipeline = AFMPipeline.from_pretrained("{out}")\n'
        f"images = pipeline([0, {last}], {steps}).images"
    )


def _reopened(kind: Any, folder: str) -> Any:
    from diffusers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True, low_cpu_mem_usage=False)
    finally:
        if shown:
            logging.enable_progress_bar()


def _difference(pipeline: Any, model: SampleModel, decoder: Any, nfe: int) -> float:
    """Returns the largest difference of two images, each in [0, 1]."""
    count = model.conventions.num_classes or 1
    labels = [0, count - 1]
    pipeline.set_progress_bar_config(disable=True)
    fixed = {"guidance_scale": 1.0} if hasattr(pipeline, "transformer") else {}
    found = pipeline(
        labels,
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=nfe,
        output_type="pt",
        **fixed,
    ).images
    shape = (len(labels), *(model.conventions.latent_shape or ()))
    noises = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with evaluating(model.generator), torch.no_grad():
        made = model(noises, torch.tensor(labels), nfe)
        images = made if decoder is None else decode_latents(decoder, made)
    expected = (images / 2 + 0.5).clamp(0, 1)
    return float((found - expected).abs().max())


# --- The pipeline of this library -----------------------------------------------------------------


def _own_pipeline(model: SampleModel, manifest: Mapping[str, Any], decoder: Any) -> Any:
    from afmlib.hub.pipeline import AFMGenerator, AFMPipeline

    conventions = json.loads(json.dumps(model.conventions.as_dict()))
    own = decoder is not None and decoder is model.autoencoder
    generator = AFMGenerator(
        dict(manifest["generator"]), conventions, manifest["autoencoder"] if own else None
    )
    parts = ("generator.", "autoencoder.") if own else ("generator.",)
    state = {name: value for name, value in model.state_dict().items() if name.startswith(parts)}
    generator.model.load_state_dict(state, strict=True)
    names = names_of_classes(model.conventions.num_classes, model.class_names)
    vae = decoder.network if isinstance(decoder, DiffusersAutoencoder) else None
    return AFMPipeline(generator.eval(), vae, names or None)


# --- The pipeline of diffusers --------------------------------------------------------------------


def _stock_pipeline(model: SampleModel, decoder: Any, nfe: int) -> Any | None:
    """Returns a ``DiTPipeline``; None if its classes do not cover the model."""
    network, kind = model.generator, model.conventions.parameterization
    if not isinstance(network, DiTGenerator) or kind not in STOCK:
        return None
    if not isinstance(decoder, DiffusersAutoencoder):
        return None
    heads = next(part for part in network.modules() if isinstance(part, Attention)).num_heads
    hidden = network.pos_embed.shape[-1]
    state = network.state_dict()
    if (
        "blocks.0.attn.q_norm.weight" in state
        or len(state["blocks.0.mlp.fc1.weight"]) != 4 * hidden
    ):
        return None
    scheduler = _scheduler(kind, nfe)
    if scheduler is None or nfe > min(hidden, FREQUENCIES):
        return None
    from diffusers import DiTPipeline, DiTTransformer2DModel

    channels, size, _ = network.latent_shape or (0, 0, 0)
    classes = network.num_classes or 1
    transformer = DiTTransformer2DModel(
        num_attention_heads=heads,
        attention_head_dim=hidden // heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=network.num_blocks,
        sample_size=size,
        patch_size=network.patch_size,
        num_embeds_ada_norm=classes,
        norm_eps=1e-6,
    )
    table = state["y_embedder.embedding_table.weight"]
    null = table.new_zeros(max(0, classes + 1 - len(table)), hidden)
    scheduler.set_timesteps(nfe)
    time = _time_table(_time_embeddings(network, kind, nfe), scheduler.timesteps)
    named = to_diffusers(state, torch.cat([table, null]), time)
    transformer.load_state_dict(named, strict=True)
    if not torch.allclose(transformer.pos_embed.pos_embed, state["pos_embed"], atol=1e-6):
        return None  # diffusers computes it, and does not store it.
    return DiTPipeline(transformer.eval(), decoder.network, scheduler)


def _scheduler(kind: str, nfe: int) -> Any | None:
    import diffusers

    if kind == "SamplePrediction":
        if nfe > 1:
            return None  # The output is the end of a step, which no scheduler knows.
        return diffusers.DDIMScheduler(
            prediction_type="sample",
            clip_sample=False,
            set_alpha_to_one=True,
            timestep_spacing="trailing",
        )
    scheduler = getattr(diffusers, "FlowMapEulerDiscreteScheduler", None)  # Since diffusers 0.39.
    return None if scheduler is None else scheduler()


@torch.no_grad()
def _time_embeddings(network: DiTGenerator, kind: str, nfe: int) -> Tensor:
    """Returns the embedding of the times of each step, (nfe, hidden size)."""
    times = torch.tensor(sampling_times(nfe))
    source, target = times[:-1], times[1:]
    if kind == "InstantaneousVelocity":
        target = source
    total = torch.zeros(nfe, network.pos_embed.shape[-1])
    for embedder, values in ((network.t_embedder, source), (network.t_tgt_embedder, target)):
        if embedder is not None:
            total += embedder(values)
    return total


def _time_table(rows: Tensor, timesteps: Tensor) -> dict[str, Tensor]:
    """Returns the time embedder of diffusers that has the given outputs at the timesteps."""
    count, hidden = rows.shape
    first, second = torch.zeros(hidden, FREQUENCIES), torch.zeros(hidden, hidden)
    bias = torch.zeros(hidden)
    if count == 1:
        bias = rows[0]  # At any time.
    else:
        from diffusers.models.embeddings import Timesteps

        waves = Timesteps(FREQUENCIES, flip_sin_to_cos=True, downscale_freq_shift=1)(timesteps)
        first[:count] = torch.linalg.pinv(waves.double().T).float()
        second[:, :count] = rows.T / silu(torch.ones(()))
    return {
        "linear_1.weight": first,
        "linear_1.bias": torch.zeros(hidden),
        "linear_2.weight": second,
        "linear_2.bias": bias,
    }


def _add_labels(folder: str, model: SampleModel) -> None:
    names = names_of_classes(model.conventions.num_classes, model.class_names)
    if names:
        path = Path(folder, INDEX)
        index = json.loads(path.read_text())
        index["id2label"] = {str(number): name for number, name in enumerate(names)}
        path.write_text(json.dumps(index, indent=2))
