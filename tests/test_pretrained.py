"""Tests for afmlib.pretrained."""

import copy

import pytest
import torch

import afmlib
from afmlib import (
    build_classifier,
    build_discriminator,
    build_generator,
    build_objective,
    load_checkpoint,
)
from afmlib.config import load_config
from afmlib.engine import Runner
from afmlib.io.checkpoint import CheckpointError, save_checkpoint
from afmlib.pretrained import (
    OfficialClassifier,
    PretrainedClassifier,
    PretrainedVelocity,
    load_classifier,
)

NET = dict(input_size=8, in_channels=1, hidden_size=16, depth=1, num_heads=2, num_classes=10)
GENERATOR = dict(type="DiTGenerator", **NET, use_timestep_src=True, class_dropout_prob=0.1)
CONVENTIONS = dict(num_classes=10, latent_shape=[1, 8, 8], latent_scale=1.0, time="0 data, 1 noise")
FLOW = dict(objective="FlowMatching", parameterization="InstantaneousVelocity", nfe=2, any_nfe=True)


def save(folder, role, network, spec, **conventions):
    moved = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in [p for p in moved.parameters() if p.requires_grad]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    networks = {role: network.state_dict(), f"{role}_ema": moved.state_dict()}
    manifest = {role: spec, "conventions": CONVENTIONS | conventions}
    save_checkpoint(str(folder), networks, {}, "", manifest)
    return moved


@pytest.fixture
def classifier(tmp_path):
    """Saves a classifier; returns its folder, the online and the EMA network."""
    spec = dict(type="DiTClassifier", **NET)
    online = build_classifier(spec)
    folder = tmp_path / "classifier"
    return str(folder), online, save(folder, "classifier", online, spec)


@pytest.fixture
def flow(tmp_path):
    """Saves a flow model; returns its folder and the EMA network."""
    folder = tmp_path / "flow"
    return str(folder), save(folder, "generator", build_generator(GENERATOR), GENERATOR, **FLOW)


def test_classifier_uses_ema_by_default(classifier):
    folder, online, averaged = classifier
    x, t = torch.randn(3, 1, 8, 8), torch.rand(3)

    for loaded in (load_classifier(folder), PretrainedClassifier(folder)):
        torch.testing.assert_close(loaded(x, t), averaged(x, t).detach())
    for loaded in (load_classifier(folder, ema=False), PretrainedClassifier(folder, ema=False)):
        torch.testing.assert_close(loaded(x, t), online(x, t).detach())
    assert afmlib.load_classifier is load_classifier


def test_velocity_uses_ema(flow):
    folder, averaged = flow
    x, labels, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 9, 10]), torch.rand(3)

    loaded = PretrainedVelocity(folder)

    assert torch.equal(loaded(x, labels, t, t), averaged(x, labels, t, t))
    assert (loaded.num_classes, loaded.latent_shape) == (10, (1, 8, 8))
    assert loaded.class_dropout_prob == 0.1


@pytest.mark.parametrize("cls", [PretrainedClassifier, PretrainedVelocity])
def test_weights_are_not_trained_or_saved(cls, classifier, flow):
    trained = cls((classifier if cls is PretrainedClassifier else flow)[0])

    assert not any(parameter.requires_grad for parameter in trained.parameters())
    assert [key for key in trained.state_dict() if "extra_state" not in key] == []
    assert all(parameter.dtype == torch.float64 for parameter in trained.double().parameters())
    assert trained.checkpoint in repr(trained)


def test_other_weights_raise(classifier, flow):
    averaged, online = (
        PretrainedClassifier(classifier[0]),
        PretrainedClassifier(classifier[0], ema=False),
    )

    averaged.load_state_dict(PretrainedClassifier(classifier[0]).state_dict())
    with pytest.raises(ValueError, match="differ from the weights"):
        averaged.load_state_dict(online.state_dict())
    with pytest.raises(ValueError, match="differ from"):
        PretrainedVelocity(flow[0]).load_state_dict(
            PretrainedVelocity(flow[0], ema=False).state_dict()
        )


def test_wrong_network_raises(classifier, flow, tmp_path):
    with pytest.raises(CheckpointError, match="holds a classifier, not a generator: load it with"):
        load_checkpoint(classifier[0])
    with pytest.raises(CheckpointError, match="a generator, not a classifier: load it with"):
        load_classifier(flow[0])
    folder = tmp_path / "other"
    save(
        folder,
        "generator",
        build_generator(GENERATOR),
        GENERATOR,
        **(FLOW | dict(parameterization="SamplePrediction")),
    )
    with pytest.raises(CheckpointError, match="parameterization is SamplePrediction, not Inst"):
        PretrainedVelocity(str(folder))
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        PretrainedClassifier(str(tmp_path / "nowhere"))


def test_official_classifier_checks_conventions(tmp_path):
    network = build_classifier("DiTClassifier", **NET | dict(in_channels=4, num_classes=7))
    torch.save(network.state_dict(), tmp_path / "classifier.pth")
    discriminator = build_discriminator("DiTDiscriminator", **NET)
    torch.save(discriminator.state_dict(), tmp_path / "discriminator.pth")

    loaded = OfficialClassifier(str(tmp_path / "classifier.pth"), num_heads=2)

    x, t = torch.randn(2, 4, 8, 8), torch.rand(2)
    assert torch.equal(loaded(x, t), network(x, t))
    assert loaded.conventions["latent_scale"] == 0.18215
    assert loaded.conventions["latent_shape"] == [4, 8, 8]
    assert list(loaded.state_dict()) == ["network._extra_state"]
    option = (
        "objective.guidance={type: ClassifierGuidance, scale: 0.1, classifier: {type: "
        f"OfficialClassifier, num_heads: 2, checkpoint: '{tmp_path}/classifier.pth'}}}}"
    )
    with pytest.raises(CheckpointError, match="its num_classes is 7, not 10"):
        Runner(load_config("afm_digits", [option]), tmp_path / "run", device="cpu")
    with pytest.raises(CheckpointError, match="holds a discriminator, not a classifier"):
        OfficialClassifier(str(tmp_path / "discriminator.pth"), num_heads=2)


def guided(kind, folder):
    role, trained = {
        "ClassifierGuidance": ("classifier", "PretrainedClassifier"),
        "ImplicitClassifierGuidance": ("model", "PretrainedVelocity"),
    }[kind]
    return f"{{type: {kind}, {role}: {{type: {trained}, checkpoint: '{folder}'}}, scale: 0.1}}"


@pytest.mark.parametrize("kind", ["ClassifierGuidance", "ImplicitClassifierGuidance"])
def test_guidance_by_config(kind, classifier, flow, tmp_path):
    folder = (classifier if kind == "ClassifierGuidance" else flow)[0]
    config = load_config("afm_digits", [f"objective.guidance={guided(kind, folder)}"])

    objective = Runner(config, tmp_path / "run", device="cpu").objective

    assert type(objective.guidance).__name__ == kind
    assert not any(parameter.requires_grad for parameter in objective.guidance.parameters())
    assert not any(module.training for module in objective.train().guidance.children())


@pytest.mark.parametrize(
    ("field", "value"), [("num_classes", 7), ("latent_scale", 0.5), ("latent_shape", [1, 4, 4])]
)
def test_other_conventions_raise(field, value, tmp_path):
    spec = dict(type="DiTClassifier", **NET)
    save(tmp_path / "other", "classifier", build_classifier(spec), spec, **{field: value})
    option = f"objective.guidance={guided('ClassifierGuidance', tmp_path / 'other')}"

    with pytest.raises(CheckpointError, match=f"is of another model: its {field} is"):
        Runner(load_config("afm_digits", [option]), tmp_path / "run", device="cpu")


def test_guidance_gradient_is_observed(classifier):
    guidance = dict(
        type="ClassifierGuidance",
        classifier=dict(type="PretrainedClassifier", checkpoint=classifier[0]),
        scale=0.1,
    )
    network = dict(NET, num_classes=10)
    objective = build_objective(
        dict(
            type="AdversarialFlow",
            generator=dict(type="DiTGenerator", **network),
            discriminator=dict(type="DiTDiscriminator", **network),
            guidance=guidance,
        )
    )
    x, labels = torch.randn(4, 1, 8, 8), torch.arange(4)

    terms = objective.generator_terms(x, labels, objective.draw(x))
    sum(terms.values()).backward()

    assert "guidance" in terms
    assert terms.observed["gradient_guidance"].shape == (4,)
