"""Builds that are disturbed: small ones of both families, whose candidates and passes are set by the recipe."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.conftest import start
from tests.cli.test_build_language_model import ROWS

# What a build says of itself: when it was made, how long it took, where it wrote to.
OF_THE_BUILD = {"report.json", "report.html", "recipe.yaml", "manifest.json"}
SHORT = (
    *("--set", "benchmark.samples=40", "--set", "benchmark.grid=false", "--set", "benchmark.cold_starts=1"),
    *("--set", "compress.schemes=[int8_dynamic]", "--set", "gate.max_drop=0.5", "--method", "lora"),
    # Less than the graph in float takes: which of two is faster hangs on what else the machine does.
    *("--set", "tune.epochs=3", "--set", "tune.patience=9", "--set", "budget.size_mb=0.1", "--device", "cpu"),
)
SHORT_LANGUAGE = (
    *("--set", "tune.epochs=3", "--set", "tune.learning_rate=3e-3", "--set", "benchmark.rounds=2"),
    *("--set", "benchmark.new_tokens=8", "--set", "benchmark.prompt_tokens=[8]", "--set", "benchmark.batches=[1]"),
    *("--set", "gate.max_rise=0.9", "--set", "compress.schemes=[int8]", "--method", "lora", "--device", "cpu"),
)


@dataclass(frozen=True)
class Undisturbed:
    """A build's arguments but for its output, what its bundle holds, and how many seconds it took."""

    arguments: tuple[str, ...]
    files: dict[str, bytes]
    seconds: float

    def start(self, out: Path) -> subprocess.Popen[str]:
        """The same build with another output, in a process of its own."""
        return start("build", *self.arguments, "--out", out)


def contents(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle that equal builds have alike, by name."""
    files = (path for path in bundle.rglob("*") if path.is_file() and path.name not in OF_THE_BUILD)
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path], language_base: Callable[[], Path],
    toy_csv: Path,
) -> Callable[[str], Undisturbed]:  # fmt: skip
    """`undisturbed("once")` or `("stepwise")` is a build that nothing stopped."""
    import time

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    families = {
        "once": ("--base", str(tiny_base("bert")), "--data", str(toy_csv), *SHORT),
        "stepwise": (
            *("--base", str(language_base()), "--data", str(folder / "rows.jsonl"), "--task", "text-generation"),
            *SHORT_LANGUAGE,
        ),
    }
    made: dict[str, Undisturbed] = {}

    def build(family: str) -> Undisturbed:
        if family not in made:
            out, began = folder / family, time.monotonic()
            process = start("build", *families[family], "--out", out)
            printed, errors = process.communicate()
            assert process.returncode == 0, printed + errors
            made[family] = Undisturbed(families[family], contents(out), time.monotonic() - began)
        return made[family]

    return build
