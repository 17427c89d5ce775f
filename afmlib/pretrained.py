"""Networks that were trained before, as parts of what is trained now.

They are components like any other, so that a config names them by one line:

    classifier: {type: PretrainedClassifier, checkpoint: runs/classifier_digits}

Their weights are frozen. They lie in the checkpoint that they come from, and are not copied into
those of a run that uses them: of them it saves a hash alone, and refuses to go on with others.
"""

__all__ = ["OfficialClassifier", "PretrainedClassifier", "PretrainedVelocity", "load_classifier"]

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from afmlib.interfaces import Classifier, Conventions, Generator
from afmlib.io.checkpoint import CheckpointError, find_checkpoint, read_manifest
from afmlib.io.official_files import read_published
from afmlib.metrics.content_hash import content_hash
from afmlib.official import latent_scale_of, load_official
from afmlib.parameterizations import InstantaneousVelocity
from afmlib.registry import CLASSIFIERS
from afmlib.sampling import load_checkpoint, load_network
from afmlib.typing import Labels, Latents, Timesteps


def load_classifier(path: str, ema: bool = True, device: torch.device | str = "cpu") -> Classifier:
    """Loads a classifier of noised latents from a checkpoint, or from the newest of a run.

    Args:
        path: The folder of a checkpoint, or the work directory of a run of `ClassifierTraining`.
        ema: Whether to take the averaged weights instead of the online ones.
        device: Where to put it.

    Raises:
        CheckpointError: If there is none, it is damaged, or its classifier is unknown here.
    """
    classifier = load_network(find_checkpoint(str(path)), CLASSIFIERS, "classifier", ema)
    return classifier.requires_grad_(False).eval().to(device)


class PretrainedClassifier(Classifier):
    """A classifier out of a checkpoint, with weights that stay as they are.

    Args:
        checkpoint: The folder of a checkpoint, or of a run of `ClassifierTraining`: a path or URL.
        ema: Whether to take the averaged weights instead of the online ones.

    Raises:
        CheckpointError: If there is none, or it is damaged.
    """

    def __init__(self, checkpoint: str, ema: bool = True) -> None:
        super().__init__()
        self.checkpoint = find_checkpoint(checkpoint)
        self.conventions = _conventions_of(self.checkpoint)
        self.network = _Held(load_classifier(self.checkpoint, ema), self.checkpoint)

    def extra_repr(self) -> str:
        return f"checkpoint={self.checkpoint!r}"

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        return self.network(latents, timesteps)


class OfficialClassifier(Classifier):
    """The authors' classifier of noised latents, out of its published file.

    Args:
        checkpoint: The file, ``.pth`` or ``.safetensors``: a path or URL.
        num_heads: The number of attention heads; that of the published network of this width unless
            given.

    Raises:
        CheckpointError: If it is damaged, or of another network.
    """

    def __init__(self, checkpoint: str, num_heads: int | None = None) -> None:
        super().__init__()
        published = read_published(checkpoint, num_heads)
        if published.kind != "classifier":
            raise CheckpointError(f"{checkpoint} holds a {published.kind}, not a classifier.")
        network = load_official(checkpoint, num_heads=num_heads)
        assert isinstance(network, Classifier)
        arguments = published.arguments
        channels, side = arguments["in_channels"], arguments["input_size"]
        self.checkpoint = checkpoint
        self.conventions: Mapping[str, Any] = {
            "num_classes": arguments["num_classes"],
            "latent_shape": [channels, side, side],
            "latent_scale": latent_scale_of(channels),
            "time": Conventions.time,
        }
        self.network = _Held(network, checkpoint)

    def extra_repr(self) -> str:
        return f"checkpoint={self.checkpoint!r}"

    def forward(self, latents: Latents, timesteps: Timesteps) -> Tensor:
        return self.network(latents, timesteps)


class PretrainedVelocity(Generator):
    """The velocity of a flow-matching model out of a checkpoint, with weights that stay.

    Args:
        checkpoint: The folder of a checkpoint, or of a run of `FlowMatching`: a path or URL.
        ema: Whether to take the averaged weights instead of the online ones.

    Raises:
        CheckpointError: If there is none, it is damaged, or its model has no velocity at one time.
    """

    def __init__(self, checkpoint: str, ema: bool = True) -> None:
        super().__init__()
        self.checkpoint = find_checkpoint(checkpoint)
        self.conventions = _conventions_of(self.checkpoint)
        model = load_checkpoint(self.checkpoint, ema)
        if not isinstance(model.parameterization, InstantaneousVelocity):
            raise CheckpointError(
                f"The checkpoint {self.checkpoint} is of another model: its parameterization is "
                f"{type(model.parameterization).__name__}, not InstantaneousVelocity."
            )
        self.network = _Held(model.generator, self.checkpoint)
        self.latent_shape = model.generator.latent_shape
        self.num_classes = model.generator.num_classes
        self.class_dropout_prob = model.generator.class_dropout_prob

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


class _Held(nn.Module):
    """A frozen network of whose weights a state has a hash alone.

    Args:
        network: The network.
        source: Where its weights come from.
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
        """Refuses to go on with other weights.

        Raises:
            ValueError: Says where these are from.
        """
        if not torch.equal(self.weights_hash, state.cpu()):
            raise ValueError(
                f"the weights in {self.source} are others than those that the run began with."
            )


def _leave_out(owner: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(f"{prefix}network.")]:
        del state[key]


def _put_back(owner: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    own = owner.get_submodule("network").state_dict()
    state.update({f"{prefix}network.{name}": tensor for name, tensor in own.items()})
