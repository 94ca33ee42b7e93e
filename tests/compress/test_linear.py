"""The scheme `linear`: its tables are the linear model that was solved, its probabilities fit, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.compress.schemes import linear
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.engines.static import StaticEngine

pytest.importorskip("torch")

WORDS = ("card", "cash", "login")


@pytest.fixture(scope="module")
def material(tiny_material: Callable[[str], Any]) -> Any:
    """A tiny tuned model, with labels that the tokens of a text tell: how many of its first ones are even."""
    plain, _ = tiny_material("bert")
    return replace(plain, train=relabelled(plain, plain.train), validation=relabelled(plain, plain.validation))


def relabelled(material: Any, part: Any) -> Any:
    width = material.objective.width
    rows = [row["input_ids"] for row in material.encoder.rows(part.texts)]
    return replace(part, targets=tuple(ids[1] % width for ids in rows))


def logits_of(tables: Any, material: Any, texts: Any) -> Any:
    rows = [EncodedText(row["input_ids"], [], False) for row in material.encoder.rows(texts)]
    return StaticEngine.of(tables).logits(rows)


def test_it_learns_from_the_labels_alone(material: Any, tmp_path: Path) -> None:
    learnt = linear.learn(material, tmp_path / "linear")
    answers = logits_of(learnt.tables, material, material.train.texts).argmax(axis=1)
    assert np.mean(answers == material.train.targets) > 0.9
    assert f"weighed by the labels of {len(material.train):,} texts; margins times " in learnt.made_by
    assert not (tmp_path / "linear").exists()
    again = linear.learn(material, tmp_path / "again").tables
    for name, value in vars(learnt.tables).items():
        np.testing.assert_array_equal(getattr(again, name), value)


def test_tables_answer_as_the_solved_model_does(material: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    original = type(material.objective).linear_head

    def spy(self: Any, features: Any, learnt: Any) -> Any:
        solved.append((features, original(self, features, learnt)))
        return solved[-1][1]

    monkeypatch.setattr(type(material.objective), "linear_head", spy)
    monkeypatch.setattr(linear, "fitted_scale", lambda *_: 2.0)
    tables = linear.learn(material, tmp_path / "linear").tables
    ((features, head),) = solved
    expected = 2 * head.logits(features)
    answers = logits_of(tables, material, material.train.texts)
    # A row of int8 is off by half a step at most, and an input sums sqrt(features) of them.
    bound = tables.scales.max() / 2 * math.sqrt(max(features.getnnz(axis=1))) * 1.01
    assert np.abs(answers - expected).max() <= bound
    assert np.abs(answers - expected).max() < 0.05 * np.ptp(expected)


def test_the_scale_makes_probabilities_the_share_that_is_right() -> None:
    # A margin of one between two classes, right in three of four rows: the likeliest probability is three quarters.
    logits = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (400, 1))
    expected = np.repeat([0, 1], [300, 100])
    assert linear.fitted_scale(logits, expected) == pytest.approx(math.log(3), rel=1e-3)
    # Where all are right there is no likeliest one: it stays within its bounds.
    assert 0.1 <= linear.fitted_scale(logits, np.zeros(400, dtype=int)) <= 50


def test_a_class_that_was_never_learnt_says_nothing_of_the_scale() -> None:
    logits = np.tile(np.array([[1.0, 0.0, -1e4]], dtype=np.float32), (404, 1))
    expected = np.repeat([0, 1, 2], [300, 100, 4])
    assert linear.fitted_scale(logits, expected) == pytest.approx(math.log(3), rel=1e-3)
    assert linear.fitted_scale(logits[:4], np.full(4, 2)) == 1.0


def test_what_makes_it_unsuitable_is_said(material: Any) -> None:
    rows = len(material.train)
    assert linear.unsuitable(material) == (
        f"there are {rows} labelled texts to learn from, and n-grams need {linear.FEWEST_TEXTS}"
    )
    part = material.train
    many = replace(material, train=replace(part, texts=part.texts * 10, targets=part.targets * 10))
    assert linear.unsuitable(many) == ""
    pairs = replace(many, model=replace(many.model, codec="text-pair"))
    assert linear.unsuitable(pairs).startswith("its inputs are pairs of texts")
    several = HeadSpec(kind="labels", labels=list(WORDS), thresholds=[0.5] * 3)
    assert linear.unsuitable(replace(many, model=replace(many.model, head=several))).startswith("a text has several")


FOREIGN = {
    "characters": ("\u9001\u9910\u5f88{}\u4e86{}", ("\u5feb", "\u6162"), ["\u9001", "\u9910"]),
    "words": (
        "\u0433\u0434\u0435 {} \u0442\u0443\u0442 {}",
        ("\u043a\u0430\u0440\u0442\u0430", "\u0434\u0435\u043d\u044c\u0433\u0438"),
        ["\u0433\u0434\u0435", "\u0442\u0443\u0442"],
    ),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_language_that_the_base_does_not_know_gets_a_tokenizer_of_its_own(
    material: Any, tmp_path: Path, kind: str
) -> None:
    from edgetune.serve.codecs import open_codec

    pattern, telling, common = FOREIGN[kind]
    targets = tuple(row % 2 for row in range(80))
    texts = tuple(pattern.format(telling[target], row) for row, target in enumerate(targets))
    part = replace(material.train, texts=texts, targets=targets)
    learnt = linear.learn(replace(material, train=part, validation=part), tmp_path / "linear")
    assert ", of its own tokenizer, as " in learnt.made_by
    assert {path.name for path in (tmp_path / "linear" / "model").iterdir()} == {
        *("config.json", "tokenizer.json", "tokenizer_config.json"),
    }
    codec = open_codec("text", tmp_path / "linear" / "model", material.model.max_tokens)
    logits = StaticEngine.of(learnt.tables).logits(codec.encode(texts))
    assert logits.argmax(axis=1).tolist() == list(targets)
    vocabulary = codec._tokenizer.get_vocab()
    assert {*common, *telling} <= set(vocabulary)
    assert [vocabulary[name] for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]")] == [0, 1, 2, 3]
