"""When llama.cpp is raced beside the bundle; its file is tested in tests/export/layouts/test_gguf.py."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import pytest

from edgetune.benchmarks.stepwise.llama_cpp import llama_cpp_side
from edgetune.export.layouts import gguf
from edgetune.serve.errors import BundleError
from edgetune.tune.training.progress import Silent


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def draft(scheme: str) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(scheme=scheme, generation=None))


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "llama_cpp")


def test_without_the_library_or_without_levels_there_is_no_side(tmp_path, monkeypatch, installed):
    progress = Heard()
    assert llama_cpp_side(draft("fp32"), tmp_path, tmp_path, 1, progress) is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert llama_cpp_side(draft("int4"), tmp_path, tmp_path, 1, progress) is None
    assert (progress.lines, list(tmp_path.iterdir())) == ([], [])


def test_the_side_answers_from_the_file_with_the_bundles_levels(tmp_path, monkeypatch, installed):
    written = []

    def write_model(bundle, model_folder, folder, weights_of):
        written.append((bundle.manifest.scheme, model_folder, weights_of))
        (folder / gguf.FILE).write_bytes(b"levels")

    monkeypatch.setattr(gguf, "write_model", write_model)
    side = llama_cpp_side(draft("q4_0"), tmp_path / "model", tmp_path, 2, Heard())
    assert written == [("q4_0", tmp_path / "model", "bundle")]
    assert (side.runtime, side.folder, side.threads, side.size_bytes, side.most_batch) == (
        "llama.cpp", tmp_path, 2, 6, 1,
    )  # fmt: skip


def test_a_family_that_llama_cpp_computes_otherwise_is_reported_and_the_race_goes_on(tmp_path, monkeypatch, installed):
    def refuse(*_):
        raise BundleError("This mixtral model is not written as GGUF")

    monkeypatch.setattr(gguf, "write_model", refuse)
    progress = Heard()
    assert llama_cpp_side(draft("int4"), tmp_path, tmp_path, 1, progress) is None
    assert progress.lines == ["llama.cpp is not raced: This mixtral model is not written as GGUF"]
