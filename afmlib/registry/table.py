"""The table of built-ins: every group, its interface, and where each class is."""

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
    "GENERATORS",
    "GUIDANCE",
    "LOSSES",
    "METRICS",
    "OBJECTIVES",
    "PARAMETERIZATIONS",
    "PENALTIES",
    "SCHEDULES",
]

from typing import Any

from afmlib.registry.component_registry import REGISTRIES, ComponentRegistry

BUILTINS: dict[str, tuple[str, dict[str, str]]] = {
    "depths": (
        "afmlib.interfaces:DepthWrapper",
        {
            "RepeatBlocks": "afmlib.networks.repeat:RepeatBlocks",
            "RepeatDepth": "afmlib.networks.repeat:RepeatDepth",
        },
    ),
    "generators": (
        "afmlib.interfaces:Generator",
        {
            "DiTGenerator": "afmlib.networks.dit:DiTGenerator",
            "MLPGenerator": "afmlib.networks.mlp:MLPGenerator",
            "PretrainedVelocity": "afmlib.pretrained:PretrainedVelocity",
        },
    ),
    "discriminators": (
        "afmlib.interfaces:Discriminator",
        {
            "DiTDiscriminator": "afmlib.networks.dit:DiTDiscriminator",
            "MLPDiscriminator": "afmlib.networks.mlp:MLPDiscriminator",
        },
    ),
    "classifiers": (
        "afmlib.interfaces:Classifier",
        {
            "DiTClassifier": "afmlib.networks.dit:DiTClassifier",
            "MLPClassifier": "afmlib.networks.mlp:MLPClassifier",
            "OfficialClassifier": "afmlib.pretrained:OfficialClassifier",
            "PretrainedClassifier": "afmlib.pretrained:PretrainedClassifier",
        },
    ),
    "losses": (
        "afmlib.interfaces:AdversarialLoss",
        {
            "HingeLoss": "afmlib.losses.hinge:HingeLoss",
            "LeastSquaresLoss": "afmlib.losses.least_squares:LeastSquaresLoss",
            "NonSaturatingLoss": "afmlib.losses.non_saturating:NonSaturatingLoss",
            "RelativisticLoss": "afmlib.losses.relativistic:RelativisticLoss",
            "WassersteinLoss": "afmlib.losses.wasserstein:WassersteinLoss",
        },
    ),
    "penalties": (
        "afmlib.interfaces:GradientPenalty",
        {
            "AutogradPenalty": "afmlib.losses.gradient_penalty:AutogradPenalty",
            "FiniteDifferencePenalty": "afmlib.losses.gradient_penalty:FiniteDifferencePenalty",
        },
    ),
    "derivatives": (
        "afmlib.interfaces:DirectionalDerivative",
        {
            "FiniteDifferenceJVP": "afmlib.derivatives:FiniteDifferenceJVP",
            "ForwardModeJVP": "afmlib.derivatives:ForwardModeJVP",
        },
    ),
    "guidance": (
        "afmlib.interfaces:Guidance",
        {
            "ClassifierGuidance": "afmlib.losses.classifier_guidance:ClassifierGuidance",
            "ImplicitClassifierGuidance": "afmlib.losses.implicit_guidance:ImplicitClassifierGuidance",
            "TargetClassifierGuidance": "afmlib.losses.classifier_guidance:TargetClassifierGuidance",
        },
    ),
    "augmentations": (
        "afmlib.interfaces:Augmentation",
        {
            "PairedAugmentation": "afmlib.augmentation.paired:PairedAugmentation",
        },
    ),
    "schedules": (
        "afmlib.interfaces:Schedule",
        {
            "ConstantSchedule": "afmlib.schedules:ConstantSchedule",
            "CosineSchedule": "afmlib.schedules:CosineSchedule",
            "LinearSchedule": "afmlib.schedules:LinearSchedule",
            "PiecewiseSchedule": "afmlib.schedules:PiecewiseSchedule",
        },
    ),
    "discretizations": (
        "afmlib.interfaces:Discretization",
        {
            "DoublingGrid": "afmlib.noise_levels:DoublingGrid",
            "ShrinkingGap": "afmlib.noise_levels:ShrinkingGap",
        },
    ),
    "parameterizations": (
        "afmlib.interfaces:Parameterization",
        {
            "ConsistencyPrediction": "afmlib.consistency_functions:ConsistencyPrediction",
            "InstantaneousVelocity": "afmlib.parameterizations:InstantaneousVelocity",
            "SamplePrediction": "afmlib.parameterizations:SamplePrediction",
            "TrigFlowPrediction": "afmlib.consistency_functions:TrigFlowPrediction",
            "VelocityPrediction": "afmlib.parameterizations:VelocityPrediction",
        },
    ),
    "objectives": (
        "afmlib.interfaces:Objective",
        {
            "AdversarialFlow": "afmlib.objectives.adversarial_flow:AdversarialFlow",
            "ClassifierTraining": "afmlib.objectives.classifier_training:ClassifierTraining",
            "ConsistencyTraining": "afmlib.objectives.consistency_training:ConsistencyTraining",
            "ContinuousConsistency": "afmlib.objectives.continuous_consistency:ContinuousConsistency",
            "FlowMatching": "afmlib.objectives.flow_matching:FlowMatching",
            "MeanFlow": "afmlib.objectives.mean_flow:MeanFlow",
            "Shortcut": "afmlib.objectives.shortcut:Shortcut",
        },
    ),
    "datasets": (
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
    ),
    "autoencoders": (
        "afmlib.interfaces:Autoencoder",
        {
            "DiffusersAutoencoder": "afmlib.data.diffusers_autoencoder:DiffusersAutoencoder",
        },
    ),
    "extractors": (
        "afmlib.interfaces:FeatureExtractor",
        {
            "DigitsExtractor": "afmlib.metrics.digits_extractor:DigitsExtractor",
            "EfficientNetLiteExtractor": "afmlib.metrics.efficientnet_lite_extractor:EfficientNetLiteExtractor",
            "InceptionExtractor": "afmlib.metrics.inception_extractor:InceptionExtractor",
            "TimmExtractor": "afmlib.metrics.timm_extractor:TimmExtractor",
        },
    ),
    "metrics": (
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
    ),
    "attention": (
        "afmlib.interfaces:AttentionBackend",
        {
            "auto": "afmlib.nn.attention:AutoAttention",
            "math": "afmlib.nn.attention:MathAttention",
            "sdpa": "afmlib.nn.attention:SDPAttention",
            "xformers": "afmlib.nn.attention:XformersAttention",
        },
    ),
}
"""Group -> (interface, registered name -> ``"module:Class"``)."""

_SIZES = {
    "s": dict(hidden_size=384, depth=12, num_heads=6),
    "b": dict(hidden_size=768, depth=12, num_heads=12),
    "m": dict(hidden_size=1024, depth=16, num_heads=16),
    "l": dict(hidden_size=1024, depth=24, num_heads=16),
    "xl": dict(hidden_size=1152, depth=28, num_heads=16),
}

_DIT = {
    "generators": "DiTGenerator",
    "discriminators": "DiTDiscriminator",
    "classifiers": "DiTClassifier",
}


def _presets(group: str) -> dict[str, dict[str, Any]]:
    """Returns ``dit_s_2`` to ``dit_xl_4`` for the groups that have a DiT."""
    return {
        f"dit_{size}_{patch}": dict(type=_DIT[group], patch_size=patch, **arguments)
        for size, arguments in _SIZES.items()
        for patch in (2, 4)
        if group in _DIT
    }


for _group, (_interface, _builtins) in BUILTINS.items():
    REGISTRIES[_group] = ComponentRegistry(_group, _interface, _builtins, _presets(_group))
REGISTRIES["generators"].includes = REGISTRIES["depths"]

DEPTHS = REGISTRIES["depths"]
GENERATORS = REGISTRIES["generators"]
DISCRIMINATORS = REGISTRIES["discriminators"]
CLASSIFIERS = REGISTRIES["classifiers"]
LOSSES = REGISTRIES["losses"]
PENALTIES = REGISTRIES["penalties"]
DERIVATIVES = REGISTRIES["derivatives"]
GUIDANCE = REGISTRIES["guidance"]
AUGMENTATIONS = REGISTRIES["augmentations"]
SCHEDULES = REGISTRIES["schedules"]
DISCRETIZATIONS = REGISTRIES["discretizations"]
PARAMETERIZATIONS = REGISTRIES["parameterizations"]
OBJECTIVES = REGISTRIES["objectives"]
DATASETS = REGISTRIES["datasets"]
AUTOENCODERS = REGISTRIES["autoencoders"]
EXTRACTORS = REGISTRIES["extractors"]
METRICS = REGISTRIES["metrics"]
ATTENTION = REGISTRIES["attention"]
