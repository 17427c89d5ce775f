"""Tests for afmlib.config.data_arguments."""

import torch

from afmlib import build_objective
from afmlib.config import load_config, with_data_arguments
from afmlib.interfaces import Dataset


class _Photos(Dataset):
    latent_shape = (3, 16, 16)
    num_classes = 7
    class_names = tuple("abcdefg")

    def __len__(self):
        return 1

    def __getitems__(self, indices):
        return torch.zeros(len(indices), *self.latent_shape), torch.zeros(len(indices)).long()

    def augment(self, stored, draws):
        return stored


def test_arguments_of_the_data():
    objective = with_data_arguments(load_config("afm_digits")["objective"], _Photos())

    for role in ("generator", "discriminator"):
        assert (
            objective[role] | {"input_size": 16, "in_channels": 3, "num_classes": 7}
            == (objective[role])
        )
    assert build_objective(objective).generator.latent_shape == (3, 16, 16)


def test_generator_in_a_depth_wrapper():
    objective = with_data_arguments(load_config("afm_deep_digits")["objective"], _Photos())

    assert objective["generator"]["generator"]["input_size"] == 16
    assert "input_size" not in objective["generator"]


def test_arguments_of_the_config():
    config = load_config("afm_digits", ["objective.generator.num_classes=20"])

    objective = with_data_arguments(config["objective"], _Photos())

    assert objective["generator"]["num_classes"] == 20
    assert objective["discriminator"]["num_classes"] == 7
