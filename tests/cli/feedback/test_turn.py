"""`edgetune loop`: corrections joined with the data, both bundles on the same rows, and one in the other's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgetune.feedback.held import Correction, earlier_corrections, keep_corrections, part_of, turn_rows
from edgetune.feedback.turn import KEPT, NOTHING, REPLACED, Judgement, Place, _reason, judge
from edgetune.serve import load
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.feedback.entries import Answered, GivenAnswer, Vote
from edgetune.serve.feedback.store import FeedbackStore
from tests.cli.here import run_here
from tests.conftest import toy_sentences
from tests.untimed import build_untimed, untimed

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"


def test_corrections_lie_over_the_data(toy_dataset):
    dataset = toy_dataset()
    learnt, judged = dataset.train.texts[0], dataset.test.texts[0]
    given = [{"text": text.upper(), "label": "other"} for text in (learnt, judged)]
    strangers = [f"a stranger of number {number}" for number in range(200)]
    given += [{"text": text, "label": "other"} for text in strangers]
    rows = turn_rows(dataset, (), given)
    assert (rows.relabelled, rows.added, rows.new) == (2, 200, 202)
    assert rows.parts["train"][0] == {"text": learnt, "label": "other"}
    assert rows.parts["test"][0] == {"text": judged, "label": "other"}
    before = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    for name, count in before.items():
        added = {row["text"] for row in rows.parts[name][count:]}
        assert added == {text for text in strangers if part_of(text) == name}
        assert len(added) > 8


def test_a_row_that_was_learnt_never_judges(toy_dataset, tmp_path):
    text = next(text for text in (f"text {number}" for number in range(99)) if part_of(text) == "test")
    first = turn_rows(toy_dataset(), (), [{"text": text, "label": "new"}])
    assert first.parts["train"][-1] == {"text": text, "label": "new"}  # the only row of its label
    keep_corrections(tmp_path, first)
    kept = earlier_corrections(tmp_path)
    assert kept == (Correction(text, "new", part="train"),)
    second = turn_rows(toy_dataset(), kept, [{"text": f"more {number}", "label": "new"} for number in range(50)])
    assert {"text": text, "label": "new"} in second.parts["train"]
    assert (second.new, second.added) == (50, 51)
    assert turn_rows(toy_dataset(), kept, [{"text": text, "label": "new"}]).new == 0


def test_what_is_no_list_of_corrections_is_refused(tmp_path):
    (tmp_path / "corrections.jsonl").write_text("{")
    with pytest.raises(BundleDamaged, match=r"corrections\.jsonl is no list of corrections"):
        earlier_corrections(tmp_path)


def test_a_bundle_against_itself(toy_dataset):
    rows = turn_rows(toy_dataset(), (), [])
    found = judge(GOLDEN, GOLDEN, rows)
    assert (found.rows, found.gain, found.only_old, found.only_new) == (len(toy_dataset().test), 0, 0, 0)
    assert found.ci95[0] < 0 < found.ci95[1]


@pytest.mark.parametrize(
    ("low", "accept", "stays"),
    [(0.01, "better", False), (0.0, "better", True), (-0.005, "not-worse", False), (-0.02, "not-worse", True)],
)
def test_when_the_old_bundle_stays(low, accept, stays):
    assert bool(_reason(Judgement(9, 0.5, 0.6, 0.1, (low, 0.2), 0, 1), accept, 0.01)) == stays


def test_replacing_keeps_the_old_bundle(tmp_path):
    place = Place(tmp_path / "x")
    for folder, word in ((place.out, "old"), (place.built, "new"), (place.previous, "older")):
        folder.mkdir(parents=True)
        (folder / "word").write_text(word)
    place.replace()
    assert ((place.out / "word").read_text(), (place.previous / "word").read_text()) == ("new", "old")
    place.out.rename(tmp_path / "stopped-between-the-two-renames")
    place.recover()
    assert (place.out / "word").read_text() == "old"


def test_what_cannot_turn_is_refused(edgetune, toy_csv, tiny_base, tmp_path):
    folder = tmp_path / "kept"
    _keep(folder, [("a text", "card", "cash")])
    recipe = tmp_path / "recipe.yaml"
    base = tiny_base("bert")
    recipe.write_text(f"base: {base}\ntask: text-classification\ndata: {{path: {toy_csv}}}\nout: {tmp_path / 'none'}\n")
    ended = edgetune("loop", recipe, "--feedback", folder)
    assert (ended.code, "none to be better than" in ended.err) == (1, True)
    ended = edgetune("loop", recipe, "--feedback", tmp_path / "nowhere")
    assert (ended.code, "There is no folder" in ended.err) == (1, True)
    assert edgetune("loop", tmp_path / "no.yaml", "--feedback", folder).code == 2
    ended = edgetune("loop", recipe, "--feedback", folder, "--set", "task=text-regression")
    assert (ended.code, "The recipe's task is text-regression" in ended.err) == (2, True)


def _keep(folder: Path, said: list[tuple[str, str, str]]) -> None:
    """Answers as a server keeps them: a text, the model's label, and what a person says; "" agrees."""
    store = FeedbackStore(folder)
    for number, (text, given, right) in enumerate(said):
        name = f"{given}-{right}-{number}"
        store.write(Answered("2026-01-02T00", name, "m", "v", [text], [GivenAnswer(label=given)]))
        vote = Vote("1", name, label=right) if right != given else Vote("1", name, vote="up")
        store.write(vote)
    store.close()


@pytest.mark.long
def test_a_turn_teaches_a_label_that_the_data_did_not_have(tmp_path):
    rows = toy_sentences()
    data, out = tmp_path / "data.jsonl", tmp_path / "bundle"
    data.write_text("".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows if y != "login"))
    values = {
        "base": "all-MiniLM-L6-v2", "task": "text-classification", "data": {"path": str(data)}, "out": str(out),
        "tune": {"method": "probe"}, "compress": {"schemes": ["fp32"]}, "gate": {"max_drop": 0.2},
    }  # fmt: skip
    build_untimed(values)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(values))
    words = ("password", "login", "username", "fingerprint")
    said = [f"{text} {word}" for text, label in rows if label == "login" for word in words]
    with load(out) as predictor:
        given = [answer.label for answer in predictor.predict(said)]
    assert "login" not in given
    folder = tmp_path / "kept"
    _keep(folder, [(text, label, "login") for text, label in zip(said, given, strict=True)])
    with untimed():
        ended = run_here("loop", recipe, "--feedback", folder, "--json")
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert (report["outcome"], report["new"], report["added"]) == (REPLACED, 96, 96)
    assert report["judgement"]["only_new"] > 5
    assert report["judgement"]["ci95"][0] > 0
    assert "login" not in load(tmp_path / "bundle.previous").labels
    assert "login" in load(out).labels
    again = run_here("loop", recipe, "--feedback", folder, "--json")
    assert (again.code, json.loads(again.out)["outcome"]) == (0, NOTHING)
    # What says the same as the data makes nothing better.
    shutil.rmtree(folder)
    _keep(folder, [(text, label, label) for text, label in rows if label == "card"])
    with untimed():
        kept = run_here("loop", recipe, "--feedback", folder, "--json")
    assert (kept.code, json.loads(kept.out)["outcome"]) == (3, KEPT)
