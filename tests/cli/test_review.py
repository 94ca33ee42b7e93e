"""`edgetune review`: a list that a person decides in, and a build's data that follows it."""

from __future__ import annotations

import csv
import importlib.util
import json

import pytest

from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS
from tests.conftest import toy_sentences


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Toy sentences in two files, one row nearly in both, one with a wrong label."""
    monkeypatch.chdir(tmp_path)
    sentences = toy_sentences()
    train, test = sentences[:80], sentences[80:]
    train.append((max(text for text, _ in test) + " !", dict(test)[max(text for text, _ in test)]))
    wrong = train[0][0]
    train[0] = (wrong, next(label for _, label in train if label != train[0][1]))
    for name, part in (("train", train), ("test", test)):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([("text", "label"), *part])
    return tmp_path


def read(path):
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def test_what_is_listed_and_decided_is_what_a_build_learns_from(edgetune, rows):
    arguments = ("review", "train.csv", "--set", "data.test=test.csv")
    ended = edgetune(*arguments)
    assert ended.code == 0, ended.err
    assert "Looked at 97 rows." in ended.out
    assert "1 row that nearly repeat a row that judges" in ended.out
    listed = read(rows / "review.csv")
    [across] = [row for row in listed if row["reason"] == "near duplicate across parts"]
    assert across["text"].endswith(" !")
    assert across["other"].startswith("test: ")
    assert across["part"] in ("train", "validation")
    assert all(not row["action"] for row in listed)
    across["action"] = "drop"
    with (rows / "decided.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(across))
        writer.writeheader()
        writer.writerows(listed)
    recipe = DataRecipe(path="train.csv", test="test.csv", corrections="decided.csv")
    dataset = Dataset.load(recipe, TASKS["text-classification"], seed=0)
    assert across["text"] not in {*dataset.train.texts, *dataset.validation.texts}
    assert any("dropped 1 row of the training data" in finding for finding in dataset.findings)

    again = edgetune(*arguments)
    assert again.code == 1
    assert "review.csv exists already" in again.err
    told = json.loads(edgetune(*arguments, "--force", "--json", "--near", "1").out)
    assert told["across_parts"] == told["within_a_part"] == 0
    assert told["rows"] == 97


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("chats.jsonl", '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 9,
         "is data of text-generation"),
        ("tagged.conll", "EU B-ORG\nrejects O\n\nBonn B-LOC\n\n" * 9, "is read as token-classification"),
        ("none.csv", "", "none.csv"),
    ],
)  # fmt: skip
def test_data_that_has_no_labelled_texts_is_refused_and_nothing_written(edgetune, rows, name, content, message):
    (rows / name).write_text(content, encoding="utf-8")
    ended = edgetune("review", name)
    assert ended.code in (1, 2)
    assert message in ended.err
    assert not (rows / "review.csv").exists()


def test_numbers_are_compared_by_their_texts_alone(edgetune, rows):
    lines = [f"text {number} of a shop that sells things,{number}.5" for number in range(60)]
    (rows / "n.csv").write_text("\n".join(["text,score", *lines]), encoding="utf-8")
    ended = edgetune("review", "n.csv", "--task", "text-regression")
    assert ended.code == 0, ended.err
    assert "Labels were not held against a model: rows have several, or numbers." in ended.out
    assert {row["reason"] for row in read(rows / "review.csv")} <= {"near duplicate", "near duplicate across parts"}


def test_a_missing_package_is_named_with_its_extra(edgetune, rows, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "cleanlab" else real(name, *rest)
    )
    ended = edgetune("review", "train.csv")
    assert "cleanlab" in ended.err
    assert "edgetune[review]" in ended.err
