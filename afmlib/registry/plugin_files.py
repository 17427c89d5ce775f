"""A plugin in a file of the user's own, for tonight's experiment."""

__all__ = ["load_plugin_file"]

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from afmlib.registry.component_registry import PLUGIN_FILE_PREFIX, REGISTRIES
from afmlib.registry.errors import ComponentError, PluginError, shorten


def load_plugin_file(path: str | Path) -> None:
    """Runs a Python file of the user's own, which registers components with the decorators.

    A file that was loaded before is not run again. One that raises leaves nothing registered.

    Raises:
        PluginError: If the file does not exist or raises.
    """
    path, exists = _resolve(path)
    name = _module_name(path)
    if name in sys.modules:
        return
    if not exists:
        raise PluginError(f"There is no plugin file {path}.")
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise PluginError(f"The plugin file {path} is not a Python file.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # A plugin may raise anything.
        del sys.modules[name]
        for registry in REGISTRIES.values():
            registry.forget(name)
        if isinstance(error, ComponentError):
            raise PluginError(f"The plugin file {path} is refused: {error}") from error
        raise PluginError(
            f"The plugin file {path} cannot be run: {type(error).__name__}: {error}"
        ) from error


def _resolve(path: str | Path) -> tuple[Path, bool]:
    """Returns the whole path and whether a file is there."""
    try:
        path = Path(path).expanduser().resolve()
        return path, path.is_file()
    except (OSError, ValueError, RuntimeError):  # No such home, or a name that no file can have.
        raise PluginError(f"There is no plugin file {shorten(str(path))}.") from None


def _module_name(path: Path) -> str:
    """Returns a name that files of the same name in different folders do not share."""
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    return f"{PLUGIN_FILE_PREFIX}{path.stem}_{digest}"
