"""Checks of losses: adversarial losses, gradient penalties and regularizers."""

__all__ = [
    "check_adversarial_loss",
    "check_gradient_penalty",
    "check_regularizer",
    "check_transport_field",
]

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from afmlib.interfaces import (
    AdversarialLoss,
    Generated,
    GradientPenalty,
    Regularizer,
    TransportField,
)
from afmlib.testing.attention import CAPABILITIES
from afmlib.testing.contract import (
    no_global_draws,
    promise,
    require,
    require_close,
    require_instance,
    stream,
)
from afmlib.typing import Critic, Latents, Logits, PerSample

LARGE = 1e4
"""A logit of a diverged critic."""

SHAPE = (6, 2, 3, 3)


# --- Adversarial losses ---------------------------------------------------------------------------


def check_adversarial_loss(loss: AdversarialLoss) -> None:
    """Checks an adversarial loss.

    It must return one value per pair of logits. Values and gradients must be finite for large
    logits, and must not depend on the order of the pairs. Larger logits mean more real: the
    discriminator loss must be lower if the real sample scores higher, the generator loss if the
    generated one does. If ``won_at_zero``, the discriminator loss must be positive and fall to 0 as
    the logits separate.

    Args:
        loss: The loss.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(loss, AdversarialLoss)
    for name, method in (
        ("discriminator_loss", loss.discriminator_loss),
        ("generator_loss", loss.generator_loss),
    ):
        for dtype in (torch.float32, torch.float64):
            _check_values(loss, name, method, dtype)
        _check_large_logits(loss, name, method)
        _check_order_of_pairs(loss, name, method)
    _check_preferences(loss)
    if loss.won_at_zero:
        _check_victory(loss)


LossMethod: TypeAlias = Callable[[Logits, Logits], PerSample]


def _check_values(loss: AdversarialLoss, name: str, method: LossMethod, dtype: torch.dtype) -> None:
    logits = torch.randn(2, 5, generator=stream(0)).to(dtype)
    contract = f"{name} returns one value per sample, in the dtype of the logits"
    with promise(loss, contract):
        values = method(*logits)
    kept = isinstance(values, Tensor) and values.shape == (5,) and values.dtype == dtype
    require(kept, loss, contract, f"for 5 pairs it returned {values!r}")
    require(torch.equal(values, method(*logits)), loss, f"{name} draws no random numbers")


def _check_large_logits(loss: AdversarialLoss, name: str, method: LossMethod) -> None:
    contract = f"{name} and its gradient are finite for logits of +-{LARGE:g}"
    grid = torch.tensor([-LARGE, 0.0, LARGE])
    real, fake = (x.flatten().requires_grad_() for x in torch.meshgrid(grid, grid, indexing="ij"))
    with promise(loss, contract):
        values = method(real, fake)
        gradients = torch.autograd.grad(values.sum(), (real, fake), allow_unused=True)
    for result in (values, *gradients):
        require(result is None or bool(result.isfinite().all()), loss, contract)
    contract = f"{name} can be differentiated with respect to the logits"
    require(any(gradient is not None for gradient in gradients), loss, contract)


def _check_order_of_pairs(loss: AdversarialLoss, name: str, method: LossMethod) -> None:
    real, fake = 3 * torch.randn(2, 7, generator=stream(1), dtype=torch.float64)
    order = torch.randperm(7, generator=stream(2))
    contract = f"{name} does not depend on the order of the pairs"
    require_close(method(real[order], fake[order]), method(real, fake)[order], loss, contract)


def _check_preferences(loss: AdversarialLoss) -> None:
    # Losses that regress the logits rise again beyond their targets, so test between 0 and 1.
    low, high = torch.tensor([0.0, 0.25, 0.5, 0.75]), torch.tensor([0.25, 0.5, 0.75, 1.0])
    paid, earned = loss.discriminator_loss, loss.generator_loss
    falls = "falls as the logit of the real sample rises"
    kept = bool((paid(high, low) <= paid(low, low)).all())
    require(kept, loss, f"discriminator_loss {falls}, since a larger logit means more real")
    kept = bool((paid(low, high) >= paid(low, low)).all())
    require(kept, loss, "discriminator_loss rises as the logit of the generated sample rises")
    for small, large in ((low, high), (-10 * high, 10 * high)):
        kept = bool((paid(large, small) < paid(small, large)).all())
        require(
            kept, loss, "discriminator_loss is lower if the real sample of a pair scores higher"
        )
    kept = bool((earned(low, high) < earned(low, low)).all())
    require(kept, loss, "generator_loss falls as the logit of the generated sample rises")


def _check_victory(loss: AdversarialLoss) -> None:
    logits = torch.tensor([0.0, 0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64)
    values = loss.discriminator_loss(logits, -logits)
    contract = "if won_at_zero, discriminator_loss falls to 0 as the logits separate"
    falling = bool((values > 0).all() and (values.diff() < 0).all())
    require(falling, loss, contract, f"for {logits.tolist()} it is {values.tolist()}")
    far = torch.full((1,), LARGE, dtype=torch.float64)
    require(abs(loss.discriminator_loss(far, -far).item()) < 1e-6, loss, contract)


# --- Gradient penalties ---------------------------------------------------------------------------


class _ToyCritic(nn.Module):
    """An affine critic, whose slope is its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(SHAPE[1:], generator=stream(3)))
        self.bias = nn.Parameter(torch.ones(()))

    def forward(self, latents: Latents) -> Logits:
        return (latents * self.weight).flatten(1).sum(1) + self.bias


def check_gradient_penalty(penalty: GradientPenalty) -> None:
    """Checks a gradient penalty.

    It must return one value per sample that is not negative, is zero for a constant critic, is
    quadratic in the slope, and does not depend on the other samples. It must train the critic.

    Args:
        penalty: The penalty.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(penalty, GradientPenalty)
    unknown = sorted(set(penalty.requires) - set(CAPABILITIES))
    known = f"requires names capabilities of attention: {', '.join(CAPABILITIES)}"
    require(not unknown, penalty, known, f"it names {', '.join(unknown)}")
    critic = _ToyCritic()
    latents, noises = torch.randn(2, *SHAPE, generator=stream(4)).unbind()
    contract = "a gradient penalty returns one value per sample"
    with promise(penalty, contract):
        values = penalty(critic, latents, critic(latents), noises)
    kept = isinstance(values, Tensor) and values.shape == SHAPE[:1]
    require(kept, penalty, contract, f"for {SHAPE[0]} samples it returned {values!r}")
    contract = "a squared slope is not negative"
    mirrored = penalty(lambda x: -critic(x), latents, -critic(latents), noises)
    require(bool((values >= 0).all() and (mirrored >= 0).all()), penalty, contract)
    require(bool(values.any()), penalty, "the penalty of a critic with a slope is positive")
    _check_training(penalty, critic, values)
    _check_slopes(penalty, critic, latents, noises)
    _check_neighbors(penalty, latents, noises)
    _check_probes(penalty, critic, latents, noises)


def _check_training(penalty: GradientPenalty, critic: _ToyCritic, values: PerSample) -> None:
    contract = "a gradient penalty trains the critic"
    with promise(penalty, contract):
        torch.autograd.backward(values.mean())
    gradient = critic.weight.grad
    trained = gradient is not None and bool(gradient.isfinite().all() and gradient.any())
    require(trained, penalty, contract)


def _check_slopes(
    penalty: GradientPenalty, critic: _ToyCritic, latents: Latents, noises: Latents
) -> None:
    def constant(x: Latents) -> Logits:
        return 0 * critic(x) + 3

    def steeper(x: Latents) -> Logits:
        return 2 * critic(x) - 7

    flat = penalty(constant, latents, constant(latents), noises)
    require(not flat.any(), penalty, "the penalty of a constant critic is zero")
    critic, latents, noises = critic.double(), latents.double(), noises.double()
    values = penalty(critic, latents, critic(latents), noises)
    contract = "a penalty measures the squared slope: twice the slope costs four times as much"
    steep = penalty(steeper, latents, steeper(latents), noises)
    require_close(steep, 4 * values, penalty, contract)


def _check_probes(
    penalty: GradientPenalty, critic: _ToyCritic, latents: Latents, noises: Latents
) -> None:
    probes = penalty.probes(latents, noises)
    if probes is None:
        return
    seen: list[Latents] = []

    def recorded(x: Latents) -> Logits:
        seen.append(x)
        return critic(x)

    contract = "probes returns the points of the only call of the critic, one per sample"
    penalty(recorded, latents, critic(latents), noises)
    require(len(seen) == 1 and seen[0].shape == probes.shape == latents.shape, penalty, contract)
    require_close(seen[0], probes, penalty, contract)


def _check_neighbors(penalty: GradientPenalty, latents: Latents, noises: Latents) -> None:
    critic: Critic = lambda x: x.sin().flatten(1).sum(1)  # noqa: E731
    latents, noises = latents.double(), noises.double()
    whole = penalty(critic, latents, critic(latents), noises)
    parts = [
        penalty(critic, one, critic(one), noise)
        for one, noise in zip(torch.split(latents, 1), torch.split(noises, 1), strict=True)
    ]
    contract = "the penalty of a sample does not depend on the others"
    require_close(torch.cat(parts), whole, penalty, contract)


# --- Regularizers ---------------------------------------------------------------------------------


def check_regularizer(
    regularizer: Regularizer, latent_shape: Sequence[int] = (1, 8, 8), num_classes: int = 10
) -> None:
    """Checks a term on the generator's samples.

    It must return one finite value per sample, draw no random numbers, treat each sample by itself,
    and have a finite gradient with respect to the samples.

    Args:
        regularizer: The term.
        latent_shape: The shape of one sample.
        num_classes: The number of classes.

    Raises:
        AssertionError: If it breaks its contract. The message names the class and the contract.
    """
    require_instance(regularizer, Regularizer)
    numbers = stream(0)
    samples, sources, latents = torch.randn(3, 4, *latent_shape, generator=numbers)
    samples.requires_grad_()
    labels = torch.randint(num_classes, (4,), generator=numbers)
    times = torch.linspace(0.25, 1, 4)
    batch = (samples, sources, latents, labels, times, times / 2)

    contract = "a regularizer returns one finite value per sample"
    with promise(regularizer, contract), no_global_draws(regularizer, "it draws no random numbers"):
        values = regularizer(Generated(*batch))
    kept = isinstance(values, Tensor) and values.shape == (4,) and bool(values.isfinite().all())
    require(kept, regularizer, contract, f"for 4 samples it returned {values!r}")
    order = torch.tensor([2, 0, 3, 1])
    shuffled = regularizer(Generated(*(rows[order] for rows in batch)))
    contract = "a regularizer treats each sample by itself"
    require_close(shuffled, values[order], regularizer, contract)
    single = [regularizer(Generated(*(rows[[i]] for rows in batch))) for i in range(4)]
    require_close(torch.cat(single), values, regularizer, contract)
    contract = "a regularizer has a finite gradient with respect to the samples"
    with promise(regularizer, contract):
        (gradient,) = torch.autograd.grad(values.sum(), samples)
    require(bool(gradient.isfinite().all() and gradient.any()), regularizer, contract)


# --- Transport fields -----------------------------------------------------------------------------


def check_transport_field(field: TransportField) -> None:
    """Checks a transport field.

    Displacements have the shape of the generated features, are finite, draw no random numbers, and
    move with the order of the generated features. They do not depend on the order of the real ones,
    nor on the origin.

    Args:
        field: The field.

    Raises:
        AssertionError: Names the class and the broken part of its contract.
    """
    require_instance(field, TransportField)
    numbers = stream(0)
    shapes = ((2, 5, 3), (2, 6, 3), (4, 3), (2, 5))
    generated, positives, negatives, guidance = (
        torch.randn(shape, generator=numbers, dtype=torch.float64) for shape in shapes
    )
    guidance = 1 + guidance.abs()
    contract = "it returns a scale, displacements and a force, all finite"
    with promise(field, contract), no_global_draws(field, "it draws no random numbers"):
        scale, moved, force = field(generated, positives, negatives, guidance)
    kept = scale.ndim == force.ndim == 0 and moved.shape == generated.shape
    kept = kept and all(bool(value.isfinite().all()) for value in (scale, moved, force))
    require(kept, field, contract)
    order = torch.tensor([3, 0, 4, 1, 2])
    again = field(generated[:, order], positives, negatives, guidance[:, order])[1]
    contract = "displacements move with the order of the generated features"
    require_close(again, moved[:, order], field, contract, 1e-9)
    again = field(generated, positives.flip(1), negatives.flip(0), guidance)[1]
    require_close(again, moved, field, "the order of the real features does not matter", 1e-9)
    again = field(generated + 2, positives + 2, negatives + 2, guidance)[1]
    require_close(again, moved, field, "the origin of the features does not matter", 1e-9)
    same = generated[:, :1].expand(-1, 5, -1)
    contract = "features that are all equal give finite displacements"
    require(bool(field(same, same, same[0], guidance)[1].isfinite().all()), field, contract)
