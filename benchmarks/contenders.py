"""Contenders: a config with overrides, or a checkpoint.

``afm_digits:objective.discriminator.type=MyDiscriminator`` is the config ``afm_digits`` with one
override; more overrides follow after more colons. ``afm_digits=runs/mine`` is a checkpoint,
evaluated by the protocol of that config.
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
from pathlib import Path
from typing import Any

from afmlib.config import ConfigError, check_config, load_config
from afmlib.registry import InterfaceError, MissingPluginError, PluginError, load_plugin_file

LONGEST_SLUG = 150


@dataclass(frozen=True)
class Contender:
    """A config with overrides, or a checkpoint."""

    name: str
    """As typed by the user, without the folder and the end of a file: its label in the report."""

    config: str
    """A name or path."""

    overrides: tuple[str, ...]
    checkpoint: str | None = None
    """A path or URL of a model, which is evaluated instead of trained."""

    def load(self, *more: str, plugins: Sequence[str] = ()) -> dict[str, Any]:
        """Returns the config with all overrides.

        Args:
            more: More overrides.
            plugins: Plugin files. They are loaded first, since the config may name what they
                register, and become part of the config.

        Raises:
            ConfigError: If there is no such config; names the nearest.
        """
        for plugin in plugins:
            load_plugin_file(plugin)
        config = load_config(self.config, [*self.overrides, *more])
        if plugins:
            config["plugins"] = [*(config.get("plugins") or []), *plugins]
        return config

    @property
    def slug(self) -> str:
        """The name, as part of a file name."""
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name)
        if len(slug) <= LONGEST_SLUG:
            return slug
        return f"{slug[:LONGEST_SLUG]}-{zlib.crc32(self.name.encode()):08x}"


@dataclass(frozen=True)
class Budget:
    """The training of each contender; each config's own length if both are None."""

    images: int | None = None
    """Images seen by the generator."""

    seconds: float | None = None

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
    # A colon inside a value, as in {type: HingeLoss}, does not separate.
    config, *overrides = re.split(r":(?=[A-Za-z_][\w.]*=)", text)
    if ":" in config:
        raise ConfigError(f"In {text!r}, {config.split(':')[1]!r} is not an override key=value.")
    for override in overrides:
        if override.startswith("seed="):
            raise ConfigError(f"In {text!r}: set seeds with --seeds.")
    is_file = config.endswith((".yaml", ".yml"))
    name = ":".join([Path(config).stem if is_file else config, *overrides])
    return Contender(name, config, tuple(overrides))


def parse_checkpoint(text: str, names: Collection[str]) -> Contender:
    """Parses ``NAME=PATH_OR_URL``: a checkpoint, evaluated by the protocol of contender ``NAME``.

    Args:
        text: The text.
        names: The names of the contenders. Their overrides have equals signs, too.

    Raises:
        ConfigError: If the text does not have this form.
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


def check_contenders(contenders: Sequence[Contender], plugins: Sequence[str] = ()) -> None:
    """Checks all configs before anything runs.

    Raises:
        ConfigError: If a config is wrong, or two contenders would write the same files.
    """
    slugs: dict[str, Contender] = {}
    for contender in contenders:
        other = slugs.setdefault(contender.slug, contender)
        if other != contender:
            raise ConfigError(
                f"{other.config!r} and {contender.config!r} would write the same files "
                f"{contender.slug!r}."
            )
        try:
            check_config(contender.load(plugins=plugins))
        except ConfigError as error:
            kinds = (MissingPluginError, PluginError, InterfaceError)
            if not any(isinstance(cause, kinds) for cause in _causes(error)):
                raise  # A broken plugin becomes a row of the results.


def is_missing_plugin(error: BaseException) -> bool:
    """Returns whether an error says that one of our plugins is not installed."""
    return any(isinstance(cause, MissingPluginError) for cause in _causes(error))


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
