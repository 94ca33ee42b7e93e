"""The fastembed layout: what is written, what its check finds, and fastembed itself opening it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgetune.export.layouts import write_layout
from edgetune.export.layouts.fastembed import check

FASTEMBED = "fastembed==0.9.0"


@pytest.fixture
def folder(bundle, tmp_path) -> Path:
    """A folder that a test may damage."""
    write_layout(bundle, "fastembed", tmp_path / "fastembed")
    return tmp_path / "fastembed"


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_the_files_of_the_folder(bundle, folder):
    assert {path.name for path in folder.iterdir()} == {
        *("model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
        "classify.py",
    }
    said = read(folder / "tokenizer_config.json")
    assert (said["model_max_length"], said["max_length"]) == (bundle.manifest.max_tokens,) * 2
    script = (folder / "classify.py").read_text("utf-8")
    assert f"dim={len(bundle.manifest.labels)}" in script
    assert f'"edgetune/{bundle.manifest.name}"' in script


def changed(name: str, **values: object) -> Callable[[Path], None]:
    """A change of keys in a JSON file; None takes the key away."""

    def change(folder: Path) -> None:
        found = {**read(folder / name), **values}
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), "utf-8")

    return change


def missing(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


FAULTS = {
    "no graph": (missing("model.onnx"), "model.onnx is missing"),
    "no config": (missing("config.json"), "config.json is missing"),
    "no tokenizer": (missing("tokenizer.json"), "tokenizer.json is missing"),
    "no tokenizer config": (missing("tokenizer_config.json"), "tokenizer_config.json is missing"),
    "no special tokens": (missing("special_tokens_map.json"), "special_tokens_map.json is missing"),
    "no script": (missing("classify.py"), "classify.py is missing"),
    "no limit": (changed("tokenizer_config.json", model_max_length=None, max_length=None), "says no model_max_length"),
    "no pad token": (changed("tokenizer_config.json", pad_token=None), "names no pad_token"),
    "padding of its own": (changed("tokenizer.json", padding={"strategy": {"Fixed": 128}}), "pads by itself"),
    "a pad id that is none": (changed("config.json", pad_token_id="0"), "pad_token_id is '0'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_check_finds(folder, name):
    change, wanted = FAULTS[name]
    change(folder)
    faults = check(folder)
    assert any(wanted in fault for fault in faults), faults


ASK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from classify import classify, open_model

texts = json.load(open(sys.argv[2], encoding="utf-8"))
model = open_model()
together = [row.tolist() for row in model.embed(texts[:5], batch_size=5)]
alone = [next(iter(classify(model, [text], batch_size=1))) for text in texts]
print(json.dumps({"alone": alone, "together": together}))
"""


@pytest.mark.servers
def test_fastembed_gives_our_labels(folder, server_environment, python_output, bundle, texts, answers, tmp_path):
    from edgetune.serve import load

    python = server_environment("fastembed", [FASTEMBED])
    (tmp_path / "texts.json").write_text(json.dumps(texts), "utf-8")
    # Offline: what opens here opens from the folder alone.
    printed = python_output(python, ASK, folder, tmp_path / "texts.json", cwd=tmp_path, HF_HUB_OFFLINE="1")
    found = json.loads(printed)
    assert [label for label, _ in found["alone"]] == answers
    predictor = load(bundle.folder, threads=1)
    wanted = [predictor.predict_one(text).score for text in texts]
    assert [score for _, score in found["alone"]] == pytest.approx(wanted, abs=1e-4)
    # Raw logits, not normalized: the same five texts in one batch.
    logits = predictor.logits(predictor.encode(texts[:5]))
    assert [number for row in found["together"] for number in row] == pytest.approx(logits.ravel().tolist(), abs=1e-3)
