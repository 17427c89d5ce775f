"""Models on the Hugging Face Hub, copied to its local cache.

The paths are ``hf://OWNER/NAME``, ``hf://OWNER/NAME/FOLDER`` and ``hf://OWNER/NAME@REVISION``. The
cache is that of huggingface_hub: ``$HF_HOME``, with its offline mode. Only data is downloaded, no
code.
"""

__all__ = ["hub_copy", "hub_errors", "parse_hub_path", "require_hub"]

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from afmlib.io.file_systems import EXTRAS

DATA = (
    "config.json",
    "config.yaml",
    "manifest.json",
    "model.safetensors",
    "generator_ema.safetensors",
    "classifier_ema.safetensors",
    "autoencoder.safetensors",
    "model_index.json",
    "generator/config.json",
    "generator/*.safetensors",
    "transformer/config.json",
    "transformer/*.safetensors",
    "scheduler/*.json",
)
"""The files that sampling needs: of an export, and of a pipeline of diffusers."""

INDEXES = ("config.json", "manifest.json", "model_index.json")
"""A folder with one of these is a model. Other folders may be runs, which are not copied."""

_PATH = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<folder>.*))?")


def parse_hub_path(path: str) -> tuple[str, str | None, str] | None:
    """Parses a path of a model repository.

    Returns:
        The repository, the revision if given, and the folder; None for any other path.

    Example:
        >>> parse_hub_path("hf://who/what@v1/some/folder/")
        ('who/what', 'v1', 'some/folder')
        >>> parse_hub_path("hf://datasets/who/what")
    """
    match = _PATH.fullmatch(str(path))
    if match is None or match["repo"].split("/")[0] in ("datasets", "spaces", "buckets"):
        return None
    return match["repo"], match["revision"], (match["folder"] or "").strip("/")


def require_hub(what: str) -> Any:
    """Imports huggingface_hub.

    Raises:
        OSError: If it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        package, extra = EXTRAS["hf"]
        raise OSError(
            f"{what} needs the package {package}: pip install 'afmlib[{extra}]'"
        ) from error
    return huggingface_hub


def hub_copy(path: str) -> str:
    """Copies a model of the Hub to the local cache. Without a network, uses the cached copy.

    Returns:
        The local folder; the same path if it is not on the Hub, or not the folder of a model.

    Raises:
        OSError: If huggingface_hub is not installed, or the repository cannot be reached.
    """
    parts = parse_hub_path(path)
    if parts is None:
        return path
    repo, revision, folder = parts
    hub = require_hub(path)
    prefix = f"{folder}/" if folder else ""
    with hub_errors(path):
        found = hub.snapshot_download(
            repo, revision=revision, allow_patterns=[prefix + name for name in DATA]
        )
    local = os.path.join(found, *folder.split("/")) if folder else found
    is_model = any(os.path.exists(os.path.join(local, name)) for name in INDEXES)
    return str(local) if is_model else path


@contextlib.contextmanager
def hub_errors(path: str) -> Iterator[None]:
    """Turns the errors of huggingface_hub into an `OSError` of one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        raise OSError(
            f"{path} cannot be reached, and there is no copy of it in the cache."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{path} has no such revision.") from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"{path}: there is no such repository, or it is private. Log in with: hf auth login"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PermissionError(
                f"{path}: access denied ({status}). Log in with: hf auth login, or set HF_TOKEN."
            ) from error
        raise OSError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:  # Such as a full disk.
            raise
        raise OSError(f"{path}: {' '.join(str(error).split())[:300]}") from error
