"""A pipeline of diffusers for every model of this library.

Its class is part of this library, so that diffusers loads a folder without ``trust_remote_code``.
"""

__all__ = ["AFMGenerator", "AFMPipeline"]

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from afmlib.io.class_names import label_indices
from afmlib.sampling import build_model


class AFMGenerator(ModelMixin, ConfigMixin):
    """A generator with its conventions, as a model of diffusers.

    Args:
        generator: The spec of the network.
        conventions: The meaning of its output.
        autoencoder: The spec of its autoencoder, if that is one of this library.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        generator: Mapping[str, Any],
        conventions: Mapping[str, Any],
        autoencoder: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model = build_model(generator, conventions, autoencoder)

    def forward(self, noises: Tensor, labels: Tensor, nfe: int | None = None) -> Tensor:
        """Carries noises to samples."""
        return self.model(noises, labels, nfe)


class AFMPipeline(DiffusionPipeline):
    """Makes images of classes.

    Args:
        generator: The generator.
        vae: The autoencoder, for a model of latents.
        class_names: The name of each class.
    """

    model_cpu_offload_seq = "generator->vae"
    _optional_components: ClassVar[list[str]] = ["vae"]

    def __init__(
        self,
        generator: AFMGenerator,
        vae: Any = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(generator=generator, vae=vae)
        self.register_to_config(class_names=class_names)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str] | int | str,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Makes one image of each label.

        Args:
            class_labels: Class indices or names.
            num_inference_steps: The number of network evaluations. Defaults to the model's.
            generator: The random generator of the noises.
            latents: The noises. Defaults to those of ``generator``.
            output_type: "pil", "np" (0 to 1, N x H x W x C), "pt" (0 to 1, N x C x H x W) or
                "latent", which is not decoded.
            return_dict: Whether to return an `ImagePipelineOutput` instead of a tuple.
        """
        if output_type not in ("pil", "np", "pt", "latent"):
            raise ValueError(f"output_type is 'pil', 'np', 'pt' or 'latent', got {output_type!r}.")
        known = self.generator.model.conventions
        given = [class_labels] if isinstance(class_labels, int | str) else list(class_labels)
        names = self.config.class_names
        indices = label_indices([str(label) for label in given], known.num_classes, names)
        device, dtype = self._execution_device, self.generator.dtype
        if latents is None:
            shape = (len(indices), *(known.latent_shape or ()))
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        labels = torch.tensor(indices, device=device)
        made = self.generator(latents.to(device, dtype), labels, num_inference_steps)
        images: Any = made if output_type == "latent" else self._finish(made, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _finish(self, samples: Tensor, output_type: str) -> Any:
        model = self.generator.model
        if self.vae is not None:
            samples = self.vae.decode(samples / self.vae.config.scaling_factor).sample
        elif model.autoencoder is not None:
            samples = model.autoencoder.decode(samples)
        elif model.is_latent:
            raise ValueError("This pipeline has no vae: use output_type='latent'.")
        images = (samples / 2 + 0.5).clamp(0, 1).float()
        if output_type == "pt":
            return images
        arrays = images.permute(0, 2, 3, 1).cpu().numpy()
        return self.numpy_to_pil(arrays) if output_type == "pil" else arrays
