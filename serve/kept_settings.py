"""Threads that were measured as best on this machine, kept beside a bundle by `edgetune measure --keep-threads`.

Beside it and not in it, since a bundle's own bytes are signed and stay as they were packed. They hold for one bundle
and one class of machine, and change no answer, only how fast it comes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgetune.serve.bundle import NOT_JSON, Bundle, RuntimeSettings
from edgetune.serve.errors import BundleError
from edgetune.serve.files import read_regular
from edgetune.serve.identity import bundle_digest

SUFFIX = ".runtime.json"
MOST_BYTES = 64 * 1024


class KeptSettings(msgspec.Struct, frozen=True):
    """`bundle` is the digest of the bundle that was measured, `settings` are those of each graph by its scheme."""

    bundle: str
    settings: dict[str, RuntimeSettings]


def settings_path(folder: Path) -> Path:
    """The file beside a bundle's folder: `bundles/x.runtime.json` of `bundles/x`."""
    whole = folder.absolute()
    return whole.with_name(whole.name + SUFFIX)


def kept_settings(bundle: Bundle, scheme: str, cpu: str, cores: int) -> RuntimeSettings | None:
    """What was kept for a graph of this very bundle on this class of machine; None where nothing was.

    Raises:
        BundleError: there is a file, and it holds no settings.
    """
    path = settings_path(bundle.folder)
    try:
        content = read_regular(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    try:
        kept = msgspec.json.decode(content, type=KeptSettings)
    except NOT_JSON as error:
        raise _unreadable(path, str(error)) from error
    settings = kept.settings.get(scheme)
    if settings is None or kept.bundle != bundle_digest(bundle) or (settings.cpu, settings.cores) != (cpu, cores):
        return None
    return settings


def keep_settings(bundle: Bundle, scheme: str, settings: RuntimeSettings) -> Path:
    """Write the file beside the bundle, whole or not at all; gives its path.

    Raises:
        OSError: it cannot be written.
    """
    path = settings_path(bundle.folder)
    kept = KeptSettings(bundle_digest(bundle), {scheme: settings})
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=2) + b"\n")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return path


def _unreadable(path: Path, reason: str) -> BundleError:
    return BundleError(
        f"The kept settings {path} cannot be read: {reason}",
        expected="a file that `edgetune measure --keep-threads` wrote",
        action="delete it, or measure again",
    )
