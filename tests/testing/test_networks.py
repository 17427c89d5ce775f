"""Tests for afmlib.testing.networks: each broken promise of a network is noticed and named."""

import copy

import pytest
import torch
from torch import nn

from afmlib.interfaces import Classifier, DepthWrapper, Discriminator, Generator
from afmlib.networks.dit import DiTGenerator
from afmlib.networks.repeat import RepeatDepth
from afmlib.testing import (
    check_classifier,
    check_depth_wrapper,
    check_discriminator,
    check_generator,
    check_repeatable_generator,
)

WIDTH = 4
DIT = dict(
    input_size=4,
    in_channels=2,
    hidden_size=16,
    depth=2,
    num_heads=2,
    num_classes=3,
    use_timestep_src=True,
)


class Good(Discriminator):
    """A discriminator that keeps its promises, to be broken one by one."""

    def __init__(self):
        super().__init__()
        self.features = nn.Linear(WIDTH, 8)
        self.labels = nn.Embedding(3, 8)
        self.head = nn.Linear(8, 1)

    def hidden(self, latents, labels):
        return torch.tanh(self.features(latents) + self.labels(labels))

    def forward(self, latents, labels, timesteps=None):
        return self.head(self.hidden(latents, labels)).squeeze(1)


class TwoDimensional(Good):
    def forward(self, latents, labels, timesteps=None):
        return self.head(self.hidden(latents, labels))


class SinglePrecision(Good):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents.float(), labels).float()


class RoundedToHalf(Good):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels).half()


class UsesATimeThatItDenies(Good):
    def forward(self, latents, labels, timesteps=None):
        logits = super().forward(latents, labels)
        return logits if timesteps is None else logits + timesteps


class IgnoresATimeThatItClaims(Good):
    embeds_timestep = True


class BatchNormalized(Good):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def hidden(self, latents, labels):
        return self.norm(super().hidden(latents, labels))


class AveragesTheBatch(Good):
    def hidden(self, latents, labels):
        hidden = super().hidden(latents, labels)
        return hidden - hidden.mean(0)


class Timeless(Good):
    def forward(self, latents, labels):
        return super().forward(latents, labels)


class DemandsTime(Good):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels) + timesteps.cos()


class Blind(Good):
    def hidden(self, latents, labels):
        return super().hidden(torch.zeros_like(latents), labels)


class CutsTheGradient(Good):
    def forward(self, latents, labels, timesteps=None):
        hidden = super().hidden(latents, labels)
        return self.head(hidden.detach()).squeeze(1) + latents.sum(1)


class DropsInEvaluation(Good):
    def hidden(self, latents, labels):
        return nn.functional.dropout(super().hidden(latents, labels), 0.5, training=True)


class CountsItsCalls(Good):
    calls = 0

    def forward(self, latents, labels, timesteps=None):
        self.calls += 1
        return super().forward(latents, labels) * self.calls


def forget_scale(module, state, prefix, metadata):
    del state[f"{prefix}scale"]


class ForgetsAWeight(Good):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_state_dict_post_hook(forget_scale)

    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels) * self.scale


class TiesWeights(Good):
    def __init__(self):
        super().__init__()
        self.more = nn.Linear(WIDTH, 8)
        self.more.weight = self.features.weight

    def hidden(self, latents, labels):
        return super().hidden(latents, labels) + self.more(latents)


class CannotBeCopied(Good):
    def __deepcopy__(self, memo):
        raise RuntimeError("no copies")


class SharesItsWeights(Good):
    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.features = self.features
        return twin


class ChangesItsInput(Good):
    def hidden(self, latents, labels):
        with torch.no_grad():
            latents.mul_(0.5)
        return super().hidden(latents, labels)


class Infinite(Good):
    def forward(self, latents, labels, timesteps=None):
        return super().forward(latents, labels) / 0


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (TwoDimensional, "returns one logit per sample; .* it returned \\(4, 1\\)"),
        (SinglePrecision, "works in float64"),
        (RoundedToHalf, "has the dtype of the latents"),
        (UsesATimeThatItDenies, "does not claim to be conditioned on timesteps ignores them"),
        (IgnoresATimeThatItClaims, "claims to be conditioned on timesteps depends on them"),
        (BatchNormalized, "samples of a batch are independent of each other, in training mode too"),
        (AveragesTheBatch, "samples of a batch are independent of each other"),
        (Timeless, "returns one logit per sample; it raised TypeError"),
        (DemandsTime, "a missing time is ignored, or raises a ValueError"),
        (Blind, "depends on the latents, differentiably"),
        (CutsTheGradient, "every trainable parameter, and are finite; that of features.weight"),
        (DropsInEvaluation, "in evaluation mode, a network returns the same"),
        (CountsItsCalls, "in evaluation mode, a network returns the same"),
        (ForgetsAWeight, "the state dict holds everything that the output depends on"),
        (TiesWeights, "safetensors does not support"),
        (CannotBeCopied, "can be copied by copy.deepcopy.*no copies"),
        (SharesItsWeights, "the copy shares tensors"),
        (ChangesItsInput, "does not change its latents"),
        (Infinite, "finite"),
    ],
)
def test_broken_discriminator_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_discriminator(broken(), (WIDTH,), 3)


def test_check_leaves_the_network_as_it_was():
    network = Good().eval()
    before = copy.deepcopy(network.state_dict())

    check_discriminator(network, (WIDTH,), 3)

    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_spectral_norm_and_dropout_pass():
    network = Good()
    network.features = nn.Sequential(
        nn.utils.parametrizations.spectral_norm(network.features), nn.Dropout(0.5)
    )

    check_discriminator(network, (WIDTH,), 3)


@pytest.mark.parametrize(
    ("check", "interface"),
    [
        (check_generator, "Generator"),
        (check_repeatable_generator, "RepeatableGenerator"),
        (check_depth_wrapper, "DepthWrapper"),
        (lambda net: check_discriminator(net, (WIDTH,)), "Discriminator"),
        (lambda net: check_classifier(net, (WIDTH,), 3), "Classifier"),
    ],
)
def test_wrong_interface_raises(check, interface):
    with pytest.raises(AssertionError, match=f"^Linear: .* afmlib.interfaces.{interface}$"):
        check(nn.Linear(WIDTH, 1))


class Residual(Generator):
    latent_shape = (WIDTH,)

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return latents + self.layer(latents)


class ReturnsAnotherShape(Residual):
    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return super().forward(latents, labels)[:, 1:]


class UsesATargetThatItDenies(Residual):
    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        made = super().forward(latents, labels)
        return made if timesteps_tgt is None else made + timesteps_tgt[:, None]


class IgnoresASourceThatItClaims(Residual):
    embeds_timestep_src = True


class RefusesTheTarget(Residual):
    def forward(self, latents, labels, timesteps_src=None):
        return super().forward(latents, labels)


class FailsOnTheLastLabel(Residual):
    num_classes = 5

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, WIDTH)

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return super().forward(latents, labels) + self.table(labels)


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (UsesATargetThatItDenies, "not claim to be conditioned on timesteps_tgt ignores them"),
        (IgnoresASourceThatItClaims, "claims to be conditioned on timesteps_src depends on them"),
        (ReturnsAnotherShape, "latents of the given shape; .* it returned \\(4, 3\\)"),
        (RefusesTheTarget, "latents of the given shape; it raised TypeError"),
        (FailsOnTheLastLabel, "it raised IndexError"),
    ],
)
def test_broken_generator_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_generator(broken())


def test_null_class_is_checked():
    class HasNoNullClass(FailsOnTheLastLabel):
        num_classes = 4
        class_dropout_prob = 0.1

    with pytest.raises(AssertionError, match="IndexError"):
        check_generator(HasNoNullClass())


def test_declared_shape_must_match():
    with pytest.raises(AssertionError, match=r"it is \(4,\), and the check was given \(3,\)"):
        check_generator(Residual(), (3,))


def test_unknown_shape_is_asked_for():
    generator = Residual()
    generator.latent_shape = None

    check_generator(generator, (WIDTH,))
    with pytest.raises(ValueError, match="Residual declares no latent_shape: give one"):
        check_generator(generator)


class SmallDiT(DiTGenerator):
    """Works as a whole, whatever becomes of its parts."""

    def __init__(self):
        super().__init__(**DIT | dict(use_timestep_src=False))

    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        tokens, condition = DiTGenerator.embed(self, latents, labels)
        for block in self.blocks:
            tokens = block(tokens, condition)
        return DiTGenerator.head(self, tokens, condition)


@pytest.mark.parametrize(
    ("name", "method", "contract"),
    [
        ("run_block", lambda self, index, x, c: x[:, 1:], "keeps the shape of the tokens"),
        ("run_block", lambda self, index, x, c: x + 1, "the blocks in turn"),
        ("head", lambda self, x, c: x, "head turns the tokens into latents"),
        ("embed_time", lambda self, value: torch.ones(7), "added to the condition"),
        (
            "embed_time",
            lambda self, value: torch.as_tensor(value).cumsum(0).reshape(-1, 1).expand(-1, 16),
            "equals that of an entry",
        ),
        ("num_blocks", 0, "at least 1"),
    ],
)
def test_broken_repeatable_generator_is_named(name, method, contract):
    broken = type("Broken", (SmallDiT,), {name: method})

    with pytest.raises(AssertionError, match=contract):
        check_repeatable_generator(broken())


class RunsOnce(DepthWrapper):
    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        return self.generator(latents, labels, latents.new_ones(len(latents)))


class UsesTheTime(RepeatDepth):
    def forward(self, latents, labels, timesteps_src=None, timesteps_tgt=None):
        made = super().forward(latents, labels)
        return made if timesteps_src is None else made + timesteps_src[:, None, None, None]


class ClaimsToUseTheTime(UsesTheTime):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.embeds_timestep_src = True


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (RunsOnce, r"runs 2 times; .* \{0: 1, 1: 1\}"),
        (UsesTheTime, "not claim to be conditioned on timesteps_src"),
        (ClaimsToUseTheTime, "a one-step model, and is not conditioned"),
    ],
)
def test_broken_depth_wrapper_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"^{broken.__name__}: .*{contract}"):
        check_depth_wrapper(broken(2, DiTGenerator(**DIT)))


def test_depth_wrapper_copies_declarations():
    wrapper = RepeatDepth(2, DiTGenerator(**DIT))
    wrapper.num_classes = 2

    with pytest.raises(AssertionError, match="are those of the generator"):
        check_depth_wrapper(wrapper)


def test_classifier_has_one_logit_per_class():
    class TooFew(Classifier):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(WIDTH, 2)

        def forward(self, latents, timesteps):
            return self.layer(latents)

    check_classifier(TooFew(), (WIDTH,), 2)
    with pytest.raises(AssertionError, match="one logit per sample and class"):
        check_classifier(TooFew(), (WIDTH,), 3)
