"""The table of built-ins: the groups, their names and presets, and where each class is."""

__all__ = [
    "ATTENTION",
    "AUGMENTATIONS",
    "AUTOENCODERS",
    "CLASSIFIERS",
    "DATASETS",
    "DEPTHS",
    "DERIVATIVES",
    "DISCRETISATIONS",
    "DISCRIMINATORS",
    "EXTRACTORS",
    "GENERATORS",
    "GUIDANCE",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "PARAMETERISATIONS",
    "PENALTIES",
    "SCHEDULES",
]

from typing import Any

from afmlib.registry.component_registry import REGISTRIES, ComponentRegistry

_SIZES = {
    "s": dict(hidden_size=384, depth=12, num_heads=6),
    "b": dict(hidden_size=768, depth=12, num_heads=12),
    "m": dict(hidden_size=1024, depth=16, num_heads=16),
    "l": dict(hidden_size=1024, depth=24, num_heads=16),
    "xl": dict(hidden_size=1152, depth=28, num_heads=16),
}


def _dit_presets(name: str) -> dict[str, dict[str, Any]]:
    return {
        f"dit_{size}_{patch}": dict(type=name, patch_size=patch, **arguments)
        for size, arguments in _SIZES.items()
        for patch in (2, 4)
    }


DEPTHS = ComponentRegistry(
    "depths",
    "afmlib.interfaces:DepthWrapper",
    {
        "RepeatBlocks": "afmlib.depth.repeat_blocks:RepeatBlocks",
        "RepeatDepth": "afmlib.depth.repeat_depth:RepeatDepth",
    },
)
GENERATORS = ComponentRegistry(
    "generators",
    "afmlib.interfaces:Generator",
    {
        "DiTGenerator": "afmlib.generators.dit:DiTGenerator",
        "MLPGenerator": "afmlib.generators.mlp:MLPGenerator",
        "TrainedVelocity": "afmlib.trained:TrainedVelocity",
    },
    _dit_presets("DiTGenerator"),
    includes=DEPTHS,
)
DISCRIMINATORS = ComponentRegistry(
    "discriminators",
    "afmlib.interfaces:Discriminator",
    {
        "DiTDiscriminator": "afmlib.discriminators.dit:DiTDiscriminator",
        "MLPDiscriminator": "afmlib.discriminators.mlp:MLPDiscriminator",
    },
    _dit_presets("DiTDiscriminator"),
)
CLASSIFIERS = ComponentRegistry(
    "classifiers",
    "afmlib.interfaces:Classifier",
    {
        "DiTClassifier": "afmlib.classifiers.dit:DiTClassifier",
        "MLPClassifier": "afmlib.classifiers.mlp:MLPClassifier",
        "PublishedClassifier": "afmlib.trained:PublishedClassifier",
        "TrainedClassifier": "afmlib.trained:TrainedClassifier",
    },
    _dit_presets("DiTClassifier"),
)
LOSSES = ComponentRegistry(
    "losses",
    "afmlib.interfaces:AdversarialLoss",
    {
        "HingeLoss": "afmlib.losses.hinge:HingeLoss",
        "LeastSquaresLoss": "afmlib.losses.least_squares:LeastSquaresLoss",
        "NonSaturatingLoss": "afmlib.losses.non_saturating:NonSaturatingLoss",
        "RelativisticLoss": "afmlib.losses.relativistic:RelativisticLoss",
        "WassersteinLoss": "afmlib.losses.wasserstein:WassersteinLoss",
    },
)
PENALTIES = ComponentRegistry(
    "penalties",
    "afmlib.interfaces:GradientPenalty",
    {
        "AutogradPenalty": "afmlib.losses.gradient_penalty:AutogradPenalty",
        "FiniteDifferencePenalty": "afmlib.losses.gradient_penalty:FiniteDifferencePenalty",
    },
)
DERIVATIVES = ComponentRegistry(
    "derivatives",
    "afmlib.interfaces:DirectionalDerivative",
    {
        "FiniteDifferenceDerivative": "afmlib.ops.derivatives:FiniteDifferenceDerivative",
        "ForwardModeDerivative": "afmlib.ops.derivatives:ForwardModeDerivative",
    },
)
GUIDANCE = ComponentRegistry(
    "guidance",
    "afmlib.interfaces:Guidance",
    {
        "ClassifierGuidance": "afmlib.losses.classifier_guidance:ClassifierGuidance",
        "ImplicitClassifierGuidance": "afmlib.losses.implicit_guidance:ImplicitClassifierGuidance",
        "TargetClassifierGuidance": "afmlib.losses.classifier_guidance:TargetClassifierGuidance",
    },
)
AUGMENTATIONS = ComponentRegistry(
    "augmentations",
    "afmlib.interfaces:Augmentation",
    {"PairedAugmentation": "afmlib.ops.paired_augmentation:PairedAugmentation"},
)
SCHEDULES = ComponentRegistry(
    "schedules",
    "afmlib.interfaces:Schedule",
    {
        "ConstantSchedule": "afmlib.ops.schedules:ConstantSchedule",
        "CosineSchedule": "afmlib.ops.schedules:CosineSchedule",
        "LinearSchedule": "afmlib.ops.schedules:LinearSchedule",
        "PiecewiseSchedule": "afmlib.ops.schedules:PiecewiseSchedule",
    },
)
DISCRETISATIONS = ComponentRegistry(
    "discretisations",
    "afmlib.interfaces:Discretisation",
    {
        "DoublingGrid": "afmlib.ops.discretisations:DoublingGrid",
        "ShrinkingGap": "afmlib.ops.discretisations:ShrinkingGap",
    },
)
PARAMETERISATIONS = ComponentRegistry(
    "parameterisations",
    "afmlib.interfaces:Parameterisation",
    {
        "ConsistencyPrediction": "afmlib.ops.consistency_functions:ConsistencyPrediction",
        "InstantaneousVelocity": "afmlib.ops.parameterisations:InstantaneousVelocity",
        "SamplePrediction": "afmlib.ops.parameterisations:SamplePrediction",
        "TrigFlowPrediction": "afmlib.ops.consistency_functions:TrigFlowPrediction",
        "VelocityPrediction": "afmlib.ops.parameterisations:VelocityPrediction",
    },
)
OBJECTIVES = ComponentRegistry(
    "objectives",
    "afmlib.interfaces:Objective",
    {
        "AdversarialFlow": "afmlib.objectives.adversarial_flow:AdversarialFlow",
        "ClassifierTraining": "afmlib.objectives.classifier_training:ClassifierTraining",
        "ConsistencyTraining": "afmlib.objectives.consistency_training:ConsistencyTraining",
        "ContinuousConsistency": ("afmlib.objectives.continuous_consistency:ContinuousConsistency"),
        "FlowMatching": "afmlib.objectives.flow_matching:FlowMatching",
        "MeanFlow": "afmlib.objectives.mean_flow:MeanFlow",
        "Shortcut": "afmlib.objectives.shortcut:Shortcut",
    },
)
DATASETS = ComponentRegistry(
    "datasets",
    "afmlib.interfaces:Dataset",
    {
        "AugmentedImages": "afmlib.data.augmented_images:AugmentedImages",
        "Digits": "afmlib.data.digits:Digits",
        "EightGaussians": "afmlib.data.points:EightGaussians",
        "EncodedImages": "afmlib.data.encoded_images:EncodedImages",
        "FourGaussians": "afmlib.data.points:FourGaussians",
        "ImageArchive": "afmlib.data.image_archive:ImageArchive",
        "ImageFolder": "afmlib.data.image_folder:ImageFolder",
        "LatentFolder": "afmlib.data.latent_folder:LatentFolder",
        "OverlappingGaussians": "afmlib.data.overlapping_gaussians:OverlappingGaussians",
    },
)
AUTOENCODERS = ComponentRegistry(
    "autoencoders",
    "afmlib.interfaces:Autoencoder",
    {"DiffusersAutoencoder": "afmlib.data.diffusers_autoencoder:DiffusersAutoencoder"},
)
EXTRACTORS = ComponentRegistry(
    "extractors",
    "afmlib.interfaces:FeatureExtractor",
    {
        "DigitsExtractor": "afmlib.metrics.digits_extractor:DigitsExtractor",
        "EfficientNetLiteExtractor": (
            "afmlib.metrics.efficientnet_lite_extractor:EfficientNetLiteExtractor"
        ),
        "InceptionExtractor": "afmlib.metrics.inception_extractor:InceptionExtractor",
        "TimmExtractor": "afmlib.metrics.timm_extractor:TimmExtractor",
    },
)
METRICS = ComponentRegistry(
    "metrics",
    "afmlib.interfaces:Metric",
    {
        "ClassAccuracy": "afmlib.metrics.class_accuracy:ClassAccuracy",
        "Diversity": "afmlib.metrics.diversity:Diversity",
        "FrechetDistance": "afmlib.metrics.frechet_distance:FrechetDistance",
        "InceptionScore": "afmlib.metrics.inception_score:InceptionScore",
        "KernelDistance": "afmlib.metrics.kernel_distance:KernelDistance",
        "NearestTrainingImage": "afmlib.metrics.nearest_training_image:NearestTrainingImage",
        "NoisedAccuracy": "afmlib.metrics.noised_accuracy:NoisedAccuracy",
        "PrecisionRecall": "afmlib.metrics.precision_recall:PrecisionRecall",
        "SpatialFrechetDistance": "afmlib.metrics.spatial_frechet_distance:SpatialFrechetDistance",
        "TransportMap": "afmlib.metrics.transport_map:TransportMap",
    },
)
ATTENTION = ComponentRegistry(
    "attention",
    "afmlib.interfaces:AttentionBackend",
    {
        "auto": "afmlib.nn.attention:AutoAttention",
        "math": "afmlib.nn.attention:MathAttention",
        "sdpa": "afmlib.nn.attention:SDPAttention",
        "xformers": "afmlib.nn.attention:XformersAttention",
    },
)

REGISTRIES.update(
    (registry.group, registry)
    for registry in (
        GENERATORS,
        DISCRIMINATORS,
        CLASSIFIERS,
        DEPTHS,
        LOSSES,
        PENALTIES,
        DERIVATIVES,
        GUIDANCE,
        AUGMENTATIONS,
        SCHEDULES,
        DISCRETISATIONS,
        PARAMETERISATIONS,
        OBJECTIVES,
        DATASETS,
        AUTOENCODERS,
        EXTRACTORS,
        METRICS,
        ATTENTION,
    )
)
