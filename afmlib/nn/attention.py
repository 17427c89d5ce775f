r"""Softmax attention, :math:`\operatorname{softmax}(Q K^\top / \sqrt d) V`, by several backends.

Fused kernels are fast and save memory, but support neither double backward nor forward-mode
derivatives. So each backend declares its capabilities and each method its requirements. Backends
that lack a required capability are skipped.

References:
    | Attention Is All You Need (Vaswani et al., 2017)
    | https://arxiv.org/abs/1706.03762

    | Self-attention Does Not Need O(n^2) Memory (Rabe and Staats, 2021), for the fused form
    | https://arxiv.org/abs/2112.05682
"""

__all__ = [
    "CAPABILITIES",
    "Attention",
    "AutoAttention",
    "MathAttention",
    "SDPAttention",
    "XformersAttention",
    "require_capabilities",
]

import functools
import importlib.util
import logging
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from afmlib.interfaces import AttentionBackend
from afmlib.nn.normalization import GroupNorm, LayerNorm

CAPABILITIES = ("double_backward", "jvp", "vmap", "compile", "bf16")
"""The capabilities that a method may require of attention."""


class MathAttention(AttentionBackend):
    """Plain matrix products: slow and quadratic in memory, but with every capability."""

    capabilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES)

    def is_available(self, device: torch.device) -> bool:
        return True

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
        return scores.softmax(-1) @ values


class SDPAttention(AttentionBackend):
    """The fused attention of torch."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"vmap", "compile", "bf16"})

    def is_available(self, device: torch.device) -> bool:
        return True

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return scaled_dot_product_attention(queries, keys, values)


class XformersAttention(AttentionBackend):
    """The memory-efficient attention of xformers, on CUDA."""

    capabilities: ClassVar[frozenset[str]] = frozenset({"compile", "bf16"})

    def is_available(self, device: torch.device) -> bool:
        return device.type == "cuda" and importlib.util.find_spec("xformers") is not None

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if queries.device.type != "cuda":
            raise ValueError("xformers runs only on CUDA: use attention 'auto'.")
        # xformers has no float64 kernel, and expects (N, T, H, D).
        if queries.dtype == torch.float64:
            return SDPAttention().attend(queries, keys, values)
        tokens_first = (x.transpose(1, 2) for x in (queries, keys, values))
        return _memory_efficient_attention()(*tokens_first).transpose(1, 2)


@functools.cache
def _memory_efficient_attention() -> Any:
    # The import takes a second, and logs long warnings on machines without a GPU.
    logging.getLogger("xformers").setLevel(logging.ERROR)
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise ValueError(
            f"xformers cannot be imported ({error}): pip install 'afmlib[xformers]', or use "
            "attention 'auto'."
        ) from error
    return memory_efficient_attention


class AutoAttention(AttentionBackend):
    """The fastest backend that runs on the device and has the required capabilities.

    On CUDA that is xformers if installed, else torch's fused attention. If neither has the
    capabilities, it is `MathAttention`. Each choice is logged once.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset(CAPABILITIES)
    preference: ClassVar[tuple[type[AttentionBackend], ...]] = (
        XformersAttention,
        SDPAttention,
        MathAttention,
    )

    def is_available(self, device: torch.device) -> bool:
        return True

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        # The caller may rely on every declared capability.
        return self.choose(queries.device.type, self.capabilities).attend(queries, keys, values)

    @staticmethod
    def choose(device_type: str, required: frozenset[str]) -> AttentionBackend:
        """Returns the backend for a device type and a set of required capabilities."""
        return AutoAttention.preference[_choice(device_type, required)]()


def _choice(device_type: str, required: frozenset[str]) -> int:
    return _logged_choice(device_type, required)


# torch.compile calls it instead of tracing it, since it looks for modules and logs. The decorator
# torch.compiler.assume_constant_result does only this, but imports the compiler: a second.
_choice._dynamo_marked_constant = True  # type: ignore[attr-defined]


@functools.cache
def _logged_choice(device_type: str, required: frozenset[str]) -> int:
    device = torch.device(device_type)
    index, name = next(
        (index, cls.__name__)
        for index, cls in enumerate(AutoAttention.preference)
        if required <= cls.capabilities and cls().is_available(device)
    )
    wanted = f", for {', '.join(sorted(required))}" if required else ""
    logging.getLogger("afmlib").info("Attention on %s: %s%s.", device_type, name, wanted)
    return index


BACKENDS: dict[str, type[AttentionBackend]] = {
    "auto": AutoAttention,
    "math": MathAttention,
    "sdpa": SDPAttention,
    "xformers": XformersAttention,
}
"""The short names that the argument ``attention`` accepts."""


class Attention(nn.Module):
    """Multi-head self-attention over tokens.

    Args:
        hidden_size: The width of the tokens.
        num_heads: The number of heads. It must divide the width.
        qk_norm: Whether queries and keys are normalized per head. Training in bfloat16 needs it.
        attention: A backend, or the name of one: ``auto``, ``sdpa``, ``math``, ``xformers``.

    Raises:
        ValueError: If ``num_heads`` does not divide the width, or the backend is unknown.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
    ) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide hidden_size {hidden_size}.")
        if isinstance(attention, str):
            if attention not in BACKENDS:
                raise ValueError(f"attention must be one of {list(BACKENDS)}, got {attention!r}.")
            attention = BACKENDS[attention]()
        self.num_heads = num_heads
        self.backend = attention
        self.required: frozenset[str] = frozenset()
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        head_size = hidden_size // num_heads
        self.q_norm = LayerNorm(head_size, eps=1e-6) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(head_size, eps=1e-6) if qk_norm else nn.Identity()
        self.proj = nn.Linear(hidden_size, hidden_size)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, backend={type(self.backend).__name__}"

    def require(self, capabilities: Iterable[str]) -> None:
        """Requires more capabilities of the backend.

        Raises:
            ValueError: If the backend was chosen by name and lacks one of them.
        """
        missing = sorted(set(capabilities) - self.backend.capabilities)
        if missing:
            raise ValueError(
                f"{type(self.backend).__name__} has no {', '.join(missing)}, which this method "
                "needs: use attention 'auto' or 'math'."
            )
        self.required |= frozenset(capabilities)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """Mixes the tokens.

        Args:
            tokens: The tokens, all of which are keys and values.
            num_queries: The number of first tokens to return. Defaults to all.
        """
        if num_queries is None:
            q, k, v = rearrange(
                self.qkv(tokens), "n t (three h d) -> three n h t d", three=3, h=self.num_heads
            ).unbind(0)
        else:
            width = tokens.shape[-1]
            (query_weight, kv_weight), (query_bias, kv_bias) = (
                torch.split(x, [width, 2 * width]) for x in (self.qkv.weight, self.qkv.bias)
            )
            q = linear(tokens[:, :num_queries], query_weight, query_bias)
            q = rearrange(q, "n t (h d) -> n h t d", h=self.num_heads)
            k, v = rearrange(
                linear(tokens, kv_weight, kv_bias),
                "n t (two h d) -> two n h t d",
                two=2,
                h=self.num_heads,
            ).unbind(0)
        backend = self.backend
        if isinstance(backend, AutoAttention):
            backend = backend.choose(tokens.device.type, self.required)
        mixed = backend.attend(self.q_norm(q), self.k_norm(k), v)
        return self.proj(rearrange(mixed, "n h t d -> n t (h d)"))


def require_capabilities(network: nn.Module, capabilities: Iterable[str]) -> None:
    """Requires capabilities of every attention layer of a network, and of its normalization.

    Raises:
        ValueError: If a backend was chosen by name and lacks one of them, or a fused normalization
            would give a wrong gradient of a JVP.
    """
    capabilities = frozenset(capabilities)
    for module in network.modules():
        if isinstance(module, Attention | LayerNorm | GroupNorm):
            module.require(capabilities)
        elif {"jvp", "double_backward"} <= capabilities and isinstance(
            module, nn.LayerNorm | nn.GroupNorm
        ):
            name = "LayerNorm" if isinstance(module, nn.LayerNorm) else "GroupNorm"
            raise ValueError(
                f"The gradient of a JVP through torch.nn.{name} is wrong: use "
                f"afmlib.nn.normalization.{name}."
            )
