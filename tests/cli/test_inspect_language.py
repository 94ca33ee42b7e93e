"""`edgetune inspect` of a language model's bundle: its cache and context, its report, and nothing of labels."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from .here import Command

SAMPLE = Path(__file__).parent.parent / "benchmarks" / "stepwise" / "sample_report.json"
GENERATION = {
    "layers": 5,
    "kv_heads": 4,
    "head_dim": 8,
    "vocabulary": 512,
    "context_tokens": 1024,
    "eos_ids": [2, 5],
    "bos_id": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bundle whose files hold anything: inspect opens no graph."""
    return write_bundle(tmp_path / "stories", GENERATION)


def write_bundle(folder: Path, generation: dict[str, object]) -> Path:
    """A bundle with the sample report."""
    folder.mkdir()
    for name in ("model.onnx", "tokenizer.json", "config.json"):
        (folder / name).write_bytes(b"anything")
    (folder / "report.json").write_bytes(SAMPLE.read_bytes())
    entries = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
    }
    manifest = {
        "format": 1,
        "name": "stories",
        "task": "text-generation",
        "labels": [],
        "inputs": [{"name": "input_ids", "dtype": "int64", "shape": ["batch", "tokens"]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 1, 512]}],
        "max_tokens": 1024,
        "scheme": "int4_head8",
        "provider": "cpu",
        "dtypes": {"UINT4": 0.71, "UINT8": 0.17, "FLOAT": 0.12},
        "base": {"id": "models/stories", "digest": "sha256:" + "a" * 64},
        "data_digest": "sha256:" + "b" * 64,
        "versions": {"edgetune": "0.3.0"},
        "created": "2026-11-22T14:05:31+00:00",
        "files": entries,
        "generation": generation,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def test_it_tells_what_the_decoder_takes(edgetune: Command, folder: Path) -> None:
    ended = edgetune("inspect", folder)
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[:8] == [
        "name        stories",
        "task        text-generation",
        "scheme      int4_head8 for cpu (71% uint4, 17% uint8, 12% float)",
        f"size        {sum(path.stat().st_size for path in folder.iterdir()):,} bytes in 5 files",
        "context     1,024 tokens of prompt and answer",
        "batch       any number of prompts",
        "vocabulary  512 tokens; end 2, 5, begin 1",
        # keys and values of 5 layers, 4 heads of 8 floats
        "cache       5 layers, 4 key-value heads of 8, 1,280 bytes a token, 1.3 MB for a whole context",
    ]
    assert [line.split()[0] for line in lines[8:11]] == ["base", "data", "created"]
    assert "labels" not in ended.out
    assert lines[12].startswith("int4 with an 8-bit head keeps the tuned perplexity within the gate")
    assert lines[-1] == f"The whole report: {folder / 'report.html'}"


def test_the_profile_of_one_prompt_is_told(edgetune: Command, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "one", {**GENERATION, "batch_one": True, "eos_ids": [], "bos_id": None})
    out = edgetune("inspect", folder).out
    assert "batch       one prompt at a time (attention fused for it)\n" in out
    assert "vocabulary  512 tokens; end none\n" in out


def test_json_has_the_manifest_and_the_report(edgetune: Command, folder: Path) -> None:
    found = json.loads(edgetune("inspect", folder, "--json").out)
    assert list(found) == ["manifest", "report"]
    assert {name: found["manifest"]["generation"][name] for name in GENERATION} == GENERATION
    assert found["manifest"]["generation"]["past"] == "input.past_key_values.layers.{layer}.{part}"
    assert found["report"]["proof"]["rise"] == 0.00826
    assert [one["batch"] for one in found["report"]["decoding"]] == [1, 4, 8]


def test_a_bundle_without_its_report_is_still_told(edgetune: Command, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    del manifest["files"]["report.json"]
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "report.json").unlink()
    ended = edgetune("inspect", folder)
    assert ended.code == 0
    assert "report" not in ended.out
    assert json.loads(edgetune("inspect", folder, "--json").out)["report"] is None


def test_a_damaged_graph_is_told(edgetune: Command, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"anythinG")
    ended = edgetune("inspect", folder)
    assert (ended.code, ended.out) == (1, "")
    assert "model.onnx has changed bytes" in ended.err


def test_a_report_of_another_task_is_no_report_of_this_one(edgetune: Command, folder: Path) -> None:
    raw = (SAMPLE.parent.parent / "sample_report.json").read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest["files"]["report.json"] = {"bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "report.json").write_bytes(raw)
    ended = edgetune("inspect", folder)
    assert ended.code == 1
    assert "report.json is no report" in ended.err


@pytest.mark.parametrize("fault", [{"layers": 0}, {"eos_ids": [-1]}, {"context_tokens": None}])
def test_a_generation_object_that_makes_no_sense_is_damage(
    edgetune: Command, tmp_path: Path, fault: dict[str, object]
) -> None:
    folder = write_bundle(tmp_path / "odd", {**GENERATION, **fault})
    ended = edgetune("inspect", folder)
    assert ended.code == 1
    assert "is no manifest" in ended.err
    assert f"$.generation.{next(iter(fault))}" in ended.err
