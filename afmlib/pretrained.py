"""Pretrained networks, as frozen components of a new run.

A config names them in one line:

    classifier: {type: PretrainedClassifier, checkpoint: runs/classifier_digits}

The checkpoints of the new run store only a hash of their weights. Resuming with other weights is an
error.
"""

__all__ = ["OfficialClassifier", "PretrainedClassifier", "PretrainedVelocity", "load_classifier"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.interfaces import Classifier, Conventions, Generator
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, read_manifest
from afmlib.io.content_hash import content_hash
from afmlib.io.official_files import read_official
from afmlib.official import latent_scale_of, load_official
from afmlib.parameterizations import InstantaneousVelocity
from afmlib.registry import CLASSIFIERS
from afmlib.sampling import load_checkpoint, load_network
from afmlib.typing import Labels, Latents, Timesteps


def load_classifier(
    path: str, ema: bool | float = True, device: torch.device | str = "cpu"
) -> Classifier:
    """Loads a classifier of noisy latents from a checkpoint, or from the last one of a run.

    Args:
        path: The folder of a checkpoint, or the work directory of a `ClassifierTraining` run.
        ema: Whether to load the EMA weights instead of the online weights.
        device: The device of the result.

    Raises:
        CheckpointError: If the checkpoint is missing or corrupt, or its classifier is unknown.
    """
    classifier = load_network(find_checkpoint(str(path)), CLASSIFIERS, "classifier", ema)
    return classifier.requires_grad_(False).eval().to(device)


class PretrainedClassifier(Classifier):
    """A frozen classifier from a checkpoint.

    Args:
        checkpoint: The folder of a checkpoint or of a `ClassifierTraining` run: a path or URL.
        ema: Whether to load the EMA weights instead of the online weights.

    Raises:
        CheckpointError: If the checkpoint is missing or corrupt.
    """

    def __init__(self, checkpoint: str, ema: bool = True) -> None:
        super().__init__()
        self.checkpoint = find_checkpoint(checkpoint)
        self.conventions = _conventions_of(self.checkpoint)
        classifier = load_classifier(self.checkpoint, ema)
        self.latent_shape, self.num_classes = classifier.latent_shape, classifier.num_classes
        self.network = _Frozen(classifier, self.checkpoint)

    def extra_repr(self) -> str:
        return f"checkpoint={self.checkpoint!r}"

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        return self.network(latents, timesteps)


class OfficialClassifier(Classifier):
    """The official classifier of noisy latents, frozen.

    Args:
        checkpoint: The file, ``.pth`` or ``.safetensors``: a path or URL.
        num_heads: The number of attention heads. Defaults to that of the official network of this
            width.

    Raises:
        CheckpointError: If the file is corrupt or holds another network.
    """

    def __init__(self, checkpoint: str, num_heads: int | None = None) -> None:
        super().__init__()
        official = read_official(checkpoint, num_heads)
        if official.kind != "classifier":
            raise CheckpointError(f"{checkpoint} holds a {official.kind}, not a classifier.")
        network = load_official(checkpoint, num_heads=num_heads)
        assert isinstance(network, Classifier)
        arguments = official.arguments
        channels, side = arguments["in_channels"], arguments["input_size"]
        self.checkpoint = checkpoint
        self.conventions: Mapping[str, Any] = {
            "num_classes": arguments["num_classes"],
            "latent_shape": [channels, side, side],
            "latent_scale": latent_scale_of(channels),
            "time": Conventions.time,
        }
        self.latent_shape, self.num_classes = network.latent_shape, network.num_classes
        self.network = _Frozen(network, checkpoint)

    def extra_repr(self) -> str:
        return f"checkpoint={self.checkpoint!r}"

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        return self.network(latents, timesteps)


class PretrainedVelocity(Generator):
    """The frozen velocity network of a flow-matching checkpoint.

    Args:
        checkpoint: The folder of a checkpoint or of a `FlowMatching` run: a path or URL.
        ema: Whether to load the EMA weights instead of the online weights.

    Raises:
        CheckpointError: If the checkpoint is missing or corrupt, or its parameterization is not
            `InstantaneousVelocity`.
    """

    def __init__(self, checkpoint: str, ema: bool = True) -> None:
        super().__init__()
        self.checkpoint = find_checkpoint(checkpoint)
        self.conventions = _conventions_of(self.checkpoint)
        model = load_checkpoint(self.checkpoint, ema)
        if not isinstance(model.parameterization, InstantaneousVelocity):
            raise CheckpointError(
                f"The checkpoint {self.checkpoint} is not a flow-matching model: its "
                f"parameterization is {type(model.parameterization).__name__}, not "
                "InstantaneousVelocity."
            )
        self.network = _Frozen(model.generator, self.checkpoint)
        self.latent_shape = model.generator.latent_shape
        self.num_classes = model.generator.num_classes
        self.class_dropout_prob = model.generator.class_dropout_prob
        self.embeds_timestep_src = model.generator.embeds_timestep_src
        self.embeds_timestep_tgt = model.generator.embeds_timestep_tgt

    def extra_repr(self) -> str:
        return f"checkpoint={self.checkpoint!r}"

    def forward(
        self,
        latents: Latents,
        labels: Labels,
        timesteps_src: Timesteps | None = None,
        timesteps_tgt: Timesteps | None = None,
    ) -> Latents:
        return self.network(latents, labels, timesteps_src, timesteps_tgt)


def _conventions_of(folder: str) -> Mapping[str, Any]:
    conventions = read_manifest(folder).get("conventions")
    if not isinstance(conventions, Mapping):
        raise CheckpointError(f"The checkpoint {folder} has no conventions.")
    return conventions


class _Frozen(nn.Module):
    """A frozen network; its state dict stores only a hash of the weights.

    Args:
        network: The network.
        source: The checkpoint of its weights.
    """

    def __init__(self, network: nn.Module, source: str) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.source = source
        digest = content_hash(network.state_dict()).encode()
        self.weights_hash = torch.tensor(list(digest), dtype=torch.uint8)
        self.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_put_back)  # type: ignore[no-untyped-call]

    def forward(self, *arguments: Any) -> Tensor:
        return self.network(*arguments)

    def get_extra_state(self) -> Tensor:
        return self.weights_hash

    def set_extra_state(self, state: Tensor) -> None:
        if not torch.equal(self.weights_hash, state.cpu()):
            raise ValueError(
                f"the weights in {self.source} differ from the weights this run started with."
            )


def _leave_out(owner: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}network.")]:
        del state[key]


def _put_back(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = owner.get_submodule("network").state_dict()
    state.update({f"{prefix}network.{name}": tensor for name, tensor in own.items()})
