"""Builds that are killed, crowded, or out of room at random moments: the same command ends with the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.faults.conftest import contents

pytestmark = pytest.mark.faults

KILLS = 50  # of each family
FAMILIES = ("once", "stepwise")
FULL_DISKS = 8
TWICE = 5


@pytest.mark.parametrize("family", FAMILIES)
def test_killed_at_random_moments_it_ends_with_the_same_bytes(undisturbed, edgetune, tmp_path, family, record_property):
    whole, draw = undisturbed(family), random.Random(family)
    out, killed, finished = tmp_path / "bundle", 0, 0
    while killed < KILLS:
        process = whole.start(out)
        try:
            process.communicate(timeout=draw.uniform(0.1, 1) * whole.seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
            # Whole or not there; what lies beside its place is no bundle under the name that was asked for.
            assert not out.exists() or edgetune("verify", out).code == 0
            continue
        assert process.returncode == 0
        assert contents(out) == whole.files
        finished += 1
        shutil.rmtree(out.with_name("bundle.work"))
        if finished % 2:  # every other time the next build replaces a bundle
            shutil.rmtree(out)
    process = whole.start(out)
    printed, errors = process.communicate()
    assert process.returncode == 0, printed + errors
    assert contents(out) == whole.files
    record_property("kills", killed)
    record_property("builds finished between kills, equal byte for byte", finished + 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_disk_that_fills_at_any_size_is_told_and_the_build_goes_on(undisturbed, tmp_path, family, record_property):
    whole = undisturbed(family)
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk]).returncode:
        pytest.skip("mounting a tmpfs of a set size needs root")
    try:
        sizes = random.Random(family).sample(range(1, 12_000), FULL_DISKS)
        for kilobytes in sorted(sizes):
            subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", disk], check=True)
            process = whole.start(disk / "bundle")
            _, errors = process.communicate()
            if process.returncode == 0:
                shutil.rmtree(disk / "bundle")
                continue
            assert process.returncode == 1, errors
            assert errors.startswith("Error: "), errors
            assert "Traceback" not in errors
            assert "No space left on device" in errors or "cannot be written" in errors, errors
            assert not (disk / "bundle").exists()
        subprocess.run(["mount", "-o", "remount,size=2g", disk], check=True)
        process = whole.start(disk / "bundle")
        _, errors = process.communicate()
        assert process.returncode == 0, errors
        assert contents(disk / "bundle") == whole.files
    finally:
        subprocess.run(["umount", disk], check=True)
    record_property("full disks", len(sizes))


@pytest.mark.parametrize("family", FAMILIES)
def test_of_two_builds_at_once_into_one_place_one_is_refused(undisturbed, tmp_path, family, record_property):
    whole = undisturbed(family)
    for attempt in range(TWICE):
        out = tmp_path / str(attempt)
        processes = [whole.start(out), whole.start(out)]
        errors = [process.communicate()[1] for process in processes]
        codes = sorted(process.returncode for process in processes)
        assert codes in ([0, 1], [0, 0]), errors  # the second may find the first one's work finished
        refused = [error for process, error in zip(processes, errors, strict=True) if process.returncode]
        assert all(error.startswith("Error: Another build is working in ") for error in refused), refused
        assert contents(out) == whole.files
    record_property("builds started twice", TWICE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_work_folder_damaged_anywhere_ends_with_the_same_bytes(undisturbed, tmp_path, family, record_property):
    whole, draw = undisturbed(family), random.Random(family)
    out = tmp_path / "bundle"
    process = whole.start(out)
    printed, errors = process.communicate()
    assert process.returncode == 0, printed + errors
    work, damaged = out.with_name("bundle.work"), 0
    files = [path for path in sorted(work.rglob("*")) if path.is_file() and path.stat().st_size]
    names = [path.relative_to(work) for path in files if path.parent != work or path.suffix == ".json"]
    for name in draw.sample(names, min(20, len(names))):
        path = work / name
        if not path.is_file():
            continue
        _damage(path, draw)
        shutil.rmtree(out)
        process = whole.start(out)
        printed, errors = process.communicate()
        assert process.returncode == 0, (name, printed + errors)
        assert contents(out) == whole.files, name
        damaged += 1
    assert damaged > 10
    record_property("damaged files of work folders", damaged)


def _damage(path: Path, draw: random.Random) -> None:
    """Flip a bit, cut the file, or remove it."""
    content = bytearray(path.read_bytes())
    kind = draw.choice(["flip", "cut", "remove"])
    if kind == "remove":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    else:
        place = draw.randrange(len(content))
        content[place] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
