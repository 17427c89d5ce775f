"""Tests for afmlib.nn.attention."""

import copy
import functools
import importlib.util
import inspect
import logging
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import Attention as TimmAttention
from torch import nn

from afmlib.losses.gradient_penalty import AutogradPenalty, FiniteDifferencePenalty
from afmlib.networks.dit import DiTDiscriminator, DiTGenerator
from afmlib.networks.mlp import MLPGenerator
from afmlib.nn import attention
from afmlib.nn.attention import (
    CAPABILITIES,
    Attention,
    AutoAttention,
    MathAttention,
    SDPAttention,
    XformersAttention,
    require_capabilities,
)
from afmlib.objectives.adversarial_flow import AdversarialFlow

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
heads = st.integers(1, 3)
sizes = st.integers(1, 5)
SMALL = dict(input_size=4, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=3)


def naive_attention(queries, keys, values):
    """Softmax attention by loops over samples, heads and tokens."""
    mixed = torch.empty_like(queries)
    samples, num_heads, tokens, width = queries.shape
    for n in range(samples):
        for h in range(num_heads):
            for i in range(tokens):
                scores = [queries[n, h, i].dot(keys[n, h, j]) / width**0.5 for j in range(tokens)]
                weights = torch.stack(scores).exp()
                weights = weights / weights.sum()
                mixed[n, h, i] = sum(weights[j] * values[n, h, j] for j in range(tokens))
    return mixed


# --- Backends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [MathAttention(), SDPAttention(), AutoAttention()])
@given(seeds, heads, sizes, sizes)
def test_backends_match_softmax_attention(backend, seed, num_heads, tokens, width):
    torch.manual_seed(seed)
    q, k, v = torch.randn(3, 2, num_heads, tokens, width)

    mixed = backend.attend(q, k, v)

    torch.testing.assert_close(mixed, naive_attention(q, k, v), rtol=1e-8, atol=1e-8)


@given(seeds, heads, sizes, sizes)
def test_backends_agree(seed, num_heads, tokens, width):
    torch.manual_seed(seed)
    inputs = torch.randn(3, 2, num_heads, tokens, width).requires_grad_()
    weights = torch.randn(2, num_heads, tokens, width)

    results = []
    for backend in (MathAttention(), SDPAttention()):
        mixed = backend.attend(*inputs)
        results.append((mixed, *torch.autograd.grad((mixed * weights).sum(), inputs)))

    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def test_math_attention_double_backward_and_jvp():
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 2, 3, 4).unbind())

    assert torch.autograd.gradgradcheck(MathAttention().attend, (q, k, v))
    assert torch.autograd.gradcheck(MathAttention().attend, (q, k, v), check_forward_ad=True)


def test_xformers_needs_cuda():
    for device in ("cpu", "mps", "meta"):
        assert not XformersAttention().is_available(torch.device(device))


@pytest.mark.parametrize("found", [None, "a spec"])
def test_xformers_available_on_cuda(found, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)

    assert XformersAttention().is_available(torch.device("cuda")) == (found is not None)
    assert not XformersAttention().is_available(torch.device("cpu"))


# --- The automatic choice -------------------------------------------------------------------------


@pytest.fixture
def fresh():
    """The module once more: no choice is made yet, and signatures are not checked (conftest.py)."""
    spec = importlib.util.spec_from_file_location("fresh", inspect.getfile(attention))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_auto_choice_on_cpu():
    for required in ((), ("vmap",), ("compile", "bf16"), ("vmap", "compile", "bf16")):
        assert isinstance(AutoAttention.choose("cpu", frozenset(required)), SDPAttention)
    for required in (("double_backward",), ("jvp",), ("jvp", "bf16"), CAPABILITIES):
        assert isinstance(AutoAttention.choose("cpu", frozenset(required)), MathAttention)


def test_auto_choice_on_cuda_with_xformers(fresh, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "xformers" or None)

    for required, chosen in (
        ((), fresh.XformersAttention),
        (("compile", "bf16"), fresh.XformersAttention),
        (("vmap",), fresh.SDPAttention),
        (("double_backward",), fresh.MathAttention),
    ):
        assert isinstance(fresh.AutoAttention.choose("cuda", frozenset(required)), chosen)
    assert isinstance(fresh.AutoAttention.choose("cpu", frozenset()), fresh.SDPAttention)


def test_auto_choice_on_cuda_without_xformers(fresh, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    assert isinstance(fresh.AutoAttention.choose("cuda", frozenset()), fresh.SDPAttention)


def test_choice_is_logged_once(fresh, caplog):
    caplog.set_level(logging.INFO, logger="afmlib")
    layers = [fresh.Attention(8, 2) for _ in range(3)]
    tokens = torch.randn(1, 2, 8)

    for layer in layers:
        layer(tokens)
    layers[0].require({"jvp"})
    for layer in layers * 2:
        layer(tokens)

    assert [record.getMessage() for record in caplog.records] == [
        "Attention on cpu: SDPAttention.",
        "Attention on cpu: MathAttention, for jvp.",
    ]


def test_xformers_is_not_imported_without_cuda(tmp_path, monkeypatch):
    (tmp_path / "xformers.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = (
        "import importlib.util, sys, torch; from afmlib.nn.attention import Attention;"
        "Attention(8, 2)(torch.randn(1, 2, 8));"
        "print(importlib.util.find_spec('xformers') is not None, 'xformers' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout

    assert printed.split() == [b"True", b"False"]


# --- The layer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("name", ["auto", "math", "sdpa"])
def test_layer_matches_timm(name, qk_norm):
    ours = Attention(12, 3, qk_norm=qk_norm, attention=name)
    theirs = TimmAttention(
        dim=12,
        num_heads=3,
        qkv_bias=True,
        qk_norm=qk_norm,
        norm_layer=functools.partial(nn.LayerNorm, eps=1e-6),
    )
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    tokens = torch.randn(2, 5, 12)

    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-10, atol=1e-10)


@given(seeds)
def test_layer_is_permutation_equivariant(seed):
    torch.manual_seed(seed)
    layer = Attention(8, 2, qk_norm=True)
    tokens = torch.randn(2, 6, 8)
    order = torch.randperm(6)

    torch.testing.assert_close(layer(tokens[:, order]), layer(tokens)[:, order])


@given(seeds, st.integers(1, 6), st.booleans())
def test_fewer_queries_are_the_first_rows(seed, num_queries, qk_norm):
    torch.manual_seed(seed)
    for name in ("math", "sdpa"):
        layer = Attention(8, 2, qk_norm=qk_norm, attention=name)
        tokens = torch.randn(2, 6, 8)

        first = layer(tokens, num_queries)

        torch.testing.assert_close(first, layer(tokens)[:, :num_queries], rtol=1e-12, atol=1e-12)


@given(seeds, st.floats(0.1, 100))
def test_qk_norm_ignores_weight_scale(seed, scale):
    torch.manual_seed(seed)
    layer = Attention(8, 2, qk_norm=True)
    tokens = torch.randn(2, 6, 8)
    for norm in (layer.q_norm, layer.k_norm):
        norm.eps = 0.0
    before = layer(tokens)

    with torch.no_grad():
        layer.qkv.weight[:16] *= scale  # Queries and keys, not values.
        layer.qkv.bias[:16] *= scale

    torch.testing.assert_close(layer(tokens), before, rtol=1e-7, atol=1e-9)


def test_built_backend_is_used():
    backend = MathAttention()

    assert Attention(8, 2, attention=backend).backend is backend


@pytest.mark.parametrize(("width", "heads"), [(8, 3), (10, 4), (2, 4)])
def test_heads_must_divide_width(width, heads):
    with pytest.raises(ValueError, match=f"num_heads {heads} does not divide hidden_size {width}"):
        Attention(width, heads)


def test_unknown_backend_lists_names():
    with pytest.raises(ValueError, match=r"one of \['auto', 'math', .*'flash'"):
        Attention(8, 2, attention="flash")


@pytest.mark.parametrize("name", ["auto", "math", "sdpa"])
def test_layer_compiles_without_graph_break(name, fresh):
    layer = fresh.Attention(8, 2, attention=name)
    tokens = torch.randn(2, 3, 8)

    compiled = torch.compile(layer, backend="eager", fullgraph=True)

    torch.testing.assert_close(compiled(tokens), layer(tokens))


# --- Requirements ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sdpa", "xformers"])
@pytest.mark.parametrize("capability", ["double_backward", "jvp"])
def test_named_backend_without_capability_raises(name, capability):
    layer = Attention(8, 2, attention=name)

    with pytest.raises(ValueError, match=f"has no {capability}, .*use attention 'auto' or 'math'"):
        layer.require({capability, "bf16"})


def test_requirements_accumulate():
    layer = Attention(8, 2)

    layer.require({"jvp"})
    layer.require(["double_backward"])

    assert layer.required == {"jvp", "double_backward"}


def test_require_capabilities_of_network():
    network = DiTDiscriminator(**SMALL)

    require_capabilities(network, {"double_backward"})

    assert all(block.attn.required == {"double_backward"} for block in network.blocks)


def test_network_without_attention():
    require_capabilities(MLPGenerator(2), CAPABILITIES)


def objective(attention, penalty):
    generator = DiTGenerator(**SMALL)
    return AdversarialFlow(generator, DiTDiscriminator(attention=attention, **SMALL), None, penalty)


def test_autograd_penalty_with_fused_kernel_raises():
    with pytest.raises(ValueError, match="SDPAttention has no double_backward"):
        objective("sdpa", AutogradPenalty())
    objective("sdpa", FiniteDifferencePenalty())
    objective("math", AutogradPenalty())


def test_autograd_penalty_with_auto_attention():
    game = objective("auto", AutogradPenalty())
    with torch.no_grad():
        for parameter in game.discriminator.parameters():
            parameter.normal_(std=0.2)
    plain = copy.deepcopy(game)
    for block in plain.discriminator.blocks:
        block.attn.backend = MathAttention()
    latents, labels = torch.randn(4, 2, 4, 4), torch.tensor([0, 1, 2, 0])
    draws = game.draw(latents)

    gradients = []
    for each in (game, plain):
        sum(each.discriminator_terms(latents, labels, draws).values()).backward()
        gradients.append([p.grad for p in each.discriminator.parameters() if p.requires_grad])

    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert all(block.attn.required == {"double_backward"} for block in game.discriminator.blocks)


def test_jvp_of_whole_network():
    network = DiTDiscriminator(**SMALL)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    require_capabilities(network, {"jvp"})
    x, direction = torch.randn(2, 2, 2, 4, 4).unbind()
    labels = torch.tensor([0, 2])

    slopes = torch.func.jvp(lambda x: network(x, labels), (x,), (direction,))[1]

    eps = 1e-6
    moved = network(x + eps * direction, labels) - network(x - eps * direction, labels)
    torch.testing.assert_close(slopes, moved / (2 * eps), rtol=1e-6, atol=1e-8)
