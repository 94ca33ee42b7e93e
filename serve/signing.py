"""Signatures of bundles: by the OpenSSF Model Signing format, with a pair of keys, offline.

The library `model-signing` does it (github.com/sigstore/model-transparency), so that its own command line, and whatever
else knows the format, verifies a bundle too. `model.sig` holds a Sigstore bundle with a DSSE envelope over the SHA-256
of every other file, the manifest included. Nothing else here imports that library.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.bundle import SIGNATURE_NAME, Bundle
from edgetune.serve.errors import BundleDamaged, BundleError, InputError, MissingDependency, WorkError

if TYPE_CHECKING:
    from types import ModuleType

_PACKAGES = ("model_signing", "OpenSSL")  # model-signing 1.1 needs pyOpenSSL and does not declare it
_KEYS = "an elliptic curve key in PEM (P-256, P-384 or P-521): openssl ecparam -name prime256v1 -genkey -noout"


def sign_bundle(bundle: Bundle, key: Path, password: bytes | None = None) -> Path:
    """Sign all files of a bundle and put model.sig among them, whole or not at all; an older one is replaced.

    Args:
        bundle: its files are those that were packed.
        key: the private key.
        password: of the key; None where it is not encrypted.

    Raises:
        MissingDependency: the extra is not installed.
        InputError: the key cannot be used.
        BundleError: the folder holds files that the manifest does not list, which would be signed too.
        WorkError: the signature cannot be written.
    """
    library = _library()
    if strangers := bundle.strangers():
        raise BundleError(
            f"{bundle.folder} holds files that are no part of the bundle: {', '.join(map(repr, strangers[:5]))}.",
            expected="the files that its manifest lists, since a signature is over all that lie there",
            action="move them away and sign again",
        )
    target = bundle.folder / SIGNATURE_NAME
    with _key_errors(key):
        signer = library.signing.Config().use_elliptic_key_signer(private_key=_readable(key), password=password)
    hashing = library.hashing.Config().set_ignored_paths(paths=[target.absolute()], ignore_git_paths=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / SIGNATURE_NAME
            with contextlib.redirect_stdout(io.StringIO()):
                signer.set_hashing_config(hashing).sign(bundle.folder.absolute(), part)
            _put(part.read_bytes(), target)
    except OSError as error:
        raise WorkError(
            f"{target} cannot be written: {error.strerror or error}.",
            expected="a bundle's folder that this user may write to",
            action="copy the bundle to where it may be signed",
        ) from error
    return target


def verify_signature(folder: Path, key: Path) -> None:
    """Check that every file in a bundle's folder is one that the owner of a key signed.

    Raises:
        MissingDependency: the extra is not installed.
        InputError: the public key cannot be used.
        BundleError: the folder is not signed.
        BundleDamaged: the signature is of another key, or of other files.
    """
    signature = folder / SIGNATURE_NAME
    if not signature.is_file() or signature.is_symlink():
        raise BundleError(
            f"{folder} is not signed: it has no {SIGNATURE_NAME}.",
            expected="a bundle that `edgetune sign` has signed",
            action="ask whoever built it for a signed one, or leave --key away",
        )
    library = _library()
    with _key_errors(key):
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=_readable(key))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            hashing = library.hashing.Config().set_ignored_paths(paths=[signature.absolute()], ignore_git_paths=False)
            verifier.set_hashing_config(hashing).verify(folder.absolute(), signature)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError, _invalid_signature()) as error:
        reason = _reason(str(error))
        raise BundleDamaged(
            f"{folder} is not what the owner of {key} signed: {reason}",
            expected="files that the key's owner signed, and no others",
            action="do not use the bundle; get it again, and the public key from whom you trust",
        ) from error


def _library() -> ModuleType:
    if any(importlib.util.find_spec(name) is None for name in _PACKAGES):
        raise MissingDependency(
            "Signatures need model-signing, which is not installed.",
            action="pip install 'edgetune[sign]'",
            cost="about 30 packages and 60 MB; answering needs none of them",
        )
    import model_signing

    library: ModuleType = model_signing
    return library


def _invalid_signature() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature

    kind: type[Exception] = InvalidSignature
    return kind


def _readable(key: Path) -> Path:
    with key.open("rb"):
        return key


@contextlib.contextmanager
def _key_errors(key: Path) -> Iterator[None]:
    """Say what is wrong with a key in one way: the libraries have a different exception for each fault."""
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except OSError as error:
        raise InputError(f"The key {key} cannot be read: {error.strerror or error}.", expected=_KEYS) from error
    except (ValueError, TypeError, AttributeError, UnsupportedAlgorithm) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise InputError(f"The key {key} cannot be used: {reason}.", expected=_KEYS) from error


def _reason(text: str) -> str:
    """What the library says, of changed files their names without the bytes of both digests."""
    changed = re.findall(r"Hash mismatch for \\?'([^'\\]+)", text)
    if changed:
        return f"{', '.join(changed[:5])} has other bytes"
    return " ".join(text.split())[:300].rstrip(". ") or "the signature does not fit the key"


def _put(content: bytes, target: Path) -> None:
    beside = target.with_name(f".{target.name}.part")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
