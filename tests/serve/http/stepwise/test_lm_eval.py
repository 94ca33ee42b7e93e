"""lm-evaluation-harness, in an environment of its own, runs a task of a local file against the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.servers]

QUESTIONS = [("Is it? ", 0), ("Was it? ", 1), ("Are they? ", 0), ("Where? ", 1)]
PACKAGES = ("lm_eval[api]>=0.4.9,<0.5", "transformers>=5.20,<6")
TASK = """\
task: local
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
target_delimiter: ""
doc_to_choice: ["yes", "no"]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""


def test_local_completions_runs_a_task(server: Any, tiny_bundle: Path, tmp_path: Path) -> None:
    data, tasks = tmp_path / "questions.jsonl", tmp_path / "tasks"
    rows = [{"question": question, "answer": answer} for question, answer in QUESTIONS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    tasks.mkdir()
    (tasks / "local.yaml").write_text(TASK.format(data=data), "utf-8")
    python = _environment(tmp_path / "environment")
    settings = {
        **{"model": "tiny", "base_url": f"{server.url}/v1/completions", "num_concurrent": "2", "max_retries": "1"},
        **{"tokenizer_backend": "huggingface", "tokenizer": str(tiny_bundle), "max_length": "120"},
    }
    command = [python, "-m", "lm_eval", "--model", "local-completions", "--tasks", "local"]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in settings.items())]
    command += ["--include_path", tasks, "--output_path", tmp_path / "out"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OPENAI_API_KEY": server.key}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    (results,) = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text("utf-8"))["results"]["local"]["acc,none"]
    assert found in (0.0, 0.25, 0.5, 0.75, 1.0)  # of four questions, each of which was answered


def _environment(folder: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True, timeout=900)
    return python
