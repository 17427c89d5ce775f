"""The diffusion transformers agree with a naive one, written down from the specification.

The oracle below knows nothing of the modules but their state dicts. It works on one sample and one
token at a time, in numpy and float64, and every parameter is random: new networks are constant.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from afmlib.networks.dit import DiTClassifier, DiTDiscriminator, DiTGenerator
from afmlib.networks.repeat import RepeatBlocks, RepeatDepth

pytestmark = pytest.mark.usefixtures("float64")

few = settings(max_examples=15)
seeds = st.integers(0, 2**32 - 1)
shapes = st.fixed_dictionaries(
    dict(
        input_size=st.sampled_from([4, 6]),
        patch_size=st.sampled_from([1, 2]),
        in_channels=st.integers(1, 3),
        hidden_size=st.sampled_from([8, 12]),
        depth=st.integers(1, 3),
        num_heads=st.sampled_from([1, 2, 4]),
        mlp_ratio=st.sampled_from([1.5, 4.0]),
        num_classes=st.integers(1, 4),
        qk_norm=st.booleans(),
    )
)


# --- The oracle -----------------------------------------------------------------------------------


class Oracle:
    """A diffusion transformer out of a state dict."""

    def __init__(self, network, arguments, prefix=""):
        state = network.state_dict()
        self.weights = {name.removeprefix(prefix): value.numpy() for name, value in state.items()}
        self.size = arguments["input_size"]
        self.patch = arguments["patch_size"]
        self.channels = arguments["in_channels"]
        self.depth = arguments["depth"]
        self.heads = arguments["num_heads"]
        self.qk_norm = arguments["qk_norm"]

    def linear(self, name, x):
        bias = self.weights.get(f"{name}.bias", 0.0)
        return self.weights[f"{name}.weight"] @ x + bias

    def patches(self, image):
        """Projects each patch, row by row, and adds its position."""
        kernel, bias = (self.weights[f"x_embedder.proj.{kind}"] for kind in ("weight", "bias"))
        tokens = []
        cells = self.size // self.patch
        for row in range(cells):
            for column in range(cells):
                token = bias.copy()
                for c in range(self.channels):
                    for p in range(self.patch):
                        for q in range(self.patch):
                            pixel = image[c, row * self.patch + p, column * self.patch + q]
                            token += kernel[:, c, p, q] * pixel
                tokens.append(token + self.weights["pos_embed"][0, row * cells + column])
        return tokens

    def label(self, label):
        return self.weights["y_embedder.embedding_table.weight"][label]

    def time(self, name, time):
        # In float32 or better: here all times are in float64.
        k = torch.arange(128)
        angles = 1000 * torch.as_tensor(time) * torch.exp(-math.log(10_000) * (k / 128))
        waves = torch.cat([angles.cos(), angles.sin()]).double().numpy()
        return self.linear(f"{name}.mlp.2", silu(self.linear(f"{name}.mlp.0", waves)))

    def attention(self, name, tokens):
        width = len(tokens[0]) // self.heads
        qkv = [self.linear(f"{name}.qkv", token) for token in tokens]
        mixed = [np.empty_like(token) for token in tokens]
        for head in range(self.heads):
            part = slice(head * width, (head + 1) * width)
            queries, keys, values = ([np.split(x, 3)[i][part] for x in qkv] for i in range(3))
            if self.qk_norm:
                queries = [self.affine_norm(f"{name}.q_norm", x) for x in queries]
                keys = [self.affine_norm(f"{name}.k_norm", x) for x in keys]
            for i, query in enumerate(queries):
                scores = np.array([query @ key / math.sqrt(width) for key in keys])
                weights = np.exp(scores - scores.max())
                weights /= weights.sum()
                mixed[i][part] = sum(w * v for w, v in zip(weights, values, strict=True))
        return [self.linear(f"{name}.proj", token) for token in mixed]

    def affine_norm(self, name, x):
        return self.weights[f"{name}.weight"] * norm(x) + self.weights[f"{name}.bias"]

    def block(self, index, tokens, condition):
        name = f"blocks.{index}"
        modulation = self.linear(f"{name}.adaLN_modulation.1", silu(condition))
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = np.split(modulation, 6)
        mixed = self.attention(f"{name}.attn", [norm(x) * (1 + scale_1) + shift_1 for x in tokens])
        tokens = [x + gate_1 * y for x, y in zip(tokens, mixed, strict=True)]
        made = []
        for x in tokens:
            hidden = self.linear(f"{name}.mlp.fc1", norm(x) * (1 + scale_2) + shift_2)
            made.append(x + gate_2 * self.linear(f"{name}.mlp.fc2", gelu(hidden)))
        return made

    def image(self, tokens, condition):
        """Writes the pixels of each patch, ordered (row, column, channel)."""
        shift, scale = np.split(self.linear("final_layer.adaLN_modulation.1", silu(condition)), 2)
        image = np.empty((self.channels, self.size, self.size))
        cells = self.size // self.patch
        for index, token in enumerate(tokens):
            values = iter(self.linear("final_layer.linear", norm(token) * (1 + scale) + shift))
            row, column = divmod(index, cells)
            for p in range(self.patch):
                for q in range(self.patch):
                    for c in range(self.channels):
                        image[c, row * self.patch + p, column * self.patch + q] = next(values)
        return image


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def norm(x):
    return (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).mean() + 1e-6)


# --- Agreement ------------------------------------------------------------------------------------


def randomized(network):
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "pos_embed" not in name:
                parameter.normal_(std=0.5)
    return network


def batch(arguments, size=2):
    shape = (arguments["in_channels"], arguments["input_size"], arguments["input_size"])
    labels = torch.randint(arguments["num_classes"], (size,))
    sources = torch.rand(size)
    return torch.randn(size, *shape), labels, sources, sources * torch.rand(size)


def assert_agree(made, expected):
    torch.testing.assert_close(made, torch.tensor(np.stack(expected)), rtol=1e-10, atol=1e-10)


@few
@given(seeds, shapes, st.sampled_from([(), ("src",), ("tgt",), ("src", "tgt")]))
def test_generator_matches_reference(seed, arguments, embedded):
    torch.manual_seed(seed)
    switches = {f"use_timestep_{end}": True for end in embedded}
    network = randomized(DiTGenerator(**arguments, **switches))
    oracle = Oracle(network, arguments)
    latents, labels, sources, targets = batch(arguments)

    expected = []
    for image, label, source, target in zip(latents.numpy(), labels, sources, targets, strict=True):
        tokens, condition = oracle.patches(image), oracle.label(label)
        if "src" in embedded:
            condition = condition + oracle.time("t_embedder", source)
        if "tgt" in embedded:
            condition = condition + oracle.time("t_tgt_embedder", target)
        for index in range(arguments["depth"]):
            tokens = oracle.block(index, tokens, condition)
        expected.append(oracle.image(tokens, condition))

    assert_agree(network(latents, labels, sources, targets), expected)


@few
@given(seeds, shapes, st.booleans())
def test_discriminator_matches_reference(seed, arguments, embeds_time):
    torch.manual_seed(seed)
    network = randomized(DiTDiscriminator(**arguments, use_timestep=embeds_time))
    oracle = Oracle(network, arguments)
    latents, labels, times, _ = batch(arguments)

    expected = []
    for image, label, time in zip(latents.numpy(), labels, times, strict=True):
        tokens = [oracle.weights["dis_embed"], *oracle.patches(image)]
        condition = oracle.label(label)
        if embeds_time:
            condition = condition + oracle.time("t_embedder", time)
        for index in range(arguments["depth"]):
            tokens = oracle.block(index, tokens, condition)
        expected.append(oracle.linear("final_layer.1", norm(tokens[0]))[0])

    assert_agree(network(latents, labels, times), expected)


@few
@given(seeds, shapes)
def test_classifier_matches_reference(seed, arguments):
    torch.manual_seed(seed)
    network = randomized(DiTClassifier(**arguments))
    oracle = Oracle(network, arguments)
    latents, _, times, _ = batch(arguments)

    expected = []
    for image, time in zip(latents.numpy(), times, strict=True):
        tokens = [oracle.weights["cls_embed"], *oracle.patches(image)]
        for index in range(arguments["depth"]):
            tokens = oracle.block(index, tokens, oracle.time("t_embedder", time))
        expected.append(oracle.linear("final_layer.1", norm(tokens[0])))

    assert_agree(network(latents, times), expected)


@few
@given(seeds, shapes, st.integers(1, 4), st.booleans())
def test_repeated_generators_match_reference(seed, arguments, repeats, by_block):
    torch.manual_seed(seed)
    network = randomized(DiTGenerator(**arguments, use_timestep_src=True))
    wrapper = (RepeatBlocks if by_block else RepeatDepth)(repeats, network)
    oracle = Oracle(wrapper, arguments, prefix="generator.")
    latents, labels, *_ = batch(arguments)
    turns = [(r, index) for r in range(repeats) for index in range(arguments["depth"])]
    if by_block:
        turns.sort(key=lambda turn: turn[1])

    expected = []
    for image, label in zip(latents.numpy(), labels, strict=True):
        tokens, condition = oracle.patches(image), oracle.label(label)
        for r, index in turns:
            stage = condition + oracle.time("t_embedder", 1 - r / repeats)
            tokens = oracle.block(index, tokens, stage)
        expected.append(oracle.image(tokens, condition))  # Only the label.

    assert_agree(wrapper(latents, labels), expected)
