"""Trackers of a training's curves: a missing one stops a build before it begins, and what reaches one is kept."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from edgetune.serve.errors import MissingDependency
from edgetune.tune.training.reporters import require_reporters
from tests.cli.test_build_language_model import ROWS as LANGUAGE_ROWS


@pytest.mark.parametrize("names", [("tensorboard",), ("wandb", "mlflow")])
def test_a_missing_tracker_stops_a_build_before_it_begins(edgetune, tmp_path, toy_csv, tiny_base, monkeypatch, names):
    real = importlib.util.find_spec
    gone = {"tensorboard", "tensorboardX", "wandb", "mlflow"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name in gone else real(name, *rest))
    arguments = ("--base", tiny_base("bert"), "--data", toy_csv, "--out", tmp_path / "x")
    ended = edgetune("build", *arguments, "--set", f"tune.report_to=[{', '.join(names)}]")
    assert ended.code == 1
    assert f"Error: tune.report_to names what is not installed: {', '.join(names)}.\n" in ended.err
    assert f"pip install {' '.join(names)}, or take" in ended.err
    assert not (tmp_path / "x.work" / "stages.json").exists()


def test_no_tracker_needs_no_package_and_another_writer_of_tensorboard_s_files_serves_too(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: name if name == "tensorboardX" else None)
    require_reporters(())
    require_reporters(("tensorboard",))
    with pytest.raises(MissingDependency, match="mlflow"):
        require_reporters(("tensorboard", "mlflow"))


def test_an_unknown_tracker_is_a_fault_of_the_recipe(edgetune, tmp_path, toy_csv):
    ended = edgetune("build", "--base", "x", "--data", toy_csv, "--set", "tune.report_to=[comet]")
    assert ended.code == 2
    assert "tune.report_to" in ended.err
    assert "'tensorboard', 'mlflow' or 'wandb'" in ended.err


TRACKER = """
from pathlib import Path

class SummaryWriter:
    def __init__(self, log_dir):
        self.file = Path(log_dir, "events.txt")
        self.file.parent.mkdir(parents=True, exist_ok=True)
    def add_text(self, *_): pass
    def add_scalar(self, name, value, step):
        with self.file.open("a") as stream:
            stream.write(f"{name} {value} {step}\\n")
    def flush(self): pass
    close = flush
"""


@pytest.mark.slow
@pytest.mark.parametrize("family", ["once", pytest.param("stepwise", marks=pytest.mark.long)])
def test_curves_reach_a_tracker_and_stay(tmp_path, toy_csv, tiny_base, language_base, family):
    (tmp_path / "tensorboardX.py").write_text(TRACKER)
    if family == "once":
        base, data, method = tiny_base("bert"), toy_csv, "lora"
    else:
        base, data, method = language_base(), tmp_path / "rows.jsonl", "full"
        data.write_text("".join(json.dumps(row) + "\n" for row in LANGUAGE_ROWS))
    code = "import sys; sys.path.insert(0, '.'); from edgetune.cli import main; main()"
    settings = ("--set", "tune.epochs=1", "--set", "tune.report_to=[tensorboard]", "--device", "cpu")
    arguments = ("--base", base, "--data", data, "--method", method, "--out", "x")
    command = [sys.executable, "-c", code, "tune", *map(str, arguments), *settings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    files = [path for path in (tmp_path / "x.work" / "tune" / "runs").rglob("*") if path.is_file()]
    assert files
    if files[0].suffix == ".txt":  # the stand-in above; TensorBoard's own files where it is installed
        assert {line.split()[0] for line in files[0].read_text().splitlines()} >= {"eval/loss", "train/loss"}
