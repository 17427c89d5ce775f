"""The plugins that stand beside the library in its repository, and what they bring.

So a name that is missing because its plugin is not installed is answered with how to install it.
Nothing of them is known here but names.
"""

__all__ = ["installable", "installation"]

_FIRST_PARTY = {
    "discriminators": {
        "ConvDiscriminator": "afmlib-conv-discriminator",
        "FeatureDiscriminator": "afmlib-feature-discriminator",
        "R3GANDiscriminator": "afmlib-r3gan",
    },
    "generators": {"R3GANGenerator": "afmlib-r3gan"},
}


def installable(group: str) -> dict[str, str]:
    """Returns the names that plugins of the repository bring to a group, and the plugin of each."""
    return _FIRST_PARTY.get(group, {})


def installation(distribution: str) -> str:
    """Returns the command that installs a plugin, in a clone of the repository."""
    return f"pip install ./plugins/{distribution}"
