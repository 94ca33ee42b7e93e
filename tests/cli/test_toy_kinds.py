"""A new task, method and scheme by the recipes of CONTRIBUTING: a build uses them for everything, and nothing else.

Any encoding of the training tokenizer outside the task's own `encode` fails the build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
from transformers import AutoTokenizer
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from edgetune.compress import distillation
from edgetune.plan import make_plan
from edgetune.recipe import read_recipe
from edgetune.serve.errors import ParityError
from edgetune.serve.loading import load
from edgetune.serve.report import Report
from tests.toy_kinds import BiasMethod, MarkedTexts, MisfitTexts, marked, registered
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # whole builds


@dataclass(frozen=True)
class ToyBuild:
    """A build of the toy task, by the toy method and with the toy scheme."""

    task: MarkedTexts
    method: BiasMethod
    folder: Path
    values: dict[str, Any]

    @property
    def report(self) -> Report:
        return Report.load(self.folder / "bundle" / "report.json")


def recipe_values(task: str, base: Path, data: Path, folder: Path) -> dict[str, Any]:
    return {
        "base": str(base),
        "task": task,
        "data": {"path": str(data), "text": "text", "label": "label"},
        "tune": {"method": "bias", "epochs": 1, "precision": "fp32"},
        "compress": {"schemes": ["fused", "rounded", "int8_static", "trimmed", "student"]},
        "gate": {"max_drop": 0.9, "when_inconclusive": "accept"},
        "benchmark": {"samples": 40, "grid": False, "cold_starts": 1},
        "device": "cpu",
        "out": str(folder / "bundle"),
    }


@pytest.fixture(scope="module")
def toy(
    tiny_base: Callable[[str], Path], toy_csv: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ToyBuild]:
    task, folder = MarkedTexts(), tmp_path_factory.mktemp("toy-build")
    encode_plus = TokenizersBackend._encode_plus

    def only_by_the_task(self: Any, *arguments: Any, **options: Any) -> Any:
        assert task.is_encoding, "an encoding that is not the task's"
        return encode_plus(self, *arguments, **options)

    with registered(task) as (method, _), pytest.MonkeyPatch.context() as patch:
        patch.setattr(TokenizersBackend, "_encode_plus", only_by_the_task)
        patch.setattr(distillation, "schooling_for", lambda *_: distillation.Schooling(1, 1e-3))
        values = recipe_values(task.name, tiny_base("bert"), toy_csv, folder)
        make_plan(read_recipe(None, values)[0])
        build_untimed(values)
        patch.undo()
        yield ToyBuild(task, method, folder, values)


def test_every_encoding_of_a_build_is_the_tasks(toy):
    tried = {candidate.scheme for candidate in toy.report.candidates}
    assert {"fused", "rounded", "int8_static"} <= tried
    assert any(name.startswith("trimmed+") for name in tried)
    assert any("student1" in name for name in tried)
    assert toy.task.encoded > 1000


def test_the_bundle_encodes_as_the_task_does(toy):
    predictor = load(toy.folder / "bundle")
    tokenizer = AutoTokenizer.from_pretrained(toy.folder / "bundle")
    texts = ["card pin", "password and login", "again"]
    assert [row.ids for row in predictor.encode(texts)] == tokenizer([marked(text) for text in texts])["input_ids"]
    assert {answer.label for answer in predictor.predict(texts)} <= {"card", "cash", "login", "transfer"}
    assert predictor.bundle.manifest.codec == "marked-text"


def test_the_method_moves_what_it_marked_and_nothing_else(toy):
    moved = toy.method.moved()
    assert "classifier.weight" in moved
    assert "bert.encoder.layer.0.attention.self.value.bias" in moved
    assert {name for name in moved if not name.endswith("bias")} == {"classifier.weight"}
    assert toy.report.training.method == "bias"


def test_the_schemes_graph_is_tried(toy):
    candidate = next(one for one in toy.report.candidates if one.scheme == "rounded")
    assert candidate.made_by == "rounded by numpy"
    assert candidate.accepted
    graph = onnx.load(toy.folder / "bundle.work" / "trials" / "rounded" / "model.onnx")
    weights = [onnx.numpy_helper.to_array(w) for w in graph.graph.initializer if w.data_type == onnx.TensorProto.FLOAT]
    assert all((weight == weight.round(3)).all() for weight in weights)
    assert sum(weight.size for weight in weights) > 1000


def test_a_codec_that_encodes_otherwise_than_the_task_ends_the_build(tiny_base, toy_csv, tmp_path):
    with registered(MisfitTexts()):
        values = recipe_values("misfit-texts", tiny_base("bert"), toy_csv, tmp_path)
        values["tune"] = {"method": "probe", "precision": "fp32"}
        with pytest.raises(ParityError, match="The saved tokenizer gives other ids"):
            build_untimed(values, until="export")
    assert not (tmp_path / "bundle").exists()
