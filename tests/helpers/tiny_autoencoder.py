"""An autoencoder of the published kind, with few and random weights."""

import torch
from diffusers import AutoencoderKL


def save_autoencoder(folder, latent_channels=4, **options):
    """Saves one that makes a code of 4x4 of an image of 8x8."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            layers_per_block=1,
            latent_channels=latent_channels,
            sample_size=8,
            **options,
        )
    network.save_pretrained(folder)
    return network
