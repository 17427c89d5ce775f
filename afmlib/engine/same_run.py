"""The checks that a run is that of its checkpoint, and the same in all processes."""

__all__ = ["check_conventions", "check_same_command", "check_same_run"]

from collections.abc import Mapping
from typing import Any

from afmlib import processes
from afmlib.config import ConfigError, with_defaults
from afmlib.config.yaml_files import parse
from afmlib.io.checkpoint import CheckpointError, read_config, read_manifest
from afmlib.registry import OBJECTIVES, ComponentError

SAME = (
    "objective",
    "updates",
    "data",
    "seed",
    "global_batch",
    "optimizers",
    "ema",
    "precision",
    "phases",
)
"""The config keys that must not change. In a list of phases, later ones may change."""

RENAMED = {
    "discretisation": "discretization",
    "log_deviation": "log_std",
    "time_deviation": "time_std",
    "labelled": "labeled",
    "TrainedClassifier": "PretrainedClassifier",
    "TrainedVelocity": "PretrainedVelocity",
    "PublishedClassifier": "OfficialClassifier",
    "ForwardModeDerivative": "ForwardModeJVP",
    "FiniteDifferenceDerivative": "FiniteDifferenceJVP",
}
"""Old names of keys and types, which configs in older checkpoints have."""

PLACES = {"path", "checkpoint"}
"""Arguments that are paths. The files may have moved."""


def check_same_command(config: Mapping[str, Any], folder: str, resume: bool) -> None:
    """Checks that all processes were started with the same command.

    Raises:
        ConfigError: If this process differs from the first one.
    """
    here = {"folder": folder, "resume": resume, "config": _plain(config)}
    first = processes.from_first(here)
    found = next(filter(None, (_difference(key, here[key], first[key]) for key in here)), None)
    if processes.any_of(found is not None):
        raise ConfigError(
            f"The {processes.size()} processes of a run need the same command, and that of process "
            f"{processes.rank()} is {'that of the first one' if found is None else 'another one'}"
            f"{'' if found is None else f': {found}'}. For separate runs under srun, set "
            "WORLD_SIZE=1."
        )


def check_same_run(folder: str, config: Mapping[str, Any], manifest: Mapping[str, Any]) -> None:
    """Checks that a config continues the run of a checkpoint.

    Args:
        folder: The folder of the checkpoint.
        config: The whole config of the resumed run.
        manifest: The manifest that the resumed run would write now.

    Raises:
        CheckpointError: Names the field that differs.
    """
    there = read_manifest(folder)
    check_conventions(folder, there, manifest["conventions"])
    if there.get("draws_version", 1) != manifest["draws_version"]:
        raise CheckpointError(
            f"The checkpoint {folder} cannot be resumed: another version of afmlib wrote it, which "
            "drew other random numbers from the seed. It can be sampled and evaluated, and a new "
            "run can start from it with init_from."
        )
    stored = parse(read_config(folder), f"The config of {folder}")
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"The config of {folder} holds no keys and values.")
    stored, here = with_defaults(_renamed(stored)), with_defaults(config)
    if stored["phases"]:  # A run that began without phases keeps no state of them.
        seen = there.get("num_images")
        stored["phases"], here["phases"] = (_started(c["phases"], seen) for c in (stored, here))
    for run in (stored, here):
        if isinstance(run["updates"], Mapping):  # The config of a checkpoint may hold anything.
            run["updates"] = {**_players(run["objective"]), **run["updates"]}
    for key in SAME:
        difference = _difference(key, stored.get(key), here.get(key))
        if difference:
            raise CheckpointError(
                f"The checkpoint {folder} is of another run: {difference}. Resume with the same "
                "config, or name another folder."
            )
    if there.get("num_samples") != manifest["num_samples"]:
        raise CheckpointError(
            f"The checkpoint {folder} is of another run: it was trained on "
            f"{there.get('num_samples')} samples, and the data have {manifest['num_samples']}."
        )


def check_conventions(
    folder: str, manifest: Mapping[str, Any], conventions: Mapping[str, Any]
) -> None:
    """Checks that a checkpoint has the given conventions.

    Raises:
        CheckpointError: Names the field that differs.
    """
    stored = manifest.get("conventions")
    for name, value in conventions.items():
        there = stored.get(name) if isinstance(stored, Mapping) else None
        if _plain(there) != _plain(value):
            raise CheckpointError(
                f"The checkpoint {folder} is of another model: its {name} is {there!r}, "
                f"not {value!r}."
            )


def _plain(value: Any) -> Any:
    """Returns a value as JSON stores it, which has no tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _players(objective: Any) -> Mapping[str, int]:
    """Returns the default updates of an objective's players."""
    try:
        return OBJECTIVES.resolve(objective)[0].players  # type: ignore[attr-defined]
    except ComponentError:  # The comparison of the objectives names what is wrong.
        return {}


def _renamed(tree: Any) -> Any:
    """Returns a stored config with the current names of keys and types."""
    if isinstance(tree, Mapping):
        return {RENAMED.get(key, key): _renamed(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_renamed(value) for value in tree]
    return RENAMED.get(tree, tree) if isinstance(tree, str) else tree


def _started(phases: Any, num_images: Any) -> Any:
    """Returns the phases of a list that have started; later ones may be edited."""
    if not isinstance(phases, list | tuple) or not isinstance(num_images, int):
        return phases

    def is_later(phase: Any) -> bool:
        at = phase.get("at") if isinstance(phase, Mapping) else None
        return isinstance(at, int) and at > num_images

    return [phase for phase in phases if not is_later(phase)]


def _difference(path: str, stored: Any, here: Any) -> str | None:
    """Describes the first difference of two configs, or returns None."""
    if isinstance(stored, Mapping) and isinstance(here, Mapping):
        for key in sorted({*stored, *here} - PLACES, key=lambda key: (key != "type", key)):
            found = _difference(f"{path}.{key}", stored.get(key), here.get(key))
            if found:
                return found
        return None
    lists = isinstance(stored, list | tuple) and isinstance(here, list | tuple)
    if lists and len(stored) == len(here):  # YAML has no tuples.
        pairs = enumerate(zip(stored, here, strict=True))
        differences = (_difference(f"{path}[{index}]", *pair) for index, pair in pairs)
        return next(filter(None, differences), None)
    return None if stored == here else f"its {path} is {stored!r}, not {here!r}"
