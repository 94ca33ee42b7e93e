"""Texts out of scope: how they are read, halved and stored, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS

OUTSIDE = [f"outside {number}" for number in range(25)]


def labelled(folder: Path) -> str:
    rows = [f"text {number},{('neg', 'pos')[number % 2]}" for number in range(40)]
    (folder / "a.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    return str(folder / "a.csv")


def load(folder: Path, name: str, content: str, task: str = "text-classification", **recipe: object) -> Dataset:
    (folder / name).write_text(content, encoding="utf-8")
    recipe = {"path": labelled(folder), **recipe, "out_of_scope": str(folder / name)}
    return Dataset.load(DataRecipe(**recipe), TASKS[task], seed=0)


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("o.txt", "\n".join(OUTSIDE), "o.txt"),
        ("o.csv", "\n".join(["text,other", *(f"{text},1" for text in OUTSIDE)]), "o.csv, column 'text'"),
        ("o.tsv", "\n".join(["anything", *OUTSIDE]), "o.tsv, column 'anything'"),
    ],
)
def test_they_are_read_from_what_unlabeled_texts_are_read_from(tmp_path, name, content, source):
    outside = load(tmp_path, name, content).out_of_scope
    assert outside.texts == tuple(OUTSIDE)
    assert outside.source == str(tmp_path / name)
    assert outside.findings == (f"Read 25 out-of-scope rows from {source}.",)


def test_texts_of_the_labelled_parts_are_none_of_them(tmp_path):
    lines = ["text 1", "TEXT 2", *OUTSIDE, "outside 3", "", *(f"text {number}" for number in range(3, 40))]
    outside = load(tmp_path, "o.txt", "\n".join(lines)).out_of_scope
    assert outside.texts == tuple(OUTSIDE)
    assert "Dropped 1 out-of-scope row without text." in outside.findings


def test_nothing_of_a_data_set_depends_on_them(tmp_path):
    plain = Dataset.load(DataRecipe(path=labelled(tmp_path)), TASKS["text-classification"], seed=0)
    dataset = load(tmp_path, "o.txt", "\n".join(OUTSIDE))
    assert plain.out_of_scope is None
    assert (dataset.digest, dataset.findings, dataset.train) == (plain.digest, plain.findings, plain.train)
    dataset.save(tmp_path)
    assert Dataset.open(tmp_path) == dataset


def test_halves_by_the_seed_have_every_text_once(tmp_path):
    outside = load(tmp_path, "o.txt", "\n".join(OUTSIDE)).out_of_scope
    choosing, reporting = outside.halves(0)
    assert (len(choosing), len(reporting)) == (12, 13)
    assert sorted((*choosing, *reporting)) == sorted(OUTSIDE)
    assert outside.halves(0) == (choosing, reporting) != outside.halves(1)


def test_too_few_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"o\.txt has 19 out-of-scope rows with a text of its own\."):
        load(tmp_path, "o.txt", "\n".join([*OUTSIDE[:19], *OUTSIDE[:19], "text 3"]))
    with pytest.raises(DataError, match="There is no file"):
        Dataset.load(
            DataRecipe(path=labelled(tmp_path), out_of_scope=str(tmp_path / "none.txt")),
            TASKS["text-classification"],
            seed=0,
        )


def test_pairs_have_none(tmp_path):
    rows = "\n".join(["text,text_pair,label", *(f"a {n},b {n},{n % 2}" for n in range(40))])
    (tmp_path / "pairs.csv").write_text(rows, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"data\.out_of_scope is given with pairs of texts"):
        load(tmp_path, "o.txt", "\n".join(OUTSIDE), "text-pair-classification", path=str(tmp_path / "pairs.csv"))
