"""The convolutional networks of R3GAN, as a plugin of afmlib."""

__all__ = ["PRESETS", "R3GANDiscriminator", "R3GANGenerator"]

from afmlib_r3gan.blocks import PRESETS
from afmlib_r3gan.discriminator import R3GANDiscriminator
from afmlib_r3gan.generator import R3GANGenerator
