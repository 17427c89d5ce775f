"""The file systems of fsspec, with the package that each needs and uniform errors.

Each package raises its own errors. Here all of them become an `OSError` that names the path. An
unknown protocol is a `ValueError`.
"""

__all__ = ["BUCKETS", "READ_ONLY", "is_local_system", "is_of", "open_path", "reaching"]

import contextlib
import difflib
from collections.abc import Iterator
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.utils import get_protocol

EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "http": ("aiohttp", "http"),
    "https": ("aiohttp", "http"),
    "hf": ("huggingface_hub", "hf"),
}
"""The package that a protocol needs, and the extra of afmlib that installs it."""

PROTOCOLS = ("file", "memory", *EXTRAS)
READ_ONLY = ("http", "https")  # fsspec would send a PUT request.
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")
"""Object stores: folders are only prefixes, and making the top folder would make a bucket."""


def open_path(path: str) -> tuple[Any, str]:
    """Returns the file system of a path, and the name of the path on it.

    Raises:
        OSError: If it needs a package that is not installed.
        ValueError: If the protocol is unknown.
    """
    protocol = get_protocol(path)
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        if protocol not in EXTRAS:
            raise OSError(f"{path} needs a package that is not installed: {error}") from error
        package, extra = EXTRAS[protocol]
        raise OSError(
            f"{path} needs the package {package}: pip install 'afmlib[{extra}]'"
        ) from error
    except ValueError as error:
        close = difflib.get_close_matches(protocol, PROTOCOLS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}://?" if close else ""
        raise ValueError(
            f"{path} has the unknown protocol {protocol}://.{hint} "
            f"Known are {', '.join(PROTOCOLS)} and the other protocols of fsspec."
        ) from error
    try:
        fs, name = fsspec.core.url_to_fs(path)
    except (TypeError, ValueError, AttributeError) as error:
        if protocol in PROTOCOLS:
            raise
        raise ValueError(
            f"{path} cannot be opened: the protocol {protocol}:// needs settings that a path "
            f"cannot give. Use one of {', '.join(PROTOCOLS)}."
        ) from error
    return fs, str(name)


@contextlib.contextmanager
def reaching(path: str) -> Iterator[tuple[Any, str]]:
    """Yields the file system and name of a path. Turns errors into an OSError with the path."""
    fs = None
    try:
        fs, name = open_path(str(path))
        yield fs, name
    except Exception as error:
        named = isinstance(error, OSError) and str(path) in str(error)
        if named or (fs is None and isinstance(error, ValueError)) or is_local_system(fs):
            raise
        kinds = (FileNotFoundError, PermissionError, FileExistsError, OSError)
        kind = next((kind for kind in kinds if isinstance(error, kind)), OSError)
        if isinstance(error, NotImplementedError):
            reason = "this file system is read-only"
        else:
            reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{path}: {reason}") from error


def is_local_system(fs: Any) -> bool:
    """Returns whether a file system is the local one."""
    return isinstance(fs, LocalFileSystem)


def is_of(fs: Any, protocols: tuple[str, ...]) -> bool:
    """Returns whether a file system has one of the protocols."""
    known_as = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not set(known_as).isdisjoint(protocols)
