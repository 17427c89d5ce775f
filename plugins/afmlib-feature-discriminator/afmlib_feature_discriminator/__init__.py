"""A discriminator on frozen features of a timm backbone, as a plugin of afmlib."""

__all__ = ["FeatureDiscriminator"]

from afmlib_feature_discriminator.discriminator import FeatureDiscriminator
