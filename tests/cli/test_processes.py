"""`accelerate launch -m edgetune build`: several processes train, one writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgetune.serve.bundle import Bundle


@pytest.mark.long
def test_two_processes_train_one_model_and_one_of_them_packs_it(workshop, tmp_path):
    # What `accelerate launch` starts where there are GPUs; on CPUs it would want MPI for more than one process.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "edgetune", "build"]
    out = tmp_path / "sub" / "bundle"
    quick = ["tune.epochs=2", "tune.lora.rank=4", "compress.schemes=[fp32]", "benchmark.threads=1"]
    settings = [f"--set={setting}" for setting in quick]
    done = subprocess.run(
        [*launch, *workshop.arguments, *settings, "--method", "lora", "--out", str(out), "--json"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # one document, although two processes ran
    assert next(iter(found)) == "decision"
    assert set(found) == {
        "decision",
        "stage",
        "work",
        "tuned",
        "graph",
        "candidates",
        "order",
        "skipped",
        "report",
        "bundle",
    }
    assert (found["stage"], found["bundle"], found["work"]) == ("pack", str(out), f"{out}.work")
    assert found["report"] == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [candidate["scheme"] for candidate in found["candidates"]] == ["fp32"]
    assert "\x1b" not in done.stderr
    assert done.stderr.count("✓ tune") == done.stderr.count("✓ pack") == 1
    Bundle.open(out)
    assert {path.name for path in out.iterdir()} == {path.name for path in (workshop.folder / "bundle").iterdir()}
    training = found["report"]["training"]
    assert training["method"] == "lora"
    assert training["settings"]["processes"] == 2
    assert [point["epoch"] for point in training["curve"]] == [1, 2]
    assert training["probe_value"] <= max(training["best_value"], training["probe_value"])
    # The checkpoints are gone, the adapters stay where they are the ones that are handed on.
    assert not (out.parent / "bundle.work" / "tune" / "checkpoints").exists()
    assert (out.parent / "bundle.work" / "tune" / "adapter").exists() is (training["handed_on"] == "lora")
