"""Copies of the golden bundle to do harm to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent.parent / "golden" / "bundle-v1"


@dataclass(frozen=True)
class BundleCopy:
    """A bundle's folder that a test may change."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def change(self, name: str, change: Callable[[Any], object]) -> None:
        """Change the JSON value of a file in place; the manifest is not told."""
        value = json.loads(self.path(name).read_text("utf-8"))
        change(value)
        self.path(name).write_text(json.dumps(value), "utf-8")

    def change_manifest(self, change: Callable[[Any], object]) -> None:
        self.change("manifest.json", change)

    def digest_again(self, name: str) -> None:
        """Let the manifest tell the size and digest that a changed file has now."""
        content = self.path(name).read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.change_manifest(lambda manifest: manifest["files"].update({name: entry}))


@pytest.fixture
def bundle_copy(tmp_path: Path) -> BundleCopy:
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    return BundleCopy(folder)
