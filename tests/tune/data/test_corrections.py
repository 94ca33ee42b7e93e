"""Decisions on reviewed rows: what they change, what they say, and lists that are refused."""

from __future__ import annotations

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS

HEADER = "action,suggested,label,text"
ROWS = [f"text {number},{('neg', 'pos')[number % 2]}" for number in range(40)]


def load(folder, *decisions, header=HEADER, data=("text,label", *ROWS), task="text-classification", **recipe):
    (folder / "a.csv").write_text("\n".join(data) + "\n", "utf-8")
    path = folder / "review.csv"
    path.write_text("\ufeff" + "\n".join([header, *decisions]) + "\n", "utf-8")
    recipe = {"path": str(folder / "a.csv"), "corrections": str(path), **recipe}
    return Dataset.load(DataRecipe(**recipe), TASKS[task], seed=0)


def rows(dataset):
    parts = (dataset.train, dataset.validation, dataset.test)
    return {
        text: dataset.labels[target] for part in parts for text, target in zip(part.texts, part.targets, strict=True)
    }


def said(dataset):
    return [finding.partition("review.csv")[2] for finding in dataset.findings if "review.csv" in finding]


def test_rows_are_relabelled_and_dropped(tmp_path):
    decisions = [
        "relabel,pos,neg,text 0", "DROP,pos,neg,TEXT  2", ",pos,neg,text 4", "keep,pos,neg,text 6", "drop,,neg,text 1",
    ]  # fmt: skip
    dataset = load(tmp_path, *decisions)
    found = rows(dataset)
    assert found["text 0"] == "pos"
    assert "text 2" not in found  # whatever its case and spacing
    assert found["text 4"] == found["text 6"] == "neg"
    assert found["text 1"] == "pos"  # the decision is on a row of another label
    assert len(found) == 39
    assert said(dataset) == [
        ": relabelled 1 row and dropped 1 row of the training data.",
        ": 1 decision met no row of that text and label.",
    ]
    assert dataset.digest != load(tmp_path, "relabel,pos,neg,text 0").digest


def test_a_list_without_a_decision_says_so(tmp_path):
    assert said(load(tmp_path, ",pos,neg,text 0")) == [" decides nothing: its column action is empty."]


def test_pairs_are_known_by_both_texts(tmp_path):
    data = ["text,text_pair,label", *(f"a {row},b {row},{('no', 'yes')[row % 2]}" for row in range(40))]
    header = "action,suggested,label,text,text_pair"
    dataset = load(
        tmp_path,
        "relabel,yes,no,a 0,b 0",
        "drop,,no,a 2,b 4",
        header=header,
        data=data,
        task="text-pair-classification",
    )
    assert rows(dataset)["a 0", "b 0"] == "yes"
    assert rows(dataset)["a 2", "b 2"] == "no"


@pytest.mark.parametrize(
    ("decisions", "header", "message"),
    [
        (["delete,,neg,text 0"], HEADER, r"Row 1 of .*review\.csv has the action 'delete'"),
        (["keep,,neg,text 2", "relabel,,neg,text 0"], HEADER, "Row 2 of .* is to be relabelled and suggests no label"),
        (["relabel,poss,neg,text 0"], HEADER, "gives 'text 0' the label 'poss', which no row has"),
        (["drop,,neg,text 0", "relabel,pos,neg,text 0"], HEADER, "Row 2 of .* decides otherwise of 'text 0'"),
        (["drop,neg,text 0"], "action,label,text", "suggested"),
    ],
)
def test_lists_that_are_refused(tmp_path, decisions, header, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, *decisions, header=header)
