"""Tests for afmlib.testing.objectives: each broken promise of an objective is noticed and named."""

import copy
import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from afmlib.networks.mlp import MLPDiscriminator, MLPGenerator
from afmlib.nn.frozen import frozen
from afmlib.objectives.adversarial_flow import AdversarialFlow
from afmlib.testing import check_objective

SIZES = dict(in_channels=2, hidden_size=8, depth=1, num_classes=2)


def build(cls, **arguments):
    return cls(MLPGenerator(**SIZES), MLPDiscriminator(**SIZES), **arguments)


class ReturnsATuple(AdversarialFlow):
    def draw(self, latents, generator=None):
        return dataclasses.astuple(super().draw(latents, generator))


@dataclass
class Nested:
    inner: list[Tensor]


class DrawsAList(AdversarialFlow):
    def draw(self, latents, generator=None):
        return Nested([torch.randn(latents.shape, generator=generator)])


class DrawsGlobally(AdversarialFlow):
    def draw(self, latents, generator=None):
        return super().draw(latents, None)


class DrawsConstants(AdversarialFlow):
    def draw(self, latents, generator=None):
        return super().draw(latents, torch.Generator().manual_seed(0))


class DrawsTooMuch(AdversarialFlow):
    def draw(self, latents, generator=None):
        draws = super().draw(latents, generator)
        draws.noises_cg = torch.randn(99, 2, generator=generator)
        return draws


class DrawsPastTheSource(AdversarialFlow):
    def draw(self, latents, generator=None):
        draws = super().draw(latents, generator)
        draws.noises_src = torch.randn(latents.shape, generator=generator)
        return draws


class DrawsByTheBatch(AdversarialFlow):
    def draw(self, latents, generator=None):
        draws = super().draw(latents, generator)
        draws.noises_src = draws.noises_src.flip(0)
        return draws


class MixesTheBatch(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        terms = super().generator_terms(latents, labels, draws)
        return terms | {"transport": terms["transport"].square()}


class LosesATermOfSmallBatches(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        terms = super().generator_terms(latents, labels, draws)
        if len(latents) < 10:
            del terms["transport"]
        return terms


class NormalizesEachMicroBatch(AdversarialFlow):
    def batch_statistics(self, player):
        return ()


class NoisyTerms(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        return super().generator_terms(latents + torch.randn_like(latents), labels, draws)


class CountsItsCalls(AdversarialFlow):
    calls = 0

    def generator_terms(self, latents, labels, draws):
        self.calls += 1
        terms = super().generator_terms(latents, labels, draws)
        return terms | {"transport": self.calls * terms["transport"]}


class PerSampleTerms(AdversarialFlow):
    def terms(self, player, latents, labels, draws):
        terms = super().terms(player, latents, labels, draws)
        if player == "generator":
            terms["adversarial"] = self.generator(latents, labels).square().sum(1)
        return terms


class HasNoTerms(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        return {}


class Infinite(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        terms = super().generator_terms(latents, labels, draws)
        return terms | {"transport": terms["transport"] / 0}


class TrainsTheOther(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        samples = self.generator(latents, labels)
        return {"adversarial": -self.discriminator(samples, labels).mean()}


class TrainsNobody(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        with torch.no_grad():
            samples = self.generator(latents, labels)
        samples.requires_grad_()
        with frozen(self.discriminator):
            return {"adversarial": -self.discriminator(samples, labels).mean()}


class Thaws(AdversarialFlow):
    def generator_terms(self, latents, labels, draws):
        self.generator_ema.requires_grad_(True)
        return super().generator_terms(latents, labels, draws)


class TrainsItsAverage(AdversarialFlow):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator_ema.requires_grad_(True)


class SharesItsAverage(AdversarialFlow):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.generator.y_embedder.embedding_table.weight.requires_grad_(False)
        self.generator_ema.y_embedder = self.generator.y_embedder


class SamplesTheOnlineOne(AdversarialFlow):
    @property
    def sample_model(self):
        model = copy.copy(super().sample_model)
        model.generator = self.generator
        return model


class NamesAnotherPlayer(AdversarialFlow):
    players = {"critic": 1, "generator": 1}  # noqa: RUF012


@pytest.mark.parametrize(
    ("broken", "contract"),
    [
        (ReturnsATuple, "draw returns a flat dataclass of tensors; it is tuple"),
        (DrawsAList, "draw returns a flat dataclass of tensors; inner is list"),
        (DrawsGlobally, "draw uses the generator that it is given; it used the global random"),
        (DrawsConstants, "draw uses the generator that it is given$"),
        (DrawsTooMuch, "at most one row per sample; noises_cg has shape"),
        (DrawsPastTheSource, "draw takes its numbers from the functions of afmlib.ops.drawing"),
        (DrawsByTheBatch, "draws of a row do not depend on the other rows; noises_src differs"),
        (
            MixesTheBatch,
            "two micro-batches give the 'generator' the gradient of the whole batch",
        ),
        (LosesATermOfSmallBatches, "two micro-batches give the 'generator' the terms of the whole"),
        (NormalizesEachMicroBatch, "two micro-batches give the 'generator' the gradient of the wh"),
        (NoisyTerms, "terms of 'generator' are a function of the batch and the draws; it used"),
        (CountsItsCalls, "terms of 'generator' repeat bit for bit"),
        (PerSampleTerms, "terms of 'generator' are finite scalars, at least one; adversarial is"),
        (HasNoTerms, "terms of 'generator' are finite scalars, at least one; {}"),
        (Infinite, "terms of 'generator' are finite scalars, at least one; transport is"),
        (TrainsTheOther, "reaches only that player; it reached discriminator"),
        (TrainsNobody, "reaches only that player; it reached nothing"),
        (Thaws, "leaves every parameter as trainable as it was"),
        (TrainsItsAverage, "generator_ema is frozen"),
        (SharesItsAverage, "shares no tensors with the generator"),
        (SamplesTheOnlineOne, "sample_model holds generator_ema"),
        (NamesAnotherPlayer, "'critic' is not one of generator"),
    ],
)
def test_broken_objective_is_named(broken, contract):
    with pytest.raises(AssertionError, match=f"(?s)^{broken.__name__}: .*{contract}"):
        check_objective(build(broken))


def test_check_changes_nothing():
    objective = build(AdversarialFlow)
    before = copy.deepcopy(objective.state_dict())

    check_objective(objective)

    assert all(torch.equal(before[name], value) for name, value in objective.state_dict().items())
    assert objective.num_images == 0
    assert objective.total_images is None


def test_unknown_shape_raises():
    objective = build(AdversarialFlow)
    objective.generator.latent_shape = None

    check_objective(objective, latent_shape=(2,))
    with pytest.raises(ValueError, match="declares no latent_shape: give one"):
        check_objective(objective)
