"""Layer normalization whose JVP can be differentiated.

Torch's fused layer normalization treats its mean and std as constants in a third derivative, and in
the gradient of a forward-mode JVP: the result is wrong, without an error (torch 2.13). Plain
operations give the right one.
"""

__all__ = ["LayerNorm"]

from collections.abc import Iterable

from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Layer normalization over the last dimension, by plain operations if a method needs them."""

    plain = False

    def require(self, capabilities: Iterable[str]) -> None:
        """Requires capabilities, as those of attention."""
        self.plain = self.plain or {"jvp", "double_backward"} <= set(capabilities)

    def forward(self, input: Tensor) -> Tensor:
        if not self.plain:
            return super().forward(input)
        centered = input - input.mean(-1, keepdim=True)
        scaled = centered * (centered.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        return scaled * self.weight + self.bias if self.elementwise_affine else scaled
