"""``afmlib check``: runs the conformance checks on the components of a plugin file."""

__all__ = ["HELP", "add_arguments", "run"]

import contextlib
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import ArgumentParser

from afmlib.cli.options import add_common
from afmlib.terminal import say

HELP = "Check the components of a plugin file."

CLASSES = 10
SHAPE = (1, 8, 8)
"""The shape of a sample, equal to that of the digits."""

SMALL = dict(
    input_size=8,
    in_channels=1,
    num_classes=CLASSES,
    patch_size=2,
    hidden_size=32,
    width=32,
    depth=2,
    num_heads=2,
    repeats=2,
)
"""Arguments that are filled in where a component takes them."""

STAND_INS: dict[str, Any] = {
    "generators": "DiTGenerator",
    "discriminators": "DiTDiscriminator",
    "classifiers": "DiTClassifier",
    "losses": "RelativisticLoss",
    "penalties": "AutogradPenalty",
    "derivatives": "ForwardModeJVP",
    "schedules": {"type": "ConstantSchedule", "value": 0.5},
    "discretizations": "DoublingGrid",
    "fields": "Drift",
    "parameterizations": "SamplePrediction",
    "augmentations": "PairedAugmentation",
    "datasets": "Digits",
}
"""Group -> the component that fills an argument without a default."""

TIMES: tuple[dict[str, Any], ...] = (
    dict(use_timestep_src=True, use_timestep_tgt=True, use_timestep=True, time_scale=1.0),
    dict(use_timestep_src=True, use_timestep=True, time_scale=1.0),
    {},
)
"""Conditions of the networks of an objective, which are tried in turn."""


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "file", type=str, help="a Python file that registers components, with the decorators"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME.ARG=VALUE",
        help="an argument of a component, such as MyLoss.margin=0.5; may be repeated",
    )
    add_common(parser)


def run(options: Any) -> int:
    """Prints one line per component; the exit status is 1 if one breaks its contract."""
    from afmlib.registry import REGISTRIES, load_plugin_file
    from afmlib.registry.plugin_files import plugin_module
    from afmlib.testing.contract import record_checks

    for plugin in options.plugin:
        load_plugin_file(plugin)
    before = {group: set(registry.registered) for group, registry in REGISTRIES.items()}
    load_plugin_file(options.file)
    module = plugin_module(options.file)
    found = [
        (registry, name)
        for group, registry in REGISTRIES.items()
        for name, cls in registry.registered.items()
        if name not in before[group] or cls.__module__ == module
    ]
    if not found:
        raise ValueError(
            f"{options.file} registers no component: use a decorator such as "
            "@LOSSES.register_module()."
        )
    specs = _specs([(registry.group, name) for registry, name in found], options.set)
    status = 0
    for registry, name in found:
        with record_checks() as checks:
            try:
                _check(registry.group, _build(registry, specs[name]))
                line = f"ok ({len(checks)} checks)" if checks else "built; this group has no checks"
            except Exception as error:  # A plugin may raise anything.
                status = 1
                if options.debug:
                    traceback.print_exc()
                line = str(error).removeprefix(f"{registry.get(name).__name__}: ")
                if not isinstance(error, _NotBuiltError):
                    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
                    line = f"broken: {kind}{line}"
        say(f"{name}: {' '.join(line.split())}")
    return status


def _specs(names: list[tuple[str, str]], overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Returns the spec of each component with the arguments of ``--set``."""
    from afmlib.config.compose import apply_override
    from afmlib.registry import nearest

    specs: dict[str, dict[str, Any]] = {name: {"type": name} for _, name in names}
    groups = {name: group for group, name in names}
    for override in overrides:
        name, dot, rest = override.partition(".")
        if name not in specs or not dot:
            raise ValueError(
                f"--set is NAME.ARG=VALUE with a component of the file, got {override!r}."
                f"{nearest(name, specs)} Available: {', '.join(specs)}."
            )
        key = {"objectives": "objective", "datasets": "data"}.get(groups[name], name)
        specs[name] = apply_override({key: specs[name]}, f"{key}.{rest}")[key]
    return specs


class _NotBuiltError(Exception):
    """A component that needs more arguments."""


def _build(registry: Any, spec: Mapping[str, Any]) -> Any:
    """Builds a component from its spec and small defaults."""
    from afmlib.registry.arguments import parameters

    name = spec["type"]
    takes = ", ".join(parameters(registry.get(name))) or "nothing"
    problem: Exception | None = None
    for times in TIMES if registry.group == "objectives" else ({},):
        try:
            return registry.build(_filled(registry, spec, times))
        except Exception as error:  # A plugin may raise anything.
            problem = error
    raise _NotBuiltError(
        f"cannot be built: {problem} Give arguments with --set {name}.ARG=VALUE. It takes: {takes}."
    ) from problem


def _filled(registry: Any, spec: Any, times: Mapping[str, Any]) -> Any:
    """Returns a spec with small sizes and stand-ins, and those of its nested specs."""
    from afmlib.registry import nested_registries, replace_nested
    from afmlib.registry.arguments import parameters

    cls, arguments = registry.resolve(spec)
    taken = parameters(cls)
    is_nested_network = registry.group in ("generators", "discriminators")
    filled = {**SMALL, **(times if is_nested_network else {}), **arguments}
    filled = {name: value for name, value in filled.items() if name in taken or name in arguments}
    for name, inner in nested_registries(cls).items():
        if taken[name].default is taken[name].empty and inner.group in STAND_INS:
            filled.setdefault(name, STAND_INS[inner.group])
    kind = spec["type"] if isinstance(spec, Mapping) else spec
    return {
        "type": kind,
        **replace_nested(
            cls, filled, lambda inner, nested, name, path: _filled(inner, nested, times)
        ),
    }


# --- Checks ---


def _check(group: str, component: Any) -> None:
    """Runs the checks of a group; without checks it does nothing."""
    from afmlib import testing

    simple: dict[str, Callable[[Any], None]] = {
        "losses": testing.check_adversarial_loss,
        "penalties": testing.check_gradient_penalty,
        "derivatives": testing.check_directional_derivative,
        "schedules": testing.check_schedule,
        "discretizations": testing.check_discretization,
        "fields": testing.check_transport_field,
        "parameterizations": testing.check_parameterization,
        "attention": testing.check_attention_backend,
        "datasets": testing.check_dataset,
    }
    shaped: dict[str, Callable[[Any, Any, int], None]] = {
        "depths": testing.check_depth_wrapper,
        "generators": testing.check_generator,
        "discriminators": testing.check_discriminator,
        "classifiers": testing.check_classifier,
        "objectives": testing.check_objective,
        "guidance": testing.check_guidance,
        "regularizers": testing.check_regularizer,
    }
    if group in simple:
        simple[group](component)
    elif group in shaped:
        shape = _shape(component) if group.endswith("ators") else SHAPE
        check = shaped[group]
        if group == "generators" and _is_repeatable(component):
            check = testing.check_repeatable_generator
        check(component, shape, CLASSES)
    elif group == "augmentations":
        testing.check_augmentation(component, SHAPE)
    elif group == "extractors":
        testing.check_feature_extractor(component, _image_shape(component))
    elif group == "autoencoders":
        _check_autoencoder(component)
    elif group == "metrics":
        testing.check_metric(component, _evaluation())


def _is_repeatable(generator: Any) -> bool:
    from afmlib.interfaces import RepeatableGenerator

    return isinstance(generator, RepeatableGenerator)


def _shape(network: Any) -> tuple[int, ...]:
    """Returns the shape of the samples of a network: images, or points if it takes only those."""
    import torch

    from afmlib.interfaces import Generator

    if isinstance(network, Generator) and network.latent_shape is not None:
        return tuple(network.latent_shape)
    labels = torch.zeros(2, dtype=torch.long)
    for shape in (SHAPE, SHAPE[:1]):
        with contextlib.suppress(Exception), torch.no_grad():
            network(torch.zeros(2, *shape), labels)
            return shape
    return SHAPE


def _image_shape(extractor: Any) -> tuple[int, ...]:
    import torch

    for shape in ((3, 32, 32), SHAPE):
        with contextlib.suppress(Exception), torch.no_grad():
            extractor(torch.zeros(2, *shape))
            return shape
    return SHAPE


def _check_autoencoder(autoencoder: Any) -> None:
    import torch

    from afmlib.testing import check_autoencoder

    image_shape, generator = (3, 32, 32), torch.Generator().manual_seed(0)
    with torch.no_grad():
        codes = autoencoder.encode(torch.zeros(1, *image_shape), generator)
    check_autoencoder(autoencoder, image_shape, tuple(codes.shape[1:]))


def _evaluation() -> Any:
    """Returns noisy digits to evaluate, with pixels as features."""
    import torch

    from afmlib.data.digits import Digits
    from afmlib.interfaces import FeatureExtractor
    from afmlib.metrics.evaluation import EvaluationData

    class Pixels(FeatureExtractor):
        name = "pixels"
        outputs = frozenset({"features", "spatial", "logits"})

        def forward(self, images: Any) -> Any:
            return images.flatten(1)

        def extract(self, images: Any) -> Any:
            rows = images.flatten(1)
            return {"features": rows, "spatial": rows[:, 20:28], "logits": rows[:, 20:30]}

    digits, stream = Digits(), torch.Generator().manual_seed(0)
    samples, labels = digits.__getitems__(range(128))
    noises = torch.randn(samples.shape, generator=stream)
    return EvaluationData(
        samples=(samples + 0.1 * noises).clamp(-1, 1),
        labels=labels,
        dataset=digits,
        held_out=digits.held_out(),
        extractor=Pixels(),
        noises=noises,
    )
