"""Tests for afmlib.nn.blocks."""

import copy

import pytest
import torch
from torch import nn

from afmlib import build_objective
from afmlib.derivatives import ForwardModeJVP
from afmlib.losses.gradient_penalty import LinearDifferences
from afmlib.networks.dit import DiTClassifier, DiTDiscriminator, DiTGenerator
from afmlib.networks.repeat import RepeatBlocks, RepeatDepth
from afmlib.nn.blocks import blocks_of, checkpoint_blocks, compile_blocks
from afmlib.testing.memory import saved_bytes

TINY = dict(hidden_size=16, num_heads=2, input_size=4, in_channels=2, num_classes=5)
TIMES = dict(use_timestep_src=True, use_timestep_tgt=True, time_scale=1.0)
DIT = dict(type="DiTGenerator", depth=2, **TINY)
CRITIC = dict(type="DiTDiscriminator", depth=2, **TINY)
NETWORKS = {
    "generator": lambda: DiTGenerator(depth=3, **TINY),
    "discriminator": lambda: DiTDiscriminator(depth=3, **TINY),
    "classifier": lambda: DiTClassifier(depth=3, **TINY),
    "repeated depth": lambda: RepeatDepth(2, DiTGenerator(depth=3, **TINY, use_timestep_src=True)),
    "repeated blocks": lambda: RepeatBlocks(
        2, DiTGenerator(depth=3, **TINY, use_timestep_src=True), activation_checkpointing=True
    ),
}
OBJECTIVES = {
    "finite differences": dict(type="AdversarialFlow", generator=DIT, discriminator=CRITIC),
    "double backward": dict(
        type="AdversarialFlow", generator=DIT, discriminator=CRITIC, penalty="AutogradPenalty"
    ),
    "meanflow": dict(type="MeanFlow", generator={**DIT, **TIMES}),
    "shortcut": dict(type="Shortcut", generator={**DIT, **TIMES}),
    "scm": dict(
        type="ContinuousConsistency", generator={**DIT, "use_timestep_src": True, "time_scale": 1.0}
    ),
}


def spoken(module):
    """Gives weights that start at zero a value, so that every gradient counts."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return module


def inputs(network):
    latents = torch.randn(3, 2, 4, 4)
    if isinstance(network, DiTClassifier):
        return latents, torch.rand(3)
    return latents, torch.arange(3)


def gradients(network, *given):
    network.zero_grad()
    network(*given).square().sum().backward()
    return {name: p.grad for name, p in network.named_parameters() if p.requires_grad}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor is None and other[name] is None) or torch.equal(tensor, other[name]), name


@pytest.mark.parametrize("name", NETWORKS)
def test_checkpointed_blocks_have_the_same_gradients(name):
    network = spoken(NETWORKS[name]())
    given = inputs(network)
    before, names = gradients(network, *given), list(network.state_dict())

    assert checkpoint_blocks(network) == 3

    assert_equal(gradients(network, *given), before)
    assert list(network.state_dict()) == names
    with torch.no_grad():
        assert not network(*given).requires_grad


@pytest.mark.parametrize("name", OBJECTIVES)
def test_checkpointed_blocks_leave_an_objective_as_it_is(name):
    plain = spoken(build_objective(OBJECTIVES[name]))
    plain.total_images = 100
    recomputed = copy.deepcopy(plain)
    latents, labels = torch.randn(8, 2, 4, 4), torch.arange(8) % 5
    draws = plain.draw(latents)
    for player in plain.players:
        checkpoint_blocks(recomputed.get_submodule(player))
        results = []
        for objective in (plain, recomputed):
            objective.zero_grad()
            terms = objective.terms(player, latents, labels, draws)
            torch.stack([*terms.values()]).sum().backward()
            results.append({n: p.grad for n, p in objective.named_parameters() if p.requires_grad})
        assert_equal(*results)


def kept(depth, is_checkpointed):
    """Returns the bytes that a generator keeps for its backward pass."""
    network = spoken(DiTGenerator(depth=depth, **TINY))
    if is_checkpointed:
        checkpoint_blocks(network)
    latents, labels = inputs(network)
    return saved_bytes(lambda: network(latents, labels), [*network.parameters(), latents, labels])


def test_checkpointed_blocks_keep_their_inputs_only():
    tokens = 3 * 4 * 16 * torch.get_default_dtype().itemsize

    assert kept(6, True) - kept(2, True) == 4 * tokens
    assert kept(6, False) - kept(2, False) > 20 * 4 * tokens


def test_copy_of_checkpointed_blocks_has_weights_of_its_own():
    network = spoken(DiTGenerator(depth=2, **TINY))
    checkpoint_blocks(network)
    twin = copy.deepcopy(network)
    given = inputs(network)
    before = network(*given)

    nn.init.zeros_(twin.blocks[0].mlp.fc2.weight)

    assert not torch.allclose(twin(*given), before)
    assert torch.equal(network(*given), before)


class Block(nn.Module):
    """Unlike the blocks of the library, its signature is not checked in tests."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, tokens):
        return tokens + self.linear(tokens).tanh()


class Stack(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(depth))

    def forward(self, tokens):
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def graphs_of(network, tokens):
    """Compiles the blocks without graph breaks; returns the number of compilations."""
    torch._dynamo.reset()
    before, graphs = gradients(network, tokens), []

    def record(graph, example):
        graphs.append(graph)
        return graph.forward

    compile_blocks(network, backend=record, fullgraph=True)
    after = gradients(network, tokens)
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient)
    return len(graphs)


def test_equal_blocks_share_one_compilation():
    tokens = torch.randn(2, 8, requires_grad=True)

    assert graphs_of(Stack(12), tokens) == 1


def test_blocks_are_compiled_after_a_jvp():
    tokens, directions = torch.randn(2, 8, requires_grad=True), torch.randn(2, 8)
    network = Stack(3)
    exact = ForwardModeJVP()(network, (tokens,), (directions,))
    compiled = copy.deepcopy(network)

    torch._dynamo.reset()
    graphs = []
    compile_blocks(compiled, backend=lambda graph, _: graphs.append(graph) or graph.forward)

    for count in (0, 1):  # Before and after the first ordinary call.
        derivative = ForwardModeJVP()(compiled, (tokens,), (directions,))
        torch.testing.assert_close(derivative, exact)
        assert len(graphs) == count
        torch.testing.assert_close(compiled(tokens), network(tokens))
    assert len(graphs) == 1


def test_network_without_blocks_is_compiled_whole():
    network = Block()

    assert blocks_of(network) == []
    assert graphs_of(network, torch.randn(2, 8, requires_grad=True)) == 1


def test_recomputed_blocks_keep_the_differences_of_a_penalty():
    plain = spoken(DiTDiscriminator(depth=3, **TINY))
    saving = copy.deepcopy(plain)
    checkpoint_blocks(saving)
    latents, labels = torch.randn(6, 2, 4, 4), torch.arange(6) % 5
    found = []
    for network in (plain, saving):
        with LinearDifferences(torch.bfloat16):
            logits = network(latents, labels)
        logits.square().sum().backward()
        found.append([p.grad for p in network.parameters() if p.requires_grad])

    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)
