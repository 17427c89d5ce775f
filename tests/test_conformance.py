"""Every registered component keeps the contract of its group.

A component that is registered and has no entry in ``SMALL`` fails: nothing escapes.
"""

import hashlib
import importlib.util
import inspect

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_autoencoder import save_autoencoder
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from afmlib.data.digits import Digits
from afmlib.data.latent_folder import LatentFolder, write_latents
from afmlib.data.points import FourGaussians
from afmlib.data.shard_writing import source_of, write_shards
from afmlib.interfaces import FeatureExtractor, RepeatableGenerator
from afmlib.io.checkpoint import save_checkpoint
from afmlib.metrics import inception_extractor
from afmlib.metrics.evaluation import EvaluationData
from afmlib.registry import REGISTRIES, build_classifier, build_generator
from afmlib.testing import (
    check_adversarial_loss,
    check_attention_backend,
    check_augmentation,
    check_autoencoder,
    check_classifier,
    check_dataset,
    check_depth_wrapper,
    check_directional_derivative,
    check_discretization,
    check_discriminator,
    check_feature_extractor,
    check_generator,
    check_gradient_penalty,
    check_guidance,
    check_metric,
    check_objective,
    check_parameterization,
    check_repeatable_generator,
    check_schedule,
    check_transport_field,
)

CLASSES = 3
DIT = dict(input_size=4, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=CLASSES)
MLP = dict(in_channels=2, hidden_size=16, num_classes=CLASSES)
CONV = dict(input_size=4, in_channels=2, widths=[8, 16], layers_per_block=1, num_classes=CLASSES)
UNET = CONV | dict(attention_sizes=[2])
SHAPES = dict.fromkeys(("DiT", "Pretrained", "Official", "Conv", "UNet"), (2, 4, 4)) | {"MLP": (2,)}
BOTH_TIMES = dict(use_timestep_src=True, use_timestep_tgt=True)
DIT_GENERATOR = dict(type="DiTGenerator", **DIT)
SMOOTH = DIT_GENERATOR | BOTH_TIMES | dict(time_scale=1.0)
GAME = dict(generator=DIT_GENERATOR, discriminator=dict(type="DiTDiscriminator", **DIT))
ANY_STEP = dict(
    generator=DIT_GENERATOR | BOTH_TIMES,
    discriminator=dict(type="DiTDiscriminator", use_timestep=True, **DIT),
    nfe="any",
    prediction="velocity",
)
PIXELS = dict(input_size=8, in_channels=1, num_classes=10)
COSINE_100 = dict(type="CosineSchedule", start=0.2, end=0.9, length=100)
COSINE = dict(type="CosineSchedule", start=0.2, end=0.005)

# Group -> name -> the arguments of each small one that is tried, or a fixture that returns them.
SMALL = {
    "generators": {
        "DiTGenerator": [
            DIT,
            DIT | dict(use_timestep_src=True),
            DIT | BOTH_TIMES | dict(qk_norm=True),
            DIT | BOTH_TIMES | dict(time_pair="difference"),
            DIT | BOTH_TIMES | dict(num_conditions=2, velocity_depth=1),
            DIT | dict(use_timestep_tgt=True, time_pair="difference", time_scale=1.0),
            DIT | dict(class_dropout_prob=0.1, patch_size=4, attention="math"),
        ],
        "MLPGenerator": [
            MLP,
            MLP | BOTH_TIMES | dict(feature_scale=2.0, class_dropout_prob=0.1),
            MLP | BOTH_TIMES | dict(time_pair="difference"),
        ],
        "PretrainedVelocity": ["trained_velocity"],
        "UNetGenerator": [
            UNET,
            UNET | BOTH_TIMES | dict(scale_shift=True, head_size=4, class_dropout_prob=0.1),
            UNET | BOTH_TIMES | dict(time_pair="difference", num_conditions=2, dropout=0.2),
        ],
    },
    "depths": {
        name: [dict(repeats=repeats, generator=DIT_GENERATOR) for repeats in (1, 3)]
        for name in ("RepeatDepth", "RepeatBlocks")
    },
    "discriminators": {
        "ConvDiscriminator": [CONV, CONV | dict(use_timestep=True, class_dropout_prob=0.1)],
        "DiTDiscriminator": [DIT, DIT | dict(use_timestep=True, qk_norm=True)],
        "MLPDiscriminator": [MLP, MLP | dict(use_timestep=True, feature_scale=2.0)],
    },
    "classifiers": {
        "DiTClassifier": [DIT, DIT | dict(qk_norm=True, attention="math")],
        "MLPClassifier": [MLP, MLP | dict(feature_scale=2.0)],
        "OfficialClassifier": ["published_classifier"],
        "PretrainedClassifier": ["trained_classifier"],
    },
    "losses": {
        "HingeLoss": [{}, dict(margin=0.5)],
        "LeastSquaresLoss": [{}],
        "NonSaturatingLoss": [{}],
        "RelativisticLoss": [{}],
        "WassersteinLoss": [{}],
    },
    "fields": {"Drift": [{}, dict(radii=[0.3])], "Sinkhorn": [{}, dict(entropies=[0.3])]},
    "penalties": {"AutogradPenalty": [{}], "FiniteDifferencePenalty": [{}, dict(eps=0.1)]},
    "guidance": {
        "ClassifierGuidance": ["classifier_guidance"],
        "ImplicitClassifierGuidance": ["implicit_guidance"],
        "TargetClassifierGuidance": ["target_guidance"],
    },
    "derivatives": {
        "FiniteDifferenceJVP": [{}, dict(eps=0.001)],
        "ForwardModeJVP": [{}],
    },
    "augmentations": {
        "PairedAugmentation": [{}, dict(both_ways=False, cutouts=1, probability=COSINE_100)],
    },
    "schedules": {
        "ConstantSchedule": [dict(value=0.5)],
        "CosineSchedule": [dict(start=1.0, end=0.1), dict(start=0.0, end=2.0, length=10)],
        "LinearSchedule": [dict(start=1.0, end=0.1), dict(start=0.0, end=2.0, length=10)],
        "ExponentialSchedule": [dict(start=0.1, end=0.002), dict(start=1.0, end=2.0, length=10)],
        "SigmoidSchedule": [dict(start=1.0, end=0.0), dict(start=0.0, end=2.0, begin=5, length=10)],
        "PiecewiseSchedule": [dict(values=[1.0, 0.5], boundaries=[500])],
    },
    "discretizations": {
        "DoublingGrid": [{}, dict(start=2, end=7)],
        "ShrinkingGap": [{}, dict(base=256.0, num_stages=2)],
    },
    "parameterizations": {
        "ConditionedSample": [{}, dict(conditions=[0.5, 0.25])],
        "ConditionedVelocity": [{}, dict(conditions=[0.5], factor=2.0)],
        "ConsistencyPrediction": [{}, dict(boundary=0.0)],
        "TrigFlowPrediction": [{}],
        "HeunVelocity": [{}],
        "InstantaneousVelocity": [{}],
        "NormalizedVelocity": [{}],
        "SamplePrediction": [{}],
        "SolutionMap": [{}],
        "VelocityPrediction": [{}],
    },
    "attention": {name: [{}] for name in ("auto", "math", "sdpa", "xformers")},
    "datasets": {
        "AugmentedImages": [
            dict(images="Digits"),
            dict(images="Digits", probability=1.0, degrees=180.0, scale=(0.5, 2.0), size=4),
        ],
        "Digits": [{}],
        "EightGaussians": [{}],
        "EncodedImages": ["encoded_images"],
        "FourGaussians": [{}],
        "ImageArchive": ["image_archive"],
        "ImageFolder": ["image_folder"],
        "LatentFolder": ["latent_folder"],
        "LatentImages": ["latent_images", "mirrored_latents"],
        "MNIST": [{}, dict(split="test", size=28)],
        "OverlappingGaussians": [{}],
        "ShardedImages": ["sharded_images"],
        "ShardedLatents": ["sharded_moments", "sharded_samples"],
    },
    "autoencoders": {
        "DiffusersAutoencoder": ["autoencoder"],
        "TinyAutoencoder": ["tiny_autoencoder"],
    },
    "extractors": {
        "ClassifierExtractor": ["classifier_extractor"],
        "DecodedExtractor": ["decoded_extractor"],
        "DigitsExtractor": ["digits_extractor"],
        "EfficientNetLiteExtractor": [dict(input_size=32)],
        "InceptionExtractor": ["inception"],
        "TimmExtractor": ["backbone"],
    },
    "metrics": {
        **{
            name: [{}]
            for name in (
                "ClassAccuracy",
                "Diversity",
                "FrechetDistance",
                "InceptionScore",
                "NearestTrainingImage",
                "NoisedAccuracy",
                "PrecisionRecall",
                "SpatialFrechetDistance",
                "TransportMap",
            )
        },
        "FrechetRatio": [dict(representations=["DigitsExtractor"])],
        "KernelDistance": [dict(subsets=3, subset_size=50)],
    },
    "objectives": {
        "AdversarialFlow": [
            GAME,
            ANY_STEP,
            ANY_STEP | dict(penalty="AutogradPenalty", nfe=2),
            GAME | dict(loss="HingeLoss", ot_scale=COSINE, gradient_normalization=False),
            "guided_game",
        ],
        "ClassifierTraining": [dict(classifier=dict(type="DiTClassifier", **DIT))],
        "ContinuousAdversarialFlow": [
            dict(
                generator=DIT_GENERATOR | dict(use_timestep_src=True, class_dropout_prob=0.5),
                discriminator=dict(
                    type="DiTDiscriminator",
                    use_timestep=True,
                    time_scale=1.0,
                    class_dropout_prob=0.5,
                    **DIT,
                ),
                nfe=2,
                velocity_scale=0.1,
            ),
        ],
        "ConsistencyTraining": [
            dict(generator=DIT_GENERATOR | dict(use_timestep_src=True)),
            dict(
                generator=DIT_GENERATOR | dict(use_timestep_src=True),
                discretization="ShrinkingGap",
                huber_scale=0.0,
                boundary=0.0,
            ),
        ],
        "ContinuousConsistency": [
            dict(generator=DIT_GENERATOR | dict(use_timestep_src=True, time_scale=1.0)),
            dict(
                generator=DIT_GENERATOR | dict(use_timestep_src=True, time_scale=1.0),
                nfe=1,
                derivative="FiniteDifferenceJVP",
                warmup_fraction=0.0,
            ),
        ],
        "FlowMatching": [
            dict(generator=DIT_GENERATOR | dict(use_timestep_src=True), nfe=2, heun=True),
            dict(
                generator=DIT_GENERATOR | dict(use_timestep_src=True, class_dropout_prob=0.5),
                nfe=1,
            ),
        ],
        "FeatureTransport": [
            dict(generator=DIT_GENERATOR, samples_per_class=4, num_positives=3),
            dict(
                generator=DIT_GENERATOR | dict(num_conditions=1),
                field="Sinkhorn",
                samples_per_class=8,
                num_negatives=20,
                max_guidance=4.0,
            ),
        ],
        "FrechetLoss": ["frechet_loss", "averaged_frechet_loss"],
        "Shortcut": [
            dict(generator=DIT_GENERATOR | BOTH_TIMES, bootstrap_fraction=0.5),
            dict(
                generator=DIT_GENERATOR | BOTH_TIMES | dict(class_dropout_prob=0.25),
                nfe=4,
                guidance_scale=1.5,
                num_steps=16,
                bootstrap_fraction=0.25,
            ),
        ],
        "ImprovedMeanFlow": [
            dict(generator=SMOOTH | dict(velocity_depth=1)),
            dict(
                generator=SMOOTH
                | dict(velocity_depth=1, num_conditions=3, class_dropout_prob=0.25),
                max_omega=8.0,
                sample_omega=2.0,
                predicts_samples=True,
            ),
            dict(generator=SMOOTH | dict(time_pair="difference", use_timestep_src=False)),
        ],
        "InductiveMomentMatching": [dict(generator=DIT_GENERATOR | BOTH_TIMES)],
        "AlphaFlow": [
            dict(generator=SMOOTH),
            dict(
                generator=SMOOTH | dict(class_dropout_prob=0.25), alpha=0.0, omega=0.2, kappa=0.92
            ),
        ],
        "SoFlow": [
            dict(generator=SMOOTH),
            dict(
                generator=SMOOTH | dict(class_dropout_prob=0.25),
                gap=0.05,
                guidance_scale=3.0,
            ),
        ],
        "TerminalVelocityMatching": [
            dict(generator=SMOOTH),
            dict(
                generator=SMOOTH | dict(class_dropout_prob=0.25, num_conditions=1),
                guidance_scale=2.0,
            ),
        ],
        "MeanFlow": [
            dict(generator=SMOOTH),
            dict(generator=SMOOTH | dict(class_dropout_prob=0.25), omega=0.2, kappa=0.92),
            dict(
                generator=SMOOTH | dict(attention="sdpa"),
                nfe=2,
                derivative="FiniteDifferenceJVP",
                unequal_fraction=1.0,
                weight_power=0.0,
            ),
        ],
    },
}


# --- What is needed to build them ----------------------------------------------------------------


@pytest.fixture
def image_archive(tmp_path):
    numbers = np.random.default_rng(0)
    images, held_out = numbers.integers(0, 256, (9, 6, 6, 3), dtype=np.uint8), np.arange(9) > 5
    path = tmp_path / "images.npz"
    np.savez(path, images=images, labels=np.arange(9) % 2, held_out=held_out)
    return dict(path=str(path), horizontal_flip_prob=0.5)


@pytest.fixture
def image_folder(tmp_path):
    numbers = np.random.default_rng(0)
    for index in range(6):
        folder = tmp_path / f"class_{index % 2}"
        folder.mkdir(exist_ok=True)
        pixels = numbers.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return dict(path=str(tmp_path), size=8, horizontal_flip_prob=0.5)


@pytest.fixture
def latent_folder(tmp_path):
    means, labels = torch.randn(6, 2, 4, 3, 3), torch.arange(6) % 2
    write_latents(str(tmp_path), means, means.exp(), labels, latent_scale=0.2, num_classes=2)
    return dict(path=str(tmp_path))


@pytest.fixture
def sharded_images(tmp_path):
    data = Digits("test")
    write_shards(f"{tmp_path}/images.zip", "edm2", source_of(data, "digits"))
    return dict(path=f"{tmp_path}/images.zip", size=8, channels=1, horizontal_flip_prob=0.5)


@pytest.fixture
def sharded_moments(latent_folder, tmp_path):
    source = source_of(LatentFolder(**latent_folder), "latents")
    write_shards(f"{tmp_path}/moments", "wds", source)
    return dict(path=f"{tmp_path}/moments")


@pytest.fixture
def sharded_samples(latent_folder, tmp_path):
    source = source_of(LatentFolder(**latent_folder), "latents")
    write_shards(f"{tmp_path}/samples", "safetensors", source, lossy=True)
    return dict(path=f"{tmp_path}/samples")


@pytest.fixture
def frechet_loss(tmp_path):
    means, labels = torch.randn(40, 2, 2, 4, 4), torch.arange(40) % CLASSES
    write_latents(str(tmp_path), means, means.exp(), labels, latent_scale=0.2, num_classes=CLASSES)
    data = dict(type="LatentFolder", path=str(tmp_path))
    return dict(generator=DIT_GENERATOR, data=data, num_samples=96)


@pytest.fixture
def averaged_frechet_loss(frechet_loss):
    return frechet_loss | dict(decay=0.9)


@pytest.fixture
def autoencoder(tmp_path):
    save_autoencoder(tmp_path)
    return dict(path=str(tmp_path))


@pytest.fixture
def encoded_images(image_folder, tmp_path):
    save_autoencoder(tmp_path / "vae")
    images = dict(type="AugmentedImages", images=dict(type="ImageFolder", **image_folder))
    autoencoder = dict(type="DiffusersAutoencoder", path=str(tmp_path / "vae"))
    return dict(images=images, autoencoder=autoencoder)


@pytest.fixture
def tiny_autoencoder(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path / "cache"))
    return dict(size=8, latent_channels=4, width=16, num_steps=2)


@pytest.fixture
def latent_images(tiny_autoencoder):
    autoencoder = dict(type="TinyAutoencoder", **tiny_autoencoder, in_channels=1)
    return dict(images="Digits", autoencoder=autoencoder)


@pytest.fixture
def mirrored_latents(latent_images):
    return latent_images | dict(mirror=True)


@pytest.fixture
def classifier_extractor(tiny_autoencoder):  # With its empty cache.
    return dict(images="Digits", num_steps=2)


@pytest.fixture
def decoded_extractor(classifier_extractor):
    autoencoder = dict(type="TinyAutoencoder", in_channels=1, size=8, width=16, num_steps=2)
    extractor = dict(type="ClassifierExtractor", **classifier_extractor)
    return dict(autoencoder=autoencoder, extractor=extractor, images="Digits")


@pytest.fixture
def digits_extractor(tmp_path, monkeypatch):
    monkeypatch.setenv("AFMLIB_CACHE", str(tmp_path))
    return {}


@pytest.fixture
def backbone(tmp_path):
    model = "test_efficientnet"
    path = tmp_path / "weights.safetensors"
    save_file(timm.create_model(model, pretrained=False).state_dict(), path)
    return dict(model=model, weights=str(path), input_size=32)


@pytest.fixture
def inception(tmp_path, monkeypatch):
    """Random weights in the place of the published ones, which are not here."""
    path = tmp_path / "weights.pth"
    cls = fidelity.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(cls, "load_state_dict", lambda *_: None)
        torch.save(cls("inception-v3-compat", ["2048"]).state_dict(), path)
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(inception_extractor, "SHA256", content)
    return dict(weights_path=str(path))


def moved(network):
    """Moves the parameters of a network away from those that it starts with."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.state_dict()


@pytest.fixture
def trained_classifier(tmp_path):
    spec = dict(type="DiTClassifier", **DIT)
    state = moved(build_classifier(spec))
    networks = {"classifier": state, "classifier_ema": state}
    save_checkpoint(str(tmp_path), networks, {}, "", {"classifier": spec, "conventions": {}})
    return dict(checkpoint=str(tmp_path))


@pytest.fixture
def published_classifier(tmp_path):
    path = tmp_path / "classifier.pth"
    torch.save(moved(build_classifier("DiTClassifier", **DIT)), path)
    return dict(checkpoint=str(path), num_heads=2)


@pytest.fixture
def trained_velocity(tmp_path):
    spec = DIT_GENERATOR | dict(use_timestep_src=True, class_dropout_prob=0.1)
    state = moved(build_generator(spec))
    conventions = dict(
        objective="FlowMatching", parameterization="InstantaneousVelocity", nfe=2, any_nfe=True
    )
    networks = {"generator": state, "generator_ema": state}
    manifest = {"generator": spec, "conventions": conventions}
    save_checkpoint(str(tmp_path), networks, {}, "", manifest)
    return dict(checkpoint=str(tmp_path))


@pytest.fixture
def classifier_guidance(trained_classifier):
    return dict(classifier=dict(type="PretrainedClassifier", **trained_classifier), scale=0.1)


@pytest.fixture
def target_guidance(classifier_guidance):
    return classifier_guidance | dict(targets=[0, [0.5, 0.7]])


@pytest.fixture
def guided_game(classifier_guidance):
    guidance = dict(type="ClassifierGuidance", **classifier_guidance)
    return GAME | dict(guidance=guidance, augmentation="PairedAugmentation")


@pytest.fixture
def implicit_guidance(trained_velocity):
    return dict(model=dict(type="PretrainedVelocity", **trained_velocity), scale=0.1)


class Colored(Digits):
    """Digits with three channels."""

    latent_shape = (3, 8, 8)

    def augment(self, stored, draws):
        return stored.expand(-1, 3, -1, -1)


class Pixels(FeatureExtractor):
    name = "pixels"
    outputs = frozenset({"features", "spatial", "logits"})

    def forward(self, images):
        return images.flatten(1)

    def extract(self, images):
        rows = images.flatten(1)
        return {"features": rows, "spatial": rows[:, 20:28], "logits": rows}


def images_to_judge():
    digits = Digits()
    samples, labels = digits.__getitems__(range(100))
    samples = (samples + 0.1 * torch.randn_like(samples)).clamp(-1, 1)
    return EvaluationData(
        samples=samples,
        labels=labels,
        dataset=digits,
        extractor=Pixels(),
        noises=torch.randn_like(samples),
        classifier=build_classifier("dit_s_2", depth=1, **PIXELS),
    )


def points_to_judge():
    points, noises = FourGaussians(), torch.randn(100, 1)
    return EvaluationData(
        samples=points.optimal_targets(noises) + 0.1,
        labels=torch.zeros(100, dtype=torch.long),
        dataset=points,
        noises=noises,
        held_out=points.held_out(),
    )


# --- The checks -----------------------------------------------------------------------------------


def check_any_generator(generator):
    repeatable = isinstance(generator, RepeatableGenerator)
    (check_repeatable_generator if repeatable else check_generator)(generator)


def check_attention(backend):
    # Signatures are checked in tests (see conftest.py), and those checks cannot be compiled: load
    # the file once more, under a name for which there are none.
    path = inspect.getfile(type(backend))
    spec = importlib.util.spec_from_file_location("unchecked", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    check_attention_backend(getattr(module, type(backend).__name__)())


def latent_shape(network):
    return next(shape for name, shape in SHAPES.items() if type(network).__name__.startswith(name))


def check_any_extractor(extractor):
    digits = dict.fromkeys(("ClassifierExtractor", "DigitsExtractor"), (1, 8, 8))
    shapes = {**digits, "DecodedExtractor": (8, 1, 1)}
    check_feature_extractor(extractor, shapes.get(type(extractor).__name__, (3, 32, 32)))


def check_any_autoencoder(autoencoder):
    autoencoder.fit(Colored())
    side = 4 if type(autoencoder).__name__ == "DiffusersAutoencoder" else 1
    check_autoencoder(autoencoder, (3, 8, 8), (4, side, side))


def check_any_metric(metric):
    points = type(metric).__name__ == "TransportMap"
    check_metric(metric, points_to_judge() if points else images_to_judge())


CHECKS = {
    "generators": check_any_generator,
    "depths": check_depth_wrapper,
    "discriminators": lambda net: check_discriminator(net, latent_shape(net), CLASSES),
    "classifiers": lambda net: check_classifier(net, latent_shape(net), CLASSES),
    "losses": check_adversarial_loss,
    "fields": check_transport_field,
    "penalties": check_gradient_penalty,
    "derivatives": check_directional_derivative,
    "augmentations": lambda augmentation: check_augmentation(augmentation, SHAPES["DiT"]),
    "guidance": lambda guidance: check_guidance(guidance, SHAPES["DiT"], CLASSES),
    "schedules": check_schedule,
    "discretizations": check_discretization,
    "parameterizations": check_parameterization,
    "attention": check_attention,
    "objectives": lambda objective: check_objective(objective, SHAPES["DiT"], CLASSES),
    "datasets": check_dataset,
    "autoencoders": check_any_autoencoder,
    "extractors": check_any_extractor,
    "metrics": check_any_metric,
}


def registered():
    """Yields group, name and arguments of everything that the library itself brings."""
    for group, registry in REGISTRIES.items():
        elsewhere = {} if registry.includes is None else registry.includes.components()
        for name, origin in registry.components().items():
            if origin == "afmlib" and name not in elsewhere:
                for index, arguments in enumerate(SMALL.get(group, {}).get(name, [None])):
                    label = f"{group}-{name}-{index}"
                    yield pytest.param(group, name, arguments, id=label)


@pytest.mark.parametrize(("group", "name", "arguments"), list(registered()))
def test_contract_is_kept(group, name, arguments, request):
    assert arguments is not None, f"Say in SMALL how a small {name} of the {group} is built."
    assert group in CHECKS, f"Say in CHECKS which check is that of the {group}."

    if isinstance(arguments, str):
        arguments = request.getfixturevalue(arguments)

    CHECKS[group](REGISTRIES[group].build(dict(type=name, **arguments)))


def test_no_entry_outlives_its_component():
    stale = {
        (group, name)
        for group, entries in SMALL.items()
        for name in entries
        if name not in REGISTRIES[group].builtins
    }

    assert not stale
