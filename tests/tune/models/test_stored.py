"""A value that lies in a folder: the same after it is opened again, wherever the folder was moved."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from edgetune.serve.errors import WorkError
from edgetune.tune.models.stored import Stored


class Part(msgspec.Struct, frozen=True):
    """Something inside."""

    name: str
    shares: dict[str, float]


@dataclass(frozen=True)
class Thing(Stored):
    """Something stored."""

    file_name: ClassVar[str] = "thing.json"
    noun: ClassVar[str] = "thing"
    command: ClassVar[str] = "export"

    folder: Path
    graph: Path
    parts: tuple[Part, ...]
    difference: float | None = None


def test_a_thing_opens_as_it_was_saved_and_moves_with_its_folder(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    parts = (Part("ä", {"INT8": 0.25}),)
    thing = Thing(folder, folder / "model.onnx", parts, 1.5e-6)
    thing.save(folder)
    assert [path.name for path in folder.iterdir()] == ["thing.json"]
    assert json.loads((folder / "thing.json").read_text(encoding="utf-8")) == {
        "folder": ".",
        "graph": "model.onnx",
        "parts": [{"name": "ä", "shares": {"INT8": 0.25}}],
        "difference": 1.5e-6,
    }
    assert Thing.open(folder) == thing
    moved = folder.rename(tmp_path / "there")
    assert Thing.open(moved) == Thing(moved, moved / "model.onnx", parts, 1.5e-6)


def test_a_path_elsewhere_stays_the_same_way_away(tmp_path):
    (tmp_path / "stage").mkdir()
    Thing(tmp_path, tmp_path / "trials" / "model.onnx", ()).save(tmp_path / "stage")
    assert Thing.open(tmp_path / "stage") == Thing(tmp_path, tmp_path / "trials" / "model.onnx", ())


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "[]",
        '{"folder": ".", "graph": "model.onnx"}',
        '{"folder": 3, "graph": "model.onnx", "parts": []}',
        '{"folder": ".", "graph": "model.onnx", "parts": [{"name": "a"}]}',
    ],
)
def test_a_folder_that_holds_none_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "thing.json").write_text(content, encoding="utf-8")
    with pytest.raises(WorkError, match="holds no thing: ") as refused:
        Thing.open(tmp_path)
    assert refused.value.action == "run `edgetune export` again"


def test_what_has_no_json_is_no_silent_loss(tmp_path):
    thing = Thing(tmp_path, tmp_path, (object(),))  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="object is not stored as JSON"):
        thing.save(tmp_path)
    assert list(tmp_path.iterdir()) == []
