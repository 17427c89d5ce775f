"""Tests for afmlib.networks.unet."""

import copy
import sys

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from afmlib import build_generator, build_objective
from afmlib.networks.unet import ImageAttention, UNetGenerator
from afmlib.nn.attention import require_capabilities
from afmlib.nn.blocks import checkpoint_blocks, compile_blocks
from afmlib.nn.normalization import GroupNorm
from afmlib.testing.memory import saved_bytes

TINY = dict(
    input_size=8,
    in_channels=2,
    num_classes=3,
    widths=[8, 16],
    layers_per_block=1,
    attention_sizes=[4],
)
TIMES = dict(use_timestep_src=True, use_timestep_tgt=True, time_scale=1.0)


def spoken(network):
    """Gives weights that start at zero a value, so that every layer counts."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def inputs(dtype=None):
    return torch.randn(3, 2, 8, 8, dtype=dtype), torch.arange(3)


def test_starts_at_zero():
    made = UNetGenerator(**TINY)(*inputs())

    assert torch.equal(made, torch.zeros_like(made))


@pytest.mark.parametrize(
    ("name", "size", "millions"), [("unet_cifar", 32, 55.7), ("unet_imagenet64", 64, 296)]
)
def test_presets_are_near_the_networks_of_edm(name, size, millions):
    """DDPM++ and ADM as EDM's code builds them; each level here has a little more attention."""
    with torch.device("meta"):
        network = build_generator(name, input_size=size, use_timestep_src=True)

    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("scale_shift", [False, True])
def test_matches_diffusers(scale_shift):
    """The replaced layers compute what those of diffusers do."""
    ours = spoken(UNetGenerator(**TINY, head_size=4, scale_shift=scale_shift)).eval()
    theirs = UNet2DModel(**{**ours.unet.config, "attn_norm_num_groups": 2}).double().eval()
    state, parts = {}, ("to_q", "to_k", "to_v")
    for name, value in ours.unet.state_dict().items():
        if ".attn.qkv." in name:
            for part, piece in zip(parts, value.chunk(3), strict=True):
                state[name.replace("attn.qkv", part)] = piece
        elif ".attn.proj." in name:
            state[name.replace("attn.proj", "to_out.0")] = value
        else:
            is_norm = ".attentions." in name
            state[name.replace(".norm.", ".group_norm.") if is_norm else name] = value
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"time_embedding"}
    for parameter in theirs.time_embedding.linear_2.parameters():
        nn.init.zeros_(parameter)
    latents, labels = inputs()

    expected = theirs(latents, 0, class_labels=ours.y_embedder(labels)).sample

    # diffusers rounds the softmax to float32.
    torch.testing.assert_close(ours(latents, labels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("float64")
def test_jvp_and_its_gradient_match_differences():
    network = spoken(UNetGenerator(**TINY, **TIMES)).eval()
    require_capabilities(network, {"jvp", "double_backward"})
    latents, labels = inputs()
    source, target = torch.rand(2, 3)
    direction, weights = torch.randn(2, *latents.shape)

    def value(x, t):
        return (network(x, labels, t, target) * weights).sum()

    def slope():
        points, directions = (latents, source), (direction, torch.ones(3))
        return torch.func.jvp(value, points, directions)[1]

    h = 1e-6
    along = value(latents + h * direction, source + h), value(latents - h * direction, source - h)
    found = slope()
    torch.testing.assert_close(found, (along[0] - along[1]) / (2 * h), rtol=1e-6, atol=1e-6)

    weight = network.unet.down_blocks[1].attentions[0].attn.qkv.weight
    (gradient,) = torch.autograd.grad(found, weight)
    change = torch.randn_like(weight)
    with torch.no_grad():
        weight += h * change
        above = slope()
        weight -= 2 * h * change
        below = slope()
    torch.testing.assert_close(
        (gradient * change).sum(), (above - below) / (2 * h), rtol=1e-5, atol=1e-6
    )


def test_capabilities_reach_all_layers():
    network = dict(type="UNetGenerator", **TINY, **TIMES)

    objective = build_objective("TerminalVelocityMatching", generator=network)

    layers = list(objective.generator.modules())
    assert all(layer.plain for layer in layers if isinstance(layer, nn.GroupNorm))
    assert not [layer for layer in layers if type(layer) is nn.GroupNorm]
    assert sum(isinstance(layer, ImageAttention) for layer in layers) == 4
    with pytest.raises(ValueError, match="use attention 'auto' or 'math'"):
        build_objective("MeanFlow", generator=network | dict(attention="sdpa"))


def test_checkpointed_blocks_have_the_same_gradients_in_less_memory():
    network = spoken(UNetGenerator(**TINY, dropout=0.5))
    saving = copy.deepcopy(network)
    given = inputs()

    assert checkpoint_blocks(saving) == 14  # Ten residual blocks and four of attention.

    kept, gradients = [], []
    for one in (network, saving):
        torch.manual_seed(0)
        kept.append(saved_bytes(lambda one=one: one(*given), [*one.parameters(), *given]))
        torch.manual_seed(0)
        one(*given).square().sum().backward()
        gradients.append([parameter.grad for parameter in one.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert kept[1] < kept[0] / 2


def test_compiled_blocks_return_the_same():
    network = spoken(UNetGenerator(**TINY)).eval()
    given = inputs()
    expected = network(*given)
    torch._dynamo.reset()

    compile_blocks(network, backend="eager")

    torch.testing.assert_close(network(*given), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(input_size=6, widths=[8, 8, 8], attention_sizes=[]), "6 cannot be halved 2 times"),
        (dict(widths=[8, 6]), r"multiples of 4, one per level, got \[8, 6\]"),
        (dict(attention_sizes=[5]), r"among the sizes of the levels, \[8, 4\], got \[5\]"),
        (dict(head_size=3), "head_size 3 does not divide"),
        (dict(num_classes=0), "at least 1"),
        (dict(dropout=1.0), r"dropout in \[0, 1\)"),
        (dict(time_pair="difference"), "needs use_timestep_tgt=True"),
    ],
)
def test_invalid_arguments_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNetGenerator(**TINY | arguments)


def test_missing_diffusers_names_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(OSError, match=r"pip install 'afmlib\[unet\]'"):
        UNetGenerator(**TINY)


def test_group_normalization_is_the_one_of_this_library():
    norms = [m for m in UNetGenerator(**TINY).modules() if isinstance(m, nn.GroupNorm)]

    assert norms
    assert all(isinstance(norm, GroupNorm) and norm.num_groups == 2 for norm in norms)
