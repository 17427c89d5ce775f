"""The file systems that fsspec reaches: what each needs, and what may be done there.

Which errors a file system raises is up to the package behind it. Here all become an `OSError` with
one sentence that names the path; a protocol that nobody knows is a `ValueError`.
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
"""The package that a protocol needs, and the extra of afmlib that brings it."""

PROTOCOLS = ("file", "memory", *EXTRAS)
READ_ONLY = ("http", "https")  # fsspec would try a PUT.
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci")
"""Where folders are but names, and where making the topmost one would make a bucket."""


def open_path(path: str) -> tuple[Any, str]:
    """Returns the file system of a path, and the name of the path there.

    Raises:
        OSError: If it needs a package that is not installed.
        ValueError: If the protocol is unknown.
    """
    protocol = get_protocol(path)
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise OSError(_missing_package(path, protocol, error)) from error
    except ValueError as error:
        close = difflib.get_close_matches(protocol, PROTOCOLS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]}://?" if close else ""
        raise ValueError(
            f"{path} is on no known file system: there is no {protocol}://.{hint} "
            f"There are {', '.join(PROTOCOLS)} and the others of fsspec."
        ) from error
    fs, name = fsspec.core.url_to_fs(path)
    return fs, str(name)


def _missing_package(path: str, protocol: str, error: ImportError) -> str:
    if protocol not in EXTRAS:
        return f"{path} needs a package that is not installed: {error}"
    package, extra = EXTRAS[protocol]
    return f"{path} needs the package {package}: pip install 'afmlib[{extra}]'"


@contextlib.contextmanager
def reaching(path: str) -> Iterator[tuple[Any, str]]:
    """Yields the file system of a path and its name there; what fails is an OSError of the path."""
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
            reason = "this file system is there to be read only"
        else:
            reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{path}: {reason}") from error


def is_local_system(fs: Any) -> bool:
    """Tells whether a file system is of this machine."""
    return isinstance(fs, LocalFileSystem)


def is_of(fs: Any, protocols: tuple[str, ...]) -> bool:
    """Tells whether a file system is that of one of the protocols."""
    own = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return not set(own).isdisjoint(protocols)
