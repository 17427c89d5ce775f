"""``afmlib doctor``: the software and hardware of this machine."""

__all__ = ["HELP", "add_arguments", "run"]

import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Iterator
from typing import Any

from jsonargparse import ArgumentParser

import afmlib
from afmlib.cli.options import add_common
from afmlib.terminal import say

HELP = "Show versions, devices, plugins and missing extras."

PACKAGES = (
    "torch",
    "mmengine",
    "timm",
    "torch-fidelity",
    "jsonargparse",
    "fsspec",
    "safetensors",
    "scikit-learn",
)
EXTRAS = {
    "xformers": "xformers",
    "diffusers": "vae",
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "s3fs": "s3",
    "gcsfs": "gcs",
    "aiohttp": "http",
    "huggingface_hub": "hf",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    add_common(parser)


def run(options: Any) -> int:
    """Prints the report."""
    from afmlib.cli.models import report_plugin_files

    report_plugin_files(options.plugin)
    for title, lines in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("attention", _attention()),
        ("plugins", _plugins()),
        ("extras", _extras()),
    ):
        say(title)
        for line in lines:
            say(f"  {line}")
    return 0


def _versions() -> Iterator[str]:
    yield f"afmlib {afmlib.__version__}, Python {platform.python_version()}, {platform.platform()}"
    for package in PACKAGES:
        yield f"{package} {importlib.metadata.version(package)}"
    try:
        import cv2

        yield f"OpenCV {cv2.__version__}"
    except ImportError as error:
        yield f"OpenCV cannot be imported ({error}); mmengine uses a stand-in"


def _devices() -> Iterator[str]:
    import torch

    from afmlib.launch import cpu_has_bfloat16

    half = "bfloat16" if cpu_has_bfloat16() else "no bfloat16 instructions"
    yield f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {half}"
    for index in range(torch.cuda.device_count()):
        name, memory = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[1]
        yield f"cuda:{index} {name}, {memory / 2**30:.0f} GiB"
    if not torch.cuda.is_available():
        yield "no CUDA device"


def _attention() -> Iterator[str]:
    import torch

    from afmlib.nn.attention import AutoAttention
    from afmlib.registry import ATTENTION

    kinds = ["cpu"] + ["cuda"] * torch.cuda.is_available()
    for name in ATTENTION.components():
        backend = ATTENTION.build(name)
        runs = [kind for kind in kinds if backend.is_available(torch.device(kind))]
        yield (
            f"{name}: {'on ' + ', '.join(runs) if runs else 'not available'}; "
            f"capabilities: {', '.join(sorted(backend.capabilities))}"
        )
    for kind in kinds:
        yield f"auto on {kind}: {type(AutoAttention.choose(kind, frozenset())).__name__}"


def _plugins() -> Iterator[str]:
    from afmlib.registry import REGISTRIES

    found = False
    for group, registry in REGISTRIES.items():
        problems = registry.problems()
        for name, origin in registry.components().items():
            if origin != "afmlib" or name in problems:
                found = True
                yield f"{group} {name} from {origin}: {problems.get(name, 'works')}"
    if not found:
        yield "none installed"


def _extras() -> Iterator[str]:
    for package, extra in EXTRAS.items():
        if importlib.util.find_spec(package) is None:
            yield f"{package} is missing: pip install 'afmlib[{extra}]'"
        else:
            yield f"{package} {importlib.metadata.version(package)}"
