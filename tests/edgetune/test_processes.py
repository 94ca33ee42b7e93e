"""`accelerate launch -m edgetune build`: several processes train, one writes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from edgetune.serve.bundle import Bundle


@pytest.mark.slow
def test_two_processes_train_one_model_and_one_of_them_packs_it(tiny_base, toy_csv, tmp_path):
    # What `accelerate launch` starts where there are GPUs; on CPUs it would want MPI for more than one process.
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "edgetune", "build"]
    said = ["--base", str(tiny_base("bert")), "--data", str(toy_csv), "--out", str(tmp_path / "bundle"), "--json"]
    quick = ["tune.epochs=2", "benchmark.samples=40", "benchmark.grid=false", "benchmark.cold_starts=1"]
    settings = [f"--set={setting}" for setting in quick]
    done = subprocess.run(
        [*launch, *said, "--device", "cpu", *settings], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]  # one document, although two processes ran
    assert report["training"]["settings"]["processes"] == 2
    assert [point["epoch"] for point in report["training"]["curve"]] == [1.0, 2.0]
    Bundle.open(tmp_path / "bundle")
    assert done.stderr.count("✓ tune") == 1
