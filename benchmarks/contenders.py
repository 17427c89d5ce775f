"""Who takes part: a config by name, with overrides of its own.

``afm_digits:objective.discriminator.type=MyDiscriminator`` is the config ``afm_digits`` with one
key replaced; further ones are joined by further colons.
"""

__all__ = ["Budget", "Contender", "parse_budget", "parse_contender"]

import re
from dataclasses import dataclass
from typing import Any

from afmlib.config import ConfigError, load_config


@dataclass(frozen=True)
class Contender:
    """A config and overrides."""

    name: str
    """As it was asked for; what tables call it."""

    config: str
    """The config's name or path."""

    overrides: tuple[str, ...]
    """Keys that are replaced."""

    def load(self, *further: str) -> dict[str, Any]:
        """Returns the config with all overrides.

        Raises:
            ConfigError: If there is none of the name; names the nearest.
        """
        return load_config(self.config, [*self.overrides, *further])

    @property
    def slug(self) -> str:
        """A name for files."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name)


@dataclass(frozen=True)
class Budget:
    """What each contender may use for training; each config's own length if both are None."""

    images: int | None = None
    """Images seen by the generator."""

    seconds: float | None = None
    """Seconds of training."""

    @property
    def text(self) -> str:
        """The budget in words."""
        if self.images is not None:
            return f"{self.images} images"
        if self.seconds is not None:
            return f"{self.seconds:g} s of training"
        return "each config's own num_images"


def parse_contender(text: str) -> Contender:
    """Parses a contender.

    Raises:
        ConfigError: If an override is not ``key=value``.
    """
    # A colon inside a value, as in {type: HingeLoss}, is no separator.
    config, *overrides = re.split(r":(?=[A-Za-z_][\w.]*=)", text)
    if ":" in config:
        raise ConfigError(f"In {text!r}, {config.split(':')[1]!r} is not an override key=value.")
    for override in overrides:
        if override.startswith("seed="):
            raise ConfigError(f"In {text!r}: seeds are for --seeds to say.")
    return Contender(text, config, tuple(overrides))


def parse_budget(text: str | None) -> Budget:
    """Parses ``90s``, ``200kimg``, ``1.5Mimg`` or ``64000img``.

    Raises:
        ConfigError: If it is none of these.
    """
    if text is None:
        return Budget()
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|img|kimg|Mimg)", text)
    if match is None or float(match[1]) <= 0:
        raise ConfigError(f"--budget is such as 90s, 200kimg or 1.5Mimg, got {text!r}.")
    number, unit = float(match[1]), match[2]
    if unit == "s":
        return Budget(seconds=number)
    return Budget(images=max(round(number * {"img": 1, "kimg": 1e3, "Mimg": 1e6}[unit]), 1))
