"""Flipping bits of a bundle's files, for the tests of both families."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.export.once.pack import write_manifest
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError

COUNTS = [40, pytest.param(500, marks=pytest.mark.faults)]


def flip_each(folder: Path, flips: int, answers: Callable[[], object], seed: int) -> dict[str, int]:
    """Flip bits of the folder's files one at a time, as many of each file; how many were refused of each."""
    draw = random.Random(seed)
    expected = answers()
    names = sorted(path.name for path in folder.iterdir())
    refused = dict.fromkeys(names, 0)
    for number in range(flips):
        name = names[number % len(names)]
        path = folder / name
        whole = path.read_bytes()
        place, bit = draw.randrange(len(whole)), draw.randrange(8)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << bit
        path.write_bytes(flipped)
        try:
            assert answers() == expected, f"bit {bit} of byte {place} of {name} changed the answers without a word"
        except BundleError:
            refused[name] += 1
        path.write_bytes(whole)
    assert answers() == expected
    return refused


def packed(source: Path, target: Path) -> Path:
    """A copy as this release packs it, with a digest of its manifest."""
    shutil.copytree(source, target)
    write_manifest(target, Bundle.open(target).manifest)
    return target
