"""The official layout, from its specification: names and shapes, and tiny files.

Nothing here looks at the networks of the library.
"""

import torch

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


def random_state(shapes, seed=0, std=0.2):
    stream = torch.Generator().manual_seed(seed)
    return {name: std * torch.randn(shape, generator=stream) for name, shape in shapes.items()}
