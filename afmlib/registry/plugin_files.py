"""Plugin files: components in a Python file of the user."""

__all__ = ["load_plugin_file", "plugin_module"]

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from afmlib.registry.component_registry import PLUGIN_FILE_PREFIX, REGISTRIES
from afmlib.registry.errors import ComponentError, PluginError, describe, shorten


def plugin_module(path: str | Path) -> str:
    """Returns the module name of a plugin file. Equal names in two folders do not collide.

    Raises:
        PluginError: If no file can have this path.
    """
    try:
        path = Path(path).expanduser().resolve()
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]
    except (OSError, ValueError, RuntimeError):  # Such as an unknown home folder.
        raise PluginError(f"There is no plugin file {shorten(str(path))}.") from None
    return f"{PLUGIN_FILE_PREFIX}{path.stem}_{digest}"


def load_plugin_file(path: str | Path) -> None:
    """Runs a Python file of the user, which registers components with the decorators.

    A file runs only once. A file that raises leaves nothing registered.

    Raises:
        PluginError: If the file does not exist or raises.
    """
    name = plugin_module(path)
    if name in sys.modules:
        return
    path = Path(path).expanduser().resolve()
    if not os.path.isfile(path):  # Unlike Path.is_file, False for names that are too long.
        shown = str(path) if len(str(path)) < 300 else shorten(str(path))
        raise PluginError(f"There is no plugin file {shown}.")
    module_spec = importlib.util.spec_from_file_location(name, path)
    if module_spec is None or module_spec.loader is None:
        raise PluginError(f"The plugin file {path} is not a Python file.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    try:
        module_spec.loader.exec_module(module)
    except BaseException as error:  # A plugin may raise anything.
        del sys.modules[name]
        for registry in REGISTRIES.values():
            registry.forget(name)
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, ComponentError):
            raise PluginError(f"The plugin file {path} is not valid: {error}") from error
        raise PluginError(f"The plugin file {path} cannot be run: {describe(error)}") from error
