"""Two bundles on the same rows: every kind of answer, labels in another order, and labels that a file alone knows."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.benchmarks.compare.address import Address
from edgetune.benchmarks.compare.comparison import ComparisonRequest, compare_answers
from edgetune.benchmarks.compare.page import comparison_page
from edgetune.benchmarks.compare.speed import timed
from edgetune.benchmarks.compare.verdict import gain_of
from edgetune.serve import load
from edgetune.serve.errors import InputError
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.metrics import ACCURACY, MAE
from edgetune.tune.training.progress import Silent

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"
TEXTS = [f"{one} {other} card" for one in ("where", "money", "courier", "my") for other in ("is", "the", "payment")]
REQUEST = ComparisonRequest(calls=0)


def _rows(path: Path, rows: Sequence[Sequence[str]], *names: str) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([names, *rows])
    return path


def _compared(a: Path, b: Path, file: Path, request: ComparisonRequest = REQUEST, **keys: Any) -> Any:
    return compare_answers((str(a), str(b)), DataRecipe(path=str(file), **keys), request, Silent())


def _answers(folder: Path, texts: Sequence[Any] = TEXTS) -> list[Any]:
    with load(folder) as predictor:
        return [answer.plain for answer in predictor.predict(texts)]


def _with_manifest(source: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """A copy of a bundle with another manifest, which has no digest of itself."""
    shutil.copytree(source, folder)
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    manifest.pop("manifest_digest", None)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return folder


@pytest.fixture
def relabelled(tmp_path: Path) -> Path:
    """The golden bundle with the names of its labels turned round: it answers as it did, in other words."""

    def turn(manifest: Any) -> None:
        labels = manifest["labels"]
        config = tmp_path / "relabelled" / "config.json"
        turned = labels[1:] + labels[:1]
        content = json.dumps({"id2label": dict(enumerate(turned))}).encode()
        config.write_bytes(content)
        manifest["labels"] = turned
        manifest["files"]["config.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    return _with_manifest(GOLDEN, tmp_path / "relabelled", turn)


def test_a_bundle_that_names_everything_otherwise_loses_every_row(tmp_path: Path, relabelled: Path) -> None:
    file = _rows(tmp_path / "t.csv", list(zip(TEXTS, _answers(GOLDEN), strict=True)), "text", "label")
    found = _compared(GOLDEN, relabelled, file)
    assert (found.gain.metric, found.gain.a, found.gain.b, found.gain.gain) == ("accuracy", 1.0, 0.0, -1.0)
    assert (found.gain.outcome, found.agreement, found.rows) == ("worse", 0.0, len(TEXTS))
    assert found.gain.p_value == pytest.approx(2 / 2 ** len(TEXTS))
    assert found.verdict.startswith("B is worse than A by accuracy: -100.00")
    assert found.examples[0].a != found.examples[0].b
    assert not found.gain.is_not_worse(0.01)
    back = _compared(relabelled, GOLDEN, file)
    assert (back.gain.outcome, back.gain.gain) == ("better", 1.0)


def test_a_label_that_neither_knows_counts_as_wrong_and_is_said(tmp_path: Path) -> None:
    labels = ["stranger", *_answers(GOLDEN)[1:]]
    file = _rows(tmp_path / "t.csv", list(zip(TEXTS, labels, strict=True)), "text", "label")
    found = _compared(GOLDEN, GOLDEN, file)
    assert found.gain.a == found.gain.b == pytest.approx(1 - 1 / len(TEXTS))
    assert any("labels that neither model knows" in finding and "'stranger'" in finding for finding in found.findings)


@pytest.mark.parametrize(
    ("kind", "codec", "task", "metric"),
    [
        ("labels", "text", "multi-label-classification", "micro_f1"),
        ("number", "text", "text-regression", "mae"),
        ("label", "text-pair", "text-pair-classification", "accuracy"),
        ("entities", "tokens", "token-classification", "entity_f1"),
    ],
)
def test_every_kind_of_answer_is_judged_by_its_own_metric(
    kind: str, codec: str, task: str, metric: str, kind_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    pairs = codec == "text-pair"
    folder = _with_manifest(kind_bundle(kind, codec), tmp_path / "bundle", lambda value: value.update(task=task))
    inputs: list[Any] = [(text, text[::-1]) for text in TEXTS] if pairs else TEXTS
    answers = _answers(folder, inputs)
    if kind == "entities":
        file = tmp_path / "t.jsonl"
        rows = [{"text": text, "entities": spans} for text, spans in zip(TEXTS, answers, strict=True)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        words = [json.dumps(answer) if kind == "labels" else str(answer) for answer in answers]
        cells = [[*(given if pairs else [given]), word] for given, word in zip(inputs, words, strict=True)]
        file = _rows(tmp_path / "t.csv", cells, *(("text", "text_pair") if pairs else ("text",)), "label")
    found = _compared(folder, folder, file, **({"label": "label"} if kind != "entities" else {}))
    best = 0.0 if kind == "number" else 1.0
    assert (found.gain.metric, found.gain.a, found.gain.b) == (metric, pytest.approx(best), pytest.approx(best))
    assert (found.gain.outcome, found.agreement) == ("undecided", 1.0)


def test_the_page_holds_the_verdict_and_escapes_what_rows_say(tmp_path: Path, relabelled: Path) -> None:
    texts = ["<script>alert(1)</script> card", *TEXTS[1:]]
    rows = list(zip(texts, _answers(GOLDEN, texts), strict=True))
    found = _compared(GOLDEN, relabelled, _rows(tmp_path / "t.csv", rows, "text", "label"))
    page = comparison_page(found)
    assert found.verdict.split(":")[0] in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_rows_are_drawn_by_the_seed_and_said(tmp_path: Path) -> None:
    file = _rows(tmp_path / "t.csv", list(zip(TEXTS, _answers(GOLDEN), strict=True)), "text", "label")
    found = _compared(GOLDEN, GOLDEN, file, ComparisonRequest(calls=0, rows=5, seed=3))
    assert found.rows == 5
    assert "Judged on 5 of 12 rows, drawn by seed 3." in found.findings


def test_gains_are_positive_where_errors_fall() -> None:
    expected, near, far = np.arange(50.0), np.arange(50.0) + 1, np.arange(50.0) + 2
    gain = gain_of(MAE, expected, far, near)
    assert (gain.gain, gain.outcome) == (pytest.approx(0.5), "better")
    same = gain_of(ACCURACY, np.zeros(9, int), np.zeros(9, int), np.zeros(9, int))
    assert (same.gain, same.outcome, same.is_not_worse(0.5)) == (0.0, "undecided", True)


def test_calls_of_both_sides_are_timed_in_turn() -> None:
    order: list[str] = []
    speed = timed([lambda given: order.append(f"a{given}"), lambda given: order.append(f"b{given}")], ["x"], 20)
    assert speed is not None
    assert (speed.calls, speed.times_as_fast_ci95) == (20, None)
    assert "".join(one[0] for one in order) == ("a" * 12 + "b" * 12) * 2
    assert timed([str, str], ["x"], 9) is None


def test_sides_that_answer_otherwise_are_not_compared(kind_bundle: Callable[..., Path], tmp_path: Path) -> None:
    file = _rows(tmp_path / "t.csv", [["a", "b"]], "text", "label")
    with pytest.raises(InputError, match=r"answers with a label and .* with a number"):
        _compared(GOLDEN, kind_bundle("number", "text"), file)


@pytest.mark.parametrize(
    "url", ["http://host", "http://host/v3/models/x", "http://host/v1/chat", "http:///v1/models/x"]
)
def test_an_address_names_a_protocol_and_a_model(url: str) -> None:
    with pytest.raises(InputError, match="names no model's routes"):
        Address.of(url)


def test_addresses_are_taken_apart() -> None:
    one = Address.of("https://host:8/api/v1/models/org%2Fname")
    assert (one.protocol, one.root, one.model) == ("v1", "/api/v1", "org/name")
    assert Address.of("http://host/v1").model == ""
    assert Address.of("http://host/v2/models/x").protocol == "v2"
