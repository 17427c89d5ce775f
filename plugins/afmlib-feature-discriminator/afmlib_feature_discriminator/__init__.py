"""A discriminator on frozen features of a backbone of timm, as a plugin of afmlib."""

__all__ = ["FeatureDiscriminator"]

from afmlib_feature_discriminator.discriminator import FeatureDiscriminator
