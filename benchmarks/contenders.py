"""Who takes part: a config by name, with overrides of its own.

``afm_digits:objective.discriminator.type=MyDiscriminator`` is the config ``afm_digits`` with one
key replaced; further ones are joined by further colons. ``afm_digits=runs/mine`` is a trained
model, evaluated as that config says.
"""

__all__ = [
    "Budget",
    "Contender",
    "check_contenders",
    "is_missing_plugin",
    "parse_budget",
    "parse_checkpoint",
    "parse_contender",
]

import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from afmlib.config import ConfigError, check_config, load_config
from afmlib.registry import InterfaceError, MissingPluginError, PluginError

LONGEST_SLUG = 150


@dataclass(frozen=True)
class Contender:
    """A config and overrides."""

    name: str
    """As it was asked for; what tables call it."""

    config: str
    """The config's name or path."""

    overrides: tuple[str, ...]
    """Keys that are replaced."""

    checkpoint: str | None = None
    """A trained model, which is evaluated in place of training one: a path or URL."""

    def load(self, *further: str) -> dict[str, Any]:
        """Returns the config with all overrides.

        Raises:
            ConfigError: If there is none of the name; names the nearest.
        """
        return load_config(self.config, [*self.overrides, *further])

    @property
    def slug(self) -> str:
        """A name for files."""
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name)
        if len(slug) <= LONGEST_SLUG:
            return slug
        return f"{slug[:LONGEST_SLUG]}-{zlib.crc32(self.name.encode()):08x}"


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


def parse_checkpoint(text: str, names: Collection[str]) -> Contender:
    """Parses ``NAME=PATH_OR_URL``, a trained model with the contender that says how it is judged.

    Args:
        text: What is parsed.
        names: The contenders there are, whose overrides have equals signs, too.

    Raises:
        ConfigError: If it is not of this form.
    """
    known = [name for name in names if text.startswith(f"{name}=")]
    name = max(known, key=len, default=text.partition("=")[0])
    if ":" in name and not known:  # The first equals sign is that of an override.
        name = text.rpartition("=")[0]
    checkpoint = text[len(name) + 1 :]
    if not name or not checkpoint:
        raise ConfigError(f"--checkpoint is NAME=PATH_OR_URL, got {text!r}.")
    judged_as = parse_contender(name)
    return Contender(text, judged_as.config, judged_as.overrides, checkpoint)


def check_contenders(contenders: Sequence[Contender]) -> None:
    """Checks all that can be checked before anything runs.

    Raises:
        ConfigError: If a config is wrong, or the files of two contenders would have one name.
    """
    slugs: dict[str, str] = {}
    for contender in contenders:
        other = slugs.setdefault(contender.slug, contender.name)
        if other != contender.name:
            raise ConfigError(f"{other!r} and {contender.name!r} would write the same files.")
        try:
            check_config(contender.load())
        except ConfigError as error:
            if not _is_trouble_of_a_plugin(error):
                raise  # One of a plugin becomes its row, and harms no other.


def is_missing_plugin(error: BaseException) -> bool:
    """Tells whether something failed since one of our plugins is not installed."""
    return any(isinstance(cause, MissingPluginError) for cause in _causes(error))


def _is_trouble_of_a_plugin(error: BaseException) -> bool:
    kinds = (MissingPluginError, PluginError, InterfaceError)
    return any(isinstance(cause, kinds) for cause in _causes(error))


def _causes(error: BaseException | None) -> list[BaseException]:
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__
    return causes


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
