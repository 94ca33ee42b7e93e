"""What tells one bundle from another, wherever a predictor goes: into a forked child, or pickled to another machine."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged


def identity_of(bundle: Bundle) -> str:
    """A digest of a bundle's manifest, which has those of all files."""
    return hashlib.sha256(msgspec.json.encode(bundle.manifest)).hexdigest()


def bundle_digest(bundle: Bundle) -> str:
    """What tells a bundle from any other wherever it is read, by another release too: its manifest's own digest.

    A bundle of a release that wrote none has the digest of what this release reads of its manifest.
    """
    return bundle.manifest.manifest_digest or f"sha256:{identity_of(bundle)}"


def same_bundle(folder: Path, identity: str) -> Bundle:
    """The bundle in a folder.

    Raises:
        BundleError: there is none.
        BundleDamaged: it is another than that of the identity.
    """
    bundle = Bundle.open(folder, verify=False)
    if identity_of(bundle) != identity:
        raise BundleDamaged(
            f"{folder} holds another bundle than the one that was pickled or forked.",
            expected="the same bundle wherever an opened one goes",
            action="open the new one with load(), and pickle or fork that",
        )
    return bundle
