"""The table of built-ins: every group, its interface, and the module of each class."""

__all__ = [
    "ATTENTION",
    "AUGMENTATIONS",
    "AUTOENCODERS",
    "CLASSIFIERS",
    "DATASETS",
    "DEPTHS",
    "DERIVATIVES",
    "DISCRETIZATIONS",
    "DISCRIMINATORS",
    "EXTRACTORS",
    "FIELDS",
    "GENERATORS",
    "GUIDANCE",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "PARAMETERIZATIONS",
    "PENALTIES",
    "REGULARIZERS",
    "SCHEDULES",
]

from typing import Any

from afmlib.registry.component_registry import ComponentRegistry

_SIZES = {
    "s": dict(hidden_size=384, depth=12, num_heads=6),
    "b": dict(hidden_size=768, depth=12, num_heads=12),
    "m": dict(hidden_size=1024, depth=16, num_heads=16),
    "l": dict(hidden_size=1024, depth=24, num_heads=16),
    "xl": dict(hidden_size=1152, depth=28, num_heads=16),
}


def _dit_presets(cls: str) -> dict[str, dict[str, Any]]:
    """Returns ``dit_s_2`` to ``dit_xl_4`` for one of the DiT classes."""
    return {
        f"dit_{size}_{patch}": dict(type=cls, patch_size=patch, **arguments)
        for size, arguments in _SIZES.items()
        for patch in (2, 4)
    }


_UNETS: dict[str, dict[str, Any]] = {
    "unet_small": dict(widths=[64, 128, 128], layers_per_block=2, attention_sizes=[8]),
    "unet_cifar": dict(
        widths=[256, 256, 256], layers_per_block=4, attention_sizes=[16], condition_size=512
    ),
    "unet_imagenet64": dict(
        widths=[192, 384, 576, 768],
        layers_per_block=3,
        attention_sizes=[32, 16, 8],
        head_size=64,
        scale_shift=True,
    ),
}
_CONVS: dict[str, dict[str, Any]] = {
    "conv_small": dict(widths=[64, 128, 128], layers_per_block=2),
    "conv_cifar": dict(widths=[128, 256, 256], layers_per_block=4),
    "conv_imagenet64": dict(widths=[192, 384, 576, 768], layers_per_block=3),
}

DEPTHS = ComponentRegistry(
    "depths",
    "DepthWrapper",
    {"RepeatBlocks": "afmlib.networks.repeat", "RepeatDepth": "afmlib.networks.repeat"},
)
GENERATORS = ComponentRegistry(
    "generators",
    "Generator",
    {
        "DiTGenerator": "afmlib.networks.dit",
        "MLPGenerator": "afmlib.networks.mlp",
        "PretrainedVelocity": "afmlib.pretrained",
        "UNetGenerator": "afmlib.networks.unet",
    },
    presets=_dit_presets("DiTGenerator")
    | {name: dict(type="UNetGenerator", **sizes) for name, sizes in _UNETS.items()},
    includes=DEPTHS,
)
DISCRIMINATORS = ComponentRegistry(
    "discriminators",
    "Discriminator",
    {
        "ConvDiscriminator": "afmlib.networks.conv",
        "DiTDiscriminator": "afmlib.networks.dit",
        "MLPDiscriminator": "afmlib.networks.mlp",
    },
    presets=_dit_presets("DiTDiscriminator")
    | {name: dict(type="ConvDiscriminator", **sizes) for name, sizes in _CONVS.items()},
)
CLASSIFIERS = ComponentRegistry(
    "classifiers",
    "Classifier",
    {
        "DiTClassifier": "afmlib.networks.dit",
        "MLPClassifier": "afmlib.networks.mlp",
        "OfficialClassifier": "afmlib.pretrained",
        "PretrainedClassifier": "afmlib.pretrained",
    },
    presets=_dit_presets("DiTClassifier"),
)
LOSSES = ComponentRegistry(
    "losses",
    "AdversarialLoss",
    {
        "HingeLoss": "afmlib.losses.hinge",
        "LeastSquaresLoss": "afmlib.losses.least_squares",
        "NonSaturatingLoss": "afmlib.losses.non_saturating",
        "RelativisticLoss": "afmlib.losses.relativistic",
        "WassersteinLoss": "afmlib.losses.wasserstein",
    },
)
PENALTIES = ComponentRegistry(
    "penalties",
    "GradientPenalty",
    {
        "AutogradPenalty": "afmlib.losses.gradient_penalty",
        "FiniteDifferencePenalty": "afmlib.losses.gradient_penalty",
    },
)
FIELDS = ComponentRegistry(
    "fields",
    "TransportField",
    {"Drift": "afmlib.losses.transport_fields", "Sinkhorn": "afmlib.losses.transport_fields"},
)
DERIVATIVES = ComponentRegistry(
    "derivatives",
    "DirectionalDerivative",
    {"FiniteDifferenceJVP": "afmlib.derivatives", "ForwardModeJVP": "afmlib.derivatives"},
)
REGULARIZERS = ComponentRegistry("regularizers", "Regularizer")
GUIDANCE = ComponentRegistry(
    "guidance",
    "Guidance",
    {
        "ClassifierGuidance": "afmlib.losses.classifier_guidance",
        "ImplicitClassifierGuidance": "afmlib.losses.implicit_guidance",
        "TargetClassifierGuidance": "afmlib.losses.classifier_guidance",
    },
)
AUGMENTATIONS = ComponentRegistry(
    "augmentations", "Augmentation", {"PairedAugmentation": "afmlib.augmentation.paired"}
)
SCHEDULES = ComponentRegistry(
    "schedules",
    "Schedule",
    {
        "ConstantSchedule": "afmlib.schedules",
        "CosineSchedule": "afmlib.schedules",
        "ExponentialSchedule": "afmlib.schedules",
        "LinearSchedule": "afmlib.schedules",
        "PiecewiseSchedule": "afmlib.schedules",
        "SigmoidSchedule": "afmlib.schedules",
    },
)
DISCRETIZATIONS = ComponentRegistry(
    "discretizations",
    "Discretization",
    {"DoublingGrid": "afmlib.noise_levels", "ShrinkingGap": "afmlib.noise_levels"},
)
PARAMETERIZATIONS = ComponentRegistry(
    "parameterizations",
    "Parameterization",
    {
        "ConditionedSample": "afmlib.parameterizations",
        "ConditionedVelocity": "afmlib.parameterizations",
        "ConsistencyPrediction": "afmlib.parameterizations",
        "HeunVelocity": "afmlib.parameterizations",
        "InstantaneousVelocity": "afmlib.parameterizations",
        "NormalizedVelocity": "afmlib.parameterizations",
        "SamplePrediction": "afmlib.parameterizations",
        "TrigFlowPrediction": "afmlib.parameterizations",
        "SolutionMap": "afmlib.parameterizations",
        "VelocityPrediction": "afmlib.parameterizations",
    },
)
OBJECTIVES = ComponentRegistry(
    "objectives",
    "Objective",
    {
        "AlphaFlow": "afmlib.objectives.alpha_flow",
        "AdversarialFlow": "afmlib.objectives.adversarial_flow",
        "ClassifierTraining": "afmlib.objectives.classifier_training",
        "ConsistencyTraining": "afmlib.objectives.consistency_training",
        "ContinuousAdversarialFlow": "afmlib.objectives.continuous_adversarial_flow",
        "ContinuousConsistency": "afmlib.objectives.continuous_consistency",
        "FeatureTransport": "afmlib.objectives.feature_transport",
        "FlowMatching": "afmlib.objectives.flow_matching",
        "FrechetLoss": "afmlib.objectives.frechet_loss",
        "ImprovedMeanFlow": "afmlib.objectives.improved_mean_flow",
        "InductiveMomentMatching": "afmlib.objectives.moment_matching",
        "MeanFlow": "afmlib.objectives.mean_flow",
        "Shortcut": "afmlib.objectives.shortcut",
        "SoFlow": "afmlib.objectives.soflow",
        "TerminalVelocityMatching": "afmlib.objectives.terminal_velocity",
    },
)
DATASETS = ComponentRegistry(
    "datasets",
    "Dataset",
    {
        "AugmentedImages": "afmlib.data.augmented_images",
        "Digits": "afmlib.data.digits",
        "EightGaussians": "afmlib.data.points",
        "EncodedImages": "afmlib.data.encoded_images",
        "FourGaussians": "afmlib.data.points",
        "ImageArchive": "afmlib.data.image_archive",
        "ImageFolder": "afmlib.data.image_folder",
        "LatentFolder": "afmlib.data.latent_folder",
        "LatentImages": "afmlib.data.latent_images",
        "MNIST": "afmlib.data.mnist",
        "OverlappingGaussians": "afmlib.data.overlapping_gaussians",
        "ShardedImages": "afmlib.data.sharded",
        "ShardedLatents": "afmlib.data.sharded",
    },
)
AUTOENCODERS = ComponentRegistry(
    "autoencoders",
    "Autoencoder",
    {
        "DiffusersAutoencoder": "afmlib.data.diffusers_autoencoder",
        "TinyAutoencoder": "afmlib.data.tiny_autoencoder",
    },
)
EXTRACTORS = ComponentRegistry(
    "extractors",
    "FeatureExtractor",
    {
        "ClassifierExtractor": "afmlib.metrics.classifier_extractor",
        "DecodedExtractor": "afmlib.metrics.decoded_extractor",
        "DigitsExtractor": "afmlib.metrics.digits_extractor",
        "EfficientNetLiteExtractor": "afmlib.metrics.efficientnet_lite_extractor",
        "InceptionExtractor": "afmlib.metrics.inception_extractor",
        "TimmExtractor": "afmlib.metrics.timm_extractor",
    },
)
METRICS = ComponentRegistry(
    "metrics",
    "Metric",
    {
        "ClassAccuracy": "afmlib.metrics.class_accuracy",
        "Diversity": "afmlib.metrics.diversity",
        "FrechetDistance": "afmlib.metrics.frechet_distance",
        "FrechetRatio": "afmlib.metrics.frechet_ratio",
        "InceptionScore": "afmlib.metrics.inception_score",
        "KernelDistance": "afmlib.metrics.kernel_distance",
        "NearestTrainingImage": "afmlib.metrics.nearest_training_image",
        "NoisedAccuracy": "afmlib.metrics.noised_accuracy",
        "PrecisionRecall": "afmlib.metrics.precision_recall",
        "SpatialFrechetDistance": "afmlib.metrics.spatial_frechet_distance",
        "TransportMap": "afmlib.metrics.transport_map",
    },
    known_as={
        name: f"for {name}, set evaluation.metrics to [{cls}] and evaluation.extractor to InceptionExtractor"
        for name, cls in {
            "FID": "FrechetDistance",
            "FDr": "FrechetRatio",
            "KID": "KernelDistance",
            "IS": "InceptionScore",
            "sFID": "SpatialFrechetDistance",
        }.items()
    },
)
ATTENTION = ComponentRegistry(
    "attention",
    "AttentionBackend",
    {
        "auto": "afmlib.nn.attention:AutoAttention",
        "math": "afmlib.nn.attention:MathAttention",
        "sdpa": "afmlib.nn.attention:SDPAttention",
        "xformers": "afmlib.nn.attention:XformersAttention",
    },
)
