"""The names of diffusers' DiT, and the folder of a pipeline with a generator of AFM.

Each block of diffusers' ``DiTTransformer2DModel`` has an own table of classes and an own time
embedder. Otherwise its weights are those of our transformer under other names.

The port of the official AFM checkpoints to diffusers (``AFM-diffusers`` on the Hugging Face Hub)
has a folder per model, with ``generator/config.json`` and the weights under these names, after
``transformer.``. Only its weights and settings are read, not its code.
"""

__all__ = [
    "INDEX",
    "PORTED",
    "from_diffusers",
    "read_class_names",
    "read_generator_folder",
    "to_diffusers",
]

import json
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from afmlib.io import storage
from afmlib.io.bounds import MAX_MANIFEST
from afmlib.io.checked_files import CheckpointError, read_tensors

INDEX = "model_index.json"
PORTED = ("AFMGenerator2DModel", "AFMGeneratorDeep2DModel")
"""The classes of the port."""

WEIGHTS = "diffusion_pytorch_model.safetensors"

OUTER = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
TIME = {"mlp.0": "timestep_embedder.linear_1", "mlp.2": "timestep_embedder.linear_2"}
PARTS = ("weight", "bias")
TABLE = "class_embedder.embedding_table.weight"


def to_diffusers(
    state: Mapping[str, Tensor], table: Tensor, time: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns the weights under the names of diffusers.

    Args:
        state: The weights under the official names, without embedders of labels and times.
        table: The embedding of each class, with a last row for the null class.
        time: The time embedder, as ``linear_1.weight`` and so on.
    """
    named = {
        f"{new}.{part}": state[f"{old}.{part}"] for old, new in OUTER.items() for part in PARTS
    }
    for index in range(_depth(state, r"blocks\.(\d+)\.")):
        old_block, block = f"blocks.{index}", f"transformer_blocks.{index}"
        for part in PARTS:
            for old, new in BLOCK.items():
                named[f"{block}.{new}.{part}"] = state[f"{old_block}.{old}.{part}"]
            thirds = state[f"{old_block}.attn.qkv.{part}"].chunk(3)
            for letter, values in zip("qkv", thirds, strict=True):
                named[f"{block}.attn1.to_{letter}.{part}"] = values
        named[f"{block}.norm1.emb.{TABLE}"] = table
        for name, values in time.items():
            named[f"{block}.norm1.emb.timestep_embedder.{name}"] = values
    return named


def from_diffusers(state: Mapping[str, Tensor], position: Tensor) -> dict[str, Tensor]:
    """Returns weights of diffusers under the official names, with the time embedder.

    Args:
        state: The weights, after ``transformer.`` or not. Others are kept, such as
            ``t_tgt_embedder``.
        position: The position embedding, which diffusers does not store.

    Raises:
        KeyError: If one is missing.
    """
    given = {name.removeprefix("transformer."): value for name, value in state.items()}
    named = {"pos_embed": position}
    for old, new in OUTER.items():
        named |= {f"{old}.{part}": given.pop(f"{new}.{part}") for part in PARTS}
    depth = _depth(given, r"transformer_blocks\.(\d+)\.")
    for index in range(depth):
        old_block, block = f"blocks.{index}", f"transformer_blocks.{index}"
        for part in PARTS:
            for old, new in BLOCK.items():
                named[f"{old_block}.{old}.{part}"] = given.pop(f"{block}.{new}.{part}")
            thirds = [given.pop(f"{block}.attn1.to_{letter}.{part}") for letter in "qkv"]
            named[f"{old_block}.attn.qkv.{part}"] = torch.cat(thirds)
        embedders = {
            name: given.pop(f"{block}.norm1.emb.{name}")
            for name in (TABLE, *(f"{new}.{part}" for new in TIME.values() for part in PARTS))
        }
    named["y_embedder.embedding_table.weight"] = embedders[TABLE]
    for old, new in TIME.items():
        named |= {f"t_embedder.{old}.{part}": embedders[f"{new}.{part}"] for part in PARTS}
    return named | given


def _depth(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in state if (match := re.match(pattern, name))})


def read_generator_folder(folder: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads config and weights of the generator of a pipeline.

    Raises:
        CheckpointError: If they are missing or corrupt.
    """
    path = storage.join(folder, "generator", "config.json")
    try:
        config = json.loads(storage.read_bytes(path, MAX_MANIFEST))
        if not isinstance(config, dict):
            raise ValueError("it is not a mapping")
        path = storage.join(folder, "generator", WEIGHTS)
        with storage.open_to_read(path) as file:
            return config, read_tensors(file, path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is a pipeline of diffusers without a generator of AFM: {path} is missing."
        ) from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is corrupt: {error}.") from None


def read_class_names(folder: str) -> list[str]:
    """Returns the class names of a pipeline, or an empty list if it has none."""
    index = json.loads(storage.read_bytes(storage.join(folder, INDEX), MAX_MANIFEST))
    found = index.get("class_names") if isinstance(index, dict) else None
    if isinstance(found, list) and all(isinstance(name, str) for name in found):
        return found
    return []
