"""The layout of tasks apart: each folder is a bundle of one task, and opens in transformers' pipelines."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest

from edgetune.export.layouts import write_layout
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError
from edgetune.serve.loading import load
from tests.several_tasks import TASKS

pytestmark = pytest.mark.slow  # its bundle is built

TEXTS = ["my card is lost", "i forgot the password " * 40]


def test_each_task_is_a_bundle_that_answers_as_in_the_one(several_bundle, tmp_path):
    files = write_layout(Bundle.open(several_bundle), "tasks", tmp_path / "apart")
    names = {"config.json", "golden.json", "manifest.json", "model.onnx", "report.json"}
    names |= {"tokenizer.json", "tokenizer_config.json"}
    assert set(files) == {f"{task}/{name}" for task in TASKS for name in names}
    kinds = {"intent": "text-classification", "words": "text-regression", "people": "token-classification"}
    for task in TASKS:
        alone, within = load(tmp_path / "apart" / task), load(several_bundle, task=task)
        assert (alone.bundle.manifest.task, alone.head.spec.name) == (kinds[task], "")
        graph = onnx.load(str(tmp_path / "apart" / task / "model.onnx")).graph
        assert [output.name for output in graph.output] == ["logits"]
        assert len(graph.node) < len(onnx.load(str(several_bundle / "model.onnx")).graph.node)
        given, expected = (one.logits(one.encode(TEXTS), batch_size=1) for one in (alone, within))
        assert np.allclose(given, expected, atol=1e-4)
        config = json.loads((tmp_path / "apart" / task / "config.json").read_text("utf-8"))
        ending = "Token" if task == "people" else "Sequence"
        assert config["architectures"] == [f"BertFor{ending}Classification"]
        assert len(config["id2label"]) == alone.head.width


def test_a_layout_of_one_task_is_refused_with_the_way_round(several_bundle, tmp_path):
    with pytest.raises(BundleError, match="answers 3 tasks, and triton carries one") as caught:
        write_layout(Bundle.open(several_bundle), "triton", tmp_path / "served")
    assert "pack it as tasks" in str(caught.value)
    write_layout(Bundle.open(several_bundle), "tasks", tmp_path / "apart")
    assert "model_repository" not in write_layout(
        Bundle.open(tmp_path / "apart" / "intent"), "mlserver", tmp_path / "served"
    )
    with pytest.raises(BundleError, match="it is for bundles of several tasks"):
        write_layout(Bundle.open(tmp_path / "apart" / "intent"), "tasks", tmp_path / "again")
