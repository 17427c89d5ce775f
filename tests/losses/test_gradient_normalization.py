"""Tests for afmlib.losses.gradient_normalization."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from afmlib.losses.gradient_normalization import GradientNormalization

pytestmark = pytest.mark.usefixtures("float64")

seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple)
decays = st.floats(0, 0.99)
scales = st.floats(1e-3, 1e3)


def passed_back(operator, gradient):
    """Returns the rescaled gradient of a loss that is linear in the samples."""
    x = torch.zeros_like(gradient, requires_grad=True)
    operator(x, lambda y: (y * gradient).sum()).backward()
    return x.grad


@given(seeds, shapes)
def test_forward_is_the_loss_and_changes_no_state(seed, shape):
    torch.manual_seed(seed)
    x = torch.randn(shape)
    operator = GradientNormalization()

    assert torch.equal(operator(x, torch.sum), x.sum())
    assert operator.square_avg == 0
    assert operator.num_updates == 0


@given(seeds, shapes, scales, st.floats(-6, 6))
def test_without_smoothing_the_direction_stays_and_the_norm_is_known(seed, shape, scale, exponent):
    torch.manual_seed(seed)
    gradient = torch.randn(shape) + 0.1
    operator = GradientNormalization(decay=0, scale=scale, eps=1e-30)

    made = passed_back(operator, 10**exponent * gradient)

    torch.testing.assert_close(made.norm().item(), scale / math.sqrt(gradient.numel()))
    torch.testing.assert_close(made / made.norm(), gradient / gradient.norm())


@given(seeds, shapes, decays, scales)
def test_it_follows_the_published_recursion(seed, shape, decay, scale):
    torch.manual_seed(seed)
    operator = GradientNormalization(decay=decay, scale=scale)
    average = 0.0

    for gradient in torch.randn(8, *shape):
        made = passed_back(operator, gradient)

        square = sum(value**2 for value in gradient.flatten().tolist()) * gradient.numel()
        average = decay * average + (1 - decay) * square
        torch.testing.assert_close(operator.square_avg.item(), average)
        torch.testing.assert_close(made, scale * gradient / (math.sqrt(average) + 1e-8))


@given(seeds, st.integers(1, 4), st.integers(1, 6))
def test_the_average_does_not_depend_on_the_batch_size(seed, size, repeats):
    torch.manual_seed(seed)
    x, target = torch.randn(2, 3, size)
    averages = []

    for copies in (1, repeats):
        operator = GradientNormalization()
        samples = x.repeat(copies, 1).requires_grad_()
        wanted = target.repeat(copies, 1)
        operator(
            samples, lambda y, wanted=wanted: (y - wanted).square().flatten(1).sum(1).mean()
        ).backward()
        averages.append(operator.square_avg)

    torch.testing.assert_close(averages[0], averages[1])


@given(seeds, decays)
def test_it_reaches_a_constant_gradient_as_one_minus_decay_to_the_step(seed, decay):
    torch.manual_seed(seed)
    gradient = torch.randn(3, 2)
    operator = GradientNormalization(decay=decay)

    for step in range(1, 12):
        passed_back(operator, gradient)

        expected = (1 - decay**step) * 6 * gradient.square().sum()
        torch.testing.assert_close(operator.square_avg, expected)


def test_first_gradients_are_too_large_by_the_published_factors():
    gradient = torch.randn(5, 4)
    operator = GradientNormalization(decay=0.9, scale=1.0)

    factors = [(passed_back(operator, gradient).norm() * math.sqrt(20)).item() for _ in range(25)]

    assert factors[0] == pytest.approx(math.sqrt(10))
    assert [round(factors[i], 2) for i in (0, 1, 2, 9, 24)] == [3.16, 2.29, 1.92, 1.24, 1.04]


@given(seeds, decays, scales)
def test_bias_correction_gives_a_constant_gradient_its_scale_from_the_first_step(
    seed, decay, scale
):
    torch.manual_seed(seed)
    gradient = torch.randn(3, 2)
    operator = GradientNormalization(decay=decay, scale=scale, bias_correction=True)

    for _ in range(5):
        norm = passed_back(operator, gradient).norm().item()
        torch.testing.assert_close(norm, scale / math.sqrt(6), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bias_correction", [False, True])
def test_a_null_gradient_stays_null(bias_correction):
    operator = GradientNormalization(bias_correction=bias_correction)

    for _ in range(3):
        assert torch.equal(passed_back(operator, torch.zeros(2, 3)), torch.zeros(2, 3))
    assert operator.square_avg == 0


@pytest.mark.parametrize("bias_correction", [False, True])
def test_state_is_saved_and_restored(bias_correction):
    gradients = torch.randn(6, 3, 2)
    operator = GradientNormalization(bias_correction=bias_correction)
    for gradient in gradients[:3]:
        passed_back(operator, gradient)
    restored = GradientNormalization(bias_correction=bias_correction)

    restored.load_state_dict(operator.state_dict())

    assert set(operator.state_dict()) == {"square_avg", "num_updates"}
    assert restored.num_updates == 3
    for gradient in gradients[3:]:
        assert torch.equal(passed_back(restored, gradient), passed_back(operator, gradient))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_gradient_that_is_not_finite_becomes_nan_and_is_forgotten(bad):
    good = torch.randn(2, 3)
    poisoned = good.clone()
    poisoned[1, 2] = bad
    operator, untouched = GradientNormalization(), GradientNormalization()
    passed_back(operator, good)
    passed_back(untouched, good)

    assert passed_back(operator, poisoned).isnan().all()

    assert operator.square_avg == untouched.square_avg
    assert operator.num_updates == 1
    assert torch.equal(passed_back(operator, good), passed_back(untouched, good))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_gradients_are_measured_in_full_precision(dtype):
    gradient = torch.full((64, 64), 0.01, dtype=dtype)
    operator = GradientNormalization(decay=0, eps=1e-30)

    made = passed_back(operator, gradient)

    assert made.dtype == dtype
    # n * sum(g^2) = (n g)^2 here.
    expected = (4096 * gradient[0, 0].item()) ** 2
    assert operator.square_avg.item() == pytest.approx(expected, rel=1e-6)
    assert made[0, 0].item() == pytest.approx(1 / 4096, rel=1e-2)


def test_half_precision_state_still_measures_in_full_precision():
    operator = GradientNormalization(decay=0, eps=1e-6).to(torch.bfloat16)

    made = passed_back(operator, torch.full((64, 64), 0.01, dtype=torch.bfloat16))

    assert made[0, 0].item() == pytest.approx(1 / 4096, rel=1e-2)


def test_autocast_does_not_round_the_gradient_of_a_float32_part():
    weight, x = torch.randn(16, 16).float(), torch.randn(3, 16).float()

    def loss(y):
        with torch.autocast("cpu", enabled=False):
            return (y @ weight).square().mean()

    def gradient():
        leaf = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_autocast):
            made = GradientNormalization()(leaf, loss)
        made.backward()
        return leaf.grad

    is_autocast = False
    expected = gradient()
    is_autocast = True

    assert torch.equal(gradient(), expected)


def test_two_uses_before_one_backward_pass_are_two_updates():
    operator = GradientNormalization()
    x = torch.randn(2, 3, requires_grad=True)

    (operator(x, torch.sum) + operator(x, torch.sum)).backward()

    assert operator.num_updates == 2


@given(seeds, st.integers(2, 4), st.integers(1, 3))
def test_micro_batches_are_one_update_with_their_mean_square(seed, count, size):
    torch.manual_seed(seed)
    weights = torch.randn(count, size, 3)
    whole, parts = GradientNormalization(), GradientNormalization()

    expected = passed_back(whole, weights.flatten(0, 1) / count) * count
    parts.begin()
    parts.measure()
    for weight in weights:
        parts(torch.zeros(size, 3), lambda y, w=weight: (y * w).sum())
    parts.replay()
    found = [passed_back(parts, weight) for weight in weights]

    torch.testing.assert_close(torch.cat(found), expected)
    torch.testing.assert_close(parts.square_avg, whole.square_avg)
    assert parts.num_updates == 1


def test_rollback_restores_the_state_at_begin():
    operator = GradientNormalization()
    passed_back(operator, torch.randn(2, 3))
    before = {name: value.clone() for name, value in operator.state_dict().items()}

    operator.begin()
    operator.measure()
    operator(torch.randn(2, 3), torch.sum)
    operator.replay()
    assert operator.num_updates == 2
    operator.rollback()

    assert all(torch.equal(value, before[name]) for name, value in operator.state_dict().items())
    passed_back(operator, torch.randn(2, 3))  # Nothing collected is left.
    assert operator.num_updates == 2


@pytest.mark.parametrize(
    "arguments",
    [dict(decay=-0.1), dict(decay=1.0), dict(scale=0.0), dict(eps=0.0), dict(eps=float("nan"))],
)
def test_arguments_have_domains(arguments):
    with pytest.raises(ValueError, match="must be"):
        GradientNormalization(**arguments)


def test_representation_shows_the_settings():
    text = repr(GradientNormalization(scale=2.0, bias_correction=True))

    assert text == "GradientNormalization(decay=0.9, scale=2, bias_correction=True)"
