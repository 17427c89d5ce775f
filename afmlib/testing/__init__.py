"""Conformance checks for components, one per interface.

Each check takes a built component and tries it on small random inputs. It raises an
``AssertionError`` that names the class and the broken contract. A component that passes works with
the objectives, the engine and the benchmarks. So the test of a plugin has three lines:

    from afmlib.testing import check_adversarial_loss

    def test_contract():
        check_adversarial_loss(SmoothHingeLoss())

The component is not changed, since networks are copied.
"""

__all__ = [
    "check_adversarial_loss",
    "check_attention_backend",
    "check_augmentation",
    "check_autoencoder",
    "check_classifier",
    "check_dataset",
    "check_depth_wrapper",
    "check_directional_derivative",
    "check_discretization",
    "check_discriminator",
    "check_feature_extractor",
    "check_generator",
    "check_gradient_penalty",
    "check_guidance",
    "check_metric",
    "check_objective",
    "check_parameterization",
    "check_regularizer",
    "check_repeatable_generator",
    "check_schedule",
    "check_transport_field",
]

from afmlib.testing.attention import check_attention_backend
from afmlib.testing.data import check_autoencoder, check_dataset
from afmlib.testing.derivatives import check_directional_derivative
from afmlib.testing.flow import check_discretization, check_parameterization, check_schedule
from afmlib.testing.losses import (
    check_adversarial_loss,
    check_gradient_penalty,
    check_regularizer,
    check_transport_field,
)
from afmlib.testing.metrics import check_feature_extractor, check_metric
from afmlib.testing.networks import (
    check_classifier,
    check_depth_wrapper,
    check_discriminator,
    check_generator,
    check_repeatable_generator,
)
from afmlib.testing.objectives import check_objective
from afmlib.testing.steering import check_augmentation, check_guidance
