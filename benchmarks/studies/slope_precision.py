"""The error of the penalty's slopes in half precision, by several ways, against float64.

    OMP_NUM_THREADS=1 python benchmarks/studies/slope_precision.py

A slope is the finite difference of a discriminator's logits along a normal direction. Each way
computes the same slopes. Its error is the root mean square deviation from float64, relative to the
root mean square slope. TF32 is emulated: the factors of products are rounded to 10 bits.
"""

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.functional import conv2d, linear
from torch.overrides import TorchFunctionMode

from afmlib.losses.gradient_penalty import LinearDifferences
from afmlib.networks.dit import DiTDiscriminator

EPS = 0.01
HALF = torch.bfloat16
NETWORKS: dict[str, dict[str, Any]] = {
    "depth 2, width 64, 4 x 8 x 8": dict(depth=2, hidden_size=64, num_heads=4, input_size=8),
    "depth 12, width 384, 4 x 16 x 16": dict(depth=12, hidden_size=384, num_heads=6, input_size=16),
}


class Tf32(TorchFunctionMode):
    """Rounds the factors of products to the 10 bits of TF32."""

    PRODUCTS = (linear, conv2d, torch.Tensor.matmul, torch.Tensor.__matmul__)

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func in self.PRODUCTS:
            args = [*(_round_to_tf32(factor) for factor in args[:2]), *args[2:]]
        return func(*args, **(kwargs or {}))


def _round_to_tf32(values: Tensor) -> Tensor:
    bits = values.contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class ForwardMode(TorchFunctionMode):
    """Computes linear layers and their derivatives in half precision, and the rest in float32."""

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func not in (linear, conv2d):
            return func(*args, **(kwargs or {}))
        inputs, weight, bias, *rest = (*args, None)[: max(len(args), 3)]
        point, direction = forward_ad.unpack_dual(inputs)
        output = func(point.to(HALF), weight.to(HALF), None, *rest).float()
        if bias is not None:
            output = output + bias.reshape(-1, *[1] * (0 if func is linear else 2))
        if direction is None:
            return output
        step = func(direction.to(HALF), weight.to(HALF), None, *rest).float()
        return forward_ad.make_dual(output, step)


def half_precision() -> Any:
    """Context of torch's automatic half precision."""
    return torch.autocast("cpu", HALF)


def difference(
    critic: nn.Module, x: Tensor, z: Tensor, labels: Tensor, context: Any, eps: float = EPS
) -> Tensor:
    """Returns the slopes by a difference of logits, computed in a context."""
    with context:
        logits = critic(torch.cat([x, x + eps * z]), labels.repeat(2))
    clean, perturbed = logits.to(x.dtype).chunk(2)
    return (perturbed - clean) / eps


def last_layer_difference(critic: Any, x: Tensor, z: Tensor, labels: Tensor) -> Tensor:
    """Returns the slopes by a difference in half precision, with the head in float32."""
    features: list[Tensor] = []
    hook = critic.final_layer.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    difference(critic, x, z, labels, half_precision())
    hook.remove()
    clean, perturbed = critic.final_layer(features[0].float()).squeeze(1).chunk(2)
    return Tensor((perturbed - clean) / EPS)


def forward_mode(critic: nn.Module, x: Tensor, z: Tensor, labels: Tensor) -> Tensor:
    """Returns the slopes by a derivative in half precision."""
    with forward_ad.dual_level(), ForwardMode():
        logits = critic(forward_ad.make_dual(x, z), labels)
        return Tensor(forward_ad.unpack_dual(logits).tangent)


@torch.no_grad()
def errors(sizes: Mapping[str, Any], samples: int) -> dict[str, float]:
    """Returns the relative error of each way, for a random network."""
    torch.manual_seed(0)
    fixed: dict[str, Any] = dict(in_channels=4, num_classes=10, qk_norm=True, attention="math")
    critic = DiTDiscriminator(**sizes, **fixed)
    for name, parameter in critic.named_parameters():
        if "adaLN" in name:  # Zero in a new network.
            nn.init.normal_(parameter, std=0.03)
    x, z = torch.randn(2, samples, *critic.latent_shape or ())
    labels = torch.arange(samples) % 10
    double = copy.deepcopy(critic).double()
    exact = difference(double, x.double(), z.double(), labels, contextlib.nullcontext())
    given = critic, x, z, labels
    found = {
        "float32 difference": difference(*given, contextlib.nullcontext()),
        "bfloat16 difference": difference(*given, half_precision()),
        "bfloat16 difference, eps 0.1": difference(*given, half_precision(), 0.1),
        "bfloat16 difference, head in float32": last_layer_difference(*given),
        "TF32 difference": difference(*given, Tf32()),
        "bfloat16 forward mode": forward_mode(*given),
        "bfloat16 linear differences (chosen)": difference(*given, LinearDifferences(HALF)),
    }
    norm = exact.norm()
    return {name: float((slopes - exact).norm() / norm) for name, slopes in found.items()}


def main() -> int:
    """Prints the table and returns the exit status."""
    torch.set_num_threads(1)
    columns = [errors(sizes, 16) for sizes in NETWORKS.values()]
    table = Table("way", *NETWORKS, title="Relative error of slopes, against float64")
    for name in columns[0]:
        table.add_row(name, *(f"{column[name]:.2g}" for column in columns))
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
