"""The official layout, from its specification: names and shapes, and tiny files.

Nothing here looks at the networks of the library.
"""

import math

import torch
from torch.nn import functional as F

SIZES = {"b2": (12, 768, 12), "m2": (16, 1024, 16), "l2": (24, 1024, 16), "xl2": (28, 1152, 16)}
"""Depth, hidden size, heads."""

GENERATORS = [
    *(f"{size}_1nfe_{kind}" for size in SIZES for kind in ("noguide", "guided")),
    *("xl2_2nfe_noguide", "xl2_2nfe_guided", "xl2_4nfe_guided"),
    *("xl2_56layer_1nfe_guided", "xl2_112layer_1nfe_guided"),
]


def linear(name, rows, columns, bias=True):
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def time_embedder(name, hidden):
    return linear(f"{name}.mlp.0", hidden, 256) | linear(f"{name}.mlp.2", hidden, hidden)


def body(depth, hidden, channels=4, patch=2, tokens=256):
    shapes = {
        "x_embedder.proj.weight": (hidden, channels, patch, patch),
        "x_embedder.proj.bias": (hidden,),
        "pos_embed": (1, tokens, hidden),
    }
    for index in range(depth):
        block = f"blocks.{index}"
        shapes |= linear(f"{block}.attn.qkv", 3 * hidden, hidden)
        shapes |= linear(f"{block}.attn.proj", hidden, hidden)
        shapes |= linear(f"{block}.mlp.fc1", 4 * hidden, hidden)
        shapes |= linear(f"{block}.mlp.fc2", hidden, 4 * hidden)
        shapes |= linear(f"{block}.adaLN_modulation.1", 6 * hidden, hidden)
    return shapes


def generator(depth, hidden, classes=1000, times=(), channels=4, patch=2, tokens=256):
    shapes = body(depth, hidden, channels, patch, tokens)
    shapes["y_embedder.embedding_table.weight"] = (classes, hidden)
    for name in times:
        shapes |= time_embedder(name, hidden)
    shapes |= linear("final_layer.linear", patch * patch * channels, hidden)
    return shapes | linear("final_layer.adaLN_modulation.1", 2 * hidden, hidden)


def flow_generator(depth, hidden, classes=1000, channels=4, patch=2, tokens=256, variance=True):
    """DiT or SiT: a null class, and a variance beside each output. REPA has no variance."""
    shapes = generator(depth, hidden, classes + 1, ("t_embedder",), channels, patch, tokens)
    outputs = patch * patch * channels * (2 if variance else 1)
    return shapes | linear("final_layer.linear", outputs, hidden)


def projectors(hidden, width=2048, features=768):
    """Those of REPA, which align the tokens with the features of another network."""
    sizes = (hidden, width, width, features)
    return {
        name: shape
        for layer in range(3)
        for name, shape in linear(
            f"projectors.0.{2 * layer}", sizes[layer + 1], sizes[layer]
        ).items()
    }


def discriminator(depth, hidden, classes=1000, times=(), **sizes):
    shapes = body(depth, hidden, **sizes) | {"dis_embed": (hidden,)}
    shapes["y_embedder.embedding_table.weight"] = (classes, hidden)
    for name in times:
        shapes |= time_embedder(name, hidden)
    return shapes | linear("final_layer.1", 1, hidden, bias=False)


def classifier(depth, hidden, classes=1000, **sizes):
    shapes = body(depth, hidden, **sizes) | {"cls_embed": (hidden,)}
    return shapes | time_embedder("t_embedder", hidden) | linear("final_layer.1", classes, hidden)


def without_memory(shapes):
    """Fills shapes with one stored number each, which takes no room in a file either."""
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


TINY = dict(depth=2, hidden=16, classes=5, tokens=4)
"""A network of 4x4 latents."""


HEADS = 2
"""Those of tiny networks."""


def random_state(shapes, seed=0, std=0.2):
    stream = torch.Generator().manual_seed(seed)
    return {name: std * torch.randn(shape, generator=stream) for name, shape in shapes.items()}


def naive(state, x, label, values=(), time_scale=1000):
    """One pass of the transformer out of a state dict, for one sample; ``values`` are times."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x):
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-6
        ).sqrt()

    def time(value):
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128, dtype=x.dtype) / 128)
        angles = time_scale * value * frequencies
        waves = torch.cat([angles.cos(), angles.sin()])
        return linear("t_embedder.mlp.2", F.silu(linear("t_embedder.mlp.0", waves)))

    def block(name, h, c):
        modulation = linear(f"{name}.adaLN_modulation.1", F.silu(c))
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6)
        q, k, v = linear(f"{name}.attn.qkv", norm(h) * (1 + scale1) + shift1).chunk(3, dim=-1)
        heads = [
            torch.softmax(a @ b.T / math.sqrt(a.shape[1]), dim=1) @ d
            for a, b, d in zip(*(part.chunk(HEADS, dim=1) for part in (q, k, v)), strict=True)
        ]
        h = h + gate1 * linear(f"{name}.attn.proj", torch.cat(heads, dim=1))
        hidden = linear(f"{name}.mlp.fc1", norm(h) * (1 + scale2) + shift2)
        return h + gate2 * linear(f"{name}.mlp.fc2", F.gelu(hidden, approximate="tanh"))

    patches = x.unfold(1, 2, 2).unfold(2, 2, 2)  # (C, rows, columns, 2, 2)
    kernel = state["x_embedder.proj.weight"]
    h = torch.einsum("crspq,dcpq->rsd", patches, kernel).flatten(0, 1)
    h = h + state["x_embedder.proj.bias"] + state["pos_embed"][0]
    label = state["y_embedder.embedding_table.weight"][label]
    for value in values or (None,):
        condition = label if value is None else label + time(value)
        for index in range(TINY["depth"]):
            h = block(f"blocks.{index}", h, condition)
    deep_or_plain = label if len(values) != 1 else condition
    shift, scale = linear("final_layer.adaLN_modulation.1", F.silu(deep_or_plain)).chunk(2)
    pixels = linear("final_layer.linear", norm(h) * (1 + scale) + shift)
    size = x.shape[-1] // 2
    return pixels.reshape(size, size, 2, 2, -1).permute(4, 0, 2, 1, 3).reshape(-1, *x.shape[1:])
