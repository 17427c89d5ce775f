r"""Blocks of the diffusion transformer with adaptive layer normalization (adaLN-Zero).

A condition :math:`c` gives each branch a shift, a scale and a gate. The gates start at zero, so a
new block is the identity:

.. math:: h \gets h + \gamma(c) \, f\big(\operatorname{LN}(h) \, (1 + \alpha(c)) + \beta(c)\big)

References:
    | Scalable Diffusion Models with Transformers (Peebles and Xie, 2022)
    | https://arxiv.org/abs/2212.09748
"""

__all__ = ["DiTBlock", "FinalLayer", "dit_blocks", "modulate", "read_first_token", "token_head"]

from torch import Tensor, nn

from afmlib.interfaces import AttentionBackend
from afmlib.nn.attention import Attention
from afmlib.nn.normalization import LayerNorm

LAYER_NORM_EPS = 1e-6


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Applies one shift and scale per sample to its tokens."""
    return x * (1 + scale[:, None]) + shift[:, None]


def _adaptive_layer(hidden_size: int, chunks: int) -> nn.Sequential:
    linear = nn.Linear(hidden_size, chunks * hidden_size)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)


def _layer_norm(hidden_size: int) -> LayerNorm:
    return LayerNorm(hidden_size, eps=LAYER_NORM_EPS, elementwise_affine=False)


class Mlp(nn.Module):
    """Two linear layers with a GELU (tanh approximation) in between.

    Args:
        hidden_size: The width of the tokens.
        mlp_ratio: The width of the hidden layer, in units of ``hidden_size``.
    """

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, int(hidden_size * mlp_ratio))
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(int(hidden_size * mlp_ratio), hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(tokens)))


class DiTBlock(nn.Module):
    """One transformer block with a condition.

    Args:
        hidden_size: The width of the tokens and of the condition.
        num_heads: The number of attention heads.
        mlp_ratio: The width of the MLP, in units of ``hidden_size``.
        qk_norm: Whether queries and keys are normalized.
        attention: The attention backend.
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        attention: AttentionBackend | str = "auto",
    ) -> None:
        super().__init__()
        self.norm1 = _layer_norm(hidden_size)
        self.attn = Attention(hidden_size, num_heads, qk_norm, attention)
        self.norm2 = _layer_norm(hidden_size)
        self.mlp = Mlp(hidden_size, mlp_ratio)
        for layer in (self.attn.qkv, self.attn.proj, self.mlp.fc1, self.mlp.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.adaLN_modulation = _adaptive_layer(hidden_size, 6)

    def forward(self, tokens: Tensor, condition: Tensor, num_outputs: int | None = None) -> Tensor:
        """Runs the block.

        Args:
            tokens: The tokens.
            condition: One condition per sample.
            num_outputs: The number of first tokens to return. Defaults to all.
        """
        modulation = self.adaLN_modulation(condition).chunk(6, dim=1)
        shift_attn, scale_attn, gate_attn, shift_mlp, scale_mlp, gate_mlp = modulation
        mixed = self.attn(modulate(self.norm1(tokens), shift_attn, scale_attn), num_outputs)
        tokens = tokens[:, :num_outputs] + gate_attn[:, None] * mixed
        transformed = self.mlp(modulate(self.norm2(tokens), shift_mlp, scale_mlp))
        return tokens + gate_mlp[:, None] * transformed


class FinalLayer(nn.Module):
    """Projects each token to the pixels of its patch. A new layer returns zero.

    Args:
        hidden_size: The width of the tokens.
        out_size: The number of values per patch, in the order (row, column, channel).
    """

    def __init__(self, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.norm_final = _layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, out_size)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.adaLN_modulation = _adaptive_layer(hidden_size, 2)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(tokens), shift, scale))


def dit_blocks(
    depth: int,
    hidden_size: int,
    num_heads: int,
    mlp_ratio: float,
    qk_norm: bool,
    attention: AttentionBackend | str,
) -> nn.ModuleList:
    """Builds the body of a transformer.

    Raises:
        ValueError: If a number is out of range.
    """
    if depth < 1 or num_heads < 1 or not mlp_ratio * hidden_size >= 1:
        raise ValueError(
            "depth, num_heads and mlp_ratio * hidden_size must be at least 1, got depth "
            f"{depth}, num_heads {num_heads}, mlp_ratio {mlp_ratio}, hidden_size {hidden_size}."
        )
    return nn.ModuleList(
        DiTBlock(hidden_size, num_heads, mlp_ratio, qk_norm, attention) for _ in range(depth)
    )


def read_first_token(blocks: nn.ModuleList, tokens: Tensor, condition: Tensor) -> Tensor:
    """Runs the blocks and returns the first token.

    The last block computes only that token: its query, projection and MLP. The keys and values are
    those of all tokens.
    """
    *body, last = blocks
    for block in body:
        tokens = block(tokens, condition)
    return last(tokens, condition, num_outputs=1)[:, 0]


def token_head(hidden_size: int, out_size: int, bias: bool) -> nn.Sequential:
    """Builds the head for one token. Its linear layer keeps torch's initialization."""
    return nn.Sequential(_layer_norm(hidden_size), nn.Linear(hidden_size, out_size, bias=bias))
