r"""The interfaces of the library. A plugin author needs one file of this package.

A component derives from one of these classes, implements its abstract methods, and is then
interchangeable with every other component of its group. Shapes are in :mod:`afmlib.typing`.

Time 0 is data and time 1 is noise, everywhere. Components are plain torch modules that work in any
training loop. They do not import the registry or the engine.
"""

__all__ = [
    "AdversarialLoss",
    "AttentionBackend",
    "Augmentation",
    "Autoencoder",
    "BatchStatistic",
    "Classifier",
    "Conventions",
    "Dataset",
    "DepthWrapper",
    "DirectionalDerivative",
    "Discretization",
    "Discriminator",
    "Draws",
    "Evaluation",
    "EvaluationSetup",
    "FeatureExtractor",
    "Generated",
    "Generator",
    "GradientPenalty",
    "Guidance",
    "Metric",
    "Number",
    "Objective",
    "Parameterization",
    "PointDataset",
    "Regularizer",
    "RepeatableGenerator",
    "SampleModel",
    "Schedule",
    "Statistics",
    "Terms",
    "TransportField",
    "average_name",
]

from afmlib.interfaces.data import (
    Autoencoder,
    Dataset,
    PointDataset,
)
from afmlib.interfaces.evaluation import (
    Evaluation,
    EvaluationSetup,
    FeatureExtractor,
    Metric,
    Number,
    Statistics,
)
from afmlib.interfaces.losses import (
    AdversarialLoss,
    Augmentation,
    Generated,
    GradientPenalty,
    Guidance,
    Regularizer,
    TransportField,
)
from afmlib.interfaces.networks import (
    AttentionBackend,
    Classifier,
    DepthWrapper,
    Discriminator,
    Generator,
    RepeatableGenerator,
)
from afmlib.interfaces.objective import (
    BatchStatistic,
    DirectionalDerivative,
    Discretization,
    Draws,
    Objective,
    Schedule,
    Terms,
    average_name,
)
from afmlib.interfaces.sampling import (
    Conventions,
    Parameterization,
    SampleModel,
)
