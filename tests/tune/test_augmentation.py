"""Changed copies of training texts: what each kind does, where copies stand, and when they are learnt."""

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from edgetune.serve.errors import DataError
from edgetune.tune import tuning
from edgetune.tune.augmentation import AUGMENTERS, TextAugmentRecipe
from edgetune.tune.augmentation.copies import with_copies
from edgetune.tune.augmentation.drawn import Drawn
from edgetune.tune.augmentation.keyboard import NEIGHBOURS
from edgetune.tune.augmentation.lexicon import read_lexicon
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.rows import key
from edgetune.tune.models.base import find_base
from edgetune.tune.models.model import TunedModel
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.training import useful_copies
from edgetune.tune.training.gain import Gain
from edgetune.tune.training.progress import Silent

TEXT = "Where is my new card, please? I've waited for it since Monday"
WORDS = "Where is my new card please I've waited for it since Monday".split()
SYNONYMS = {"card": ("menu",), "where": ("whither",)}
WORDNET = "  1 licence\n01 06 n 03 Auto 0 car 0 motor_car 0 001 @ 02 n 0000 | a thing\n02 06 n 01 lone 0 000 | alone\n"


def changed(kind, text=TEXT, *key_parts):
    row = Drawn.of(text, *key_parts)
    return row.changed(AUGMENTERS[kind].change(row, SYNONYMS))


def words_of(text):
    row = Drawn.of(text)
    return [row.word(place) for place in range(len(row.words))]


@pytest.mark.parametrize("kind", AUGMENTERS)
def test_a_draw_depends_on_text_and_key_alone(kind):
    many = {changed(kind, TEXT, seed) for seed in range(20)}
    assert changed(kind, TEXT, 3) == changed(kind, TEXT, 3)
    assert len(many) > 1
    assert TEXT not in many


def test_words_that_change_places_stay_the_same_words():
    for seed in range(20):
        assert sorted(words_of(changed("swap", TEXT, seed))) == sorted(WORDS)
        assert words_of(changed("swap", TEXT, seed)) != WORDS


def test_words_are_left_out_with_their_blank():
    for seed in range(20):
        text = changed("delete", TEXT, seed)
        assert len(words_of(text)) == len(WORDS) - 1
        assert "  " not in text
    assert changed("delete", "alone") == "alone"


def test_a_mistyped_letter_is_near_on_the_keyboard():
    assert set(NEIGHBOURS["g"]) == set("ftyhvb")
    for seed in range(20):
        (before, after), *more = [
            pair for pair in zip(WORDS, words_of(changed("typing", TEXT, seed)), strict=True) if len(set(pair)) > 1
        ]
        assert not more
        assert abs(len(before) - len(after)) <= 1
        assert before[0] in after[:2]
    assert changed("typing", "a to 12 вода") == "a to 12 вода"


def test_synonyms_take_the_case_of_the_word():
    assert {changed("synonyms", TEXT, seed) for seed in range(20)} == {
        TEXT.replace("Where", "Whither"),
        TEXT.replace("card", "menu"),
    }


def test_a_character_is_a_word_where_no_blanks_stand():
    assert words_of("我的卡 card在哪") == ["我", "的", "卡", "card", "在", "哪"]
    assert sorted(changed("swap", "我的卡在哪")) == sorted("我的卡在哪")


def test_lexicons_are_read_from_lines_and_from_wordnet(tmp_path):
    (tmp_path / "words.txt").write_text("car, Auto,motor car\n# no, group\nbig\tlarge\n", encoding="utf-8")
    (tmp_path / "data.noun").write_text(WORDNET, encoding="utf-8")
    pair = {"car": ("Auto",), "auto": ("car",)}
    assert read_lexicon(tmp_path / "words.txt") == {**pair, "big": ("large",), "large": ("big",)}
    assert read_lexicon(tmp_path) == pair


@pytest.mark.parametrize("content", [None, "", "alone\n", b"\xff\xfe\x00"])
def test_what_is_no_lexicon_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match="is no lexicon"):
        read_lexicon(tmp_path / "a.txt")


@pytest.mark.parametrize(
    "section",
    [
        {"kinds": ["shuffle"]},
        {"kinds": ["synonyms"]},
        {"kinds": ["swap"], "lexicon": "a.txt"},
        {"copies": 2},
        {"decide": "always"},
        {"kinds": ["swap"], "copies": 0},
    ],
    ids=json.dumps,
)
def test_a_section_that_cannot_be_followed_is_refused(section):
    with pytest.raises(ValidationError):
        TextAugmentRecipe(**section)


def test_copies_stand_behind_training_rows_alone(toy_dataset, tmp_path):
    plain = toy_dataset()
    dataset = with_copies(plain, TextAugmentRecipe(kinds=["swap", "typing"], copies=2), 0)
    first, made = len(plain.train), dataset.copies.rows
    assert first < made <= 2 * first
    assert (dataset.validation, dataset.test) == (plain.validation, plain.test)
    assert dataset.train.texts[:first] == plain.train.texts
    assert len({key(text) for text in dataset.train.texts[first:]}) == made
    held_out = {key(text) for text in plain.validation.texts + plain.test.texts + plain.train.texts}
    assert held_out.isdisjoint(map(key, dataset.train.texts[first:]))
    assert dataset.digest != plain.digest
    assert replace(dataset.without_copies(), findings=plain.findings) == plain
    dataset.save(tmp_path)
    assert Dataset.open(tmp_path) == dataset


def test_copies_that_equal_held_out_texts_are_left_out_and_counted(toy_dataset):
    plain = replace(
        toy_dataset(),
        train=Part(("cash card", "pay now", "alone"), (0, 1, 0)),
        validation=Part(("CARD  cash",), (0,)),
        test=Part(("lost pin",), (1,)),
    )
    dataset = with_copies(plain, TextAugmentRecipe(kinds=["swap"]), 0)
    assert dataset.train == Part(("cash card", "pay now", "alone", "now pay"), (0, 1, 0, 1))
    assert dataset.findings[-2:] == (
        "Added 1 changed copy of training rows behind them: 1 by swap.",
        "Left out 1 copy equal to validation or test texts, 1 equal to training texts or other copies.",
    )


def test_a_copy_has_the_target_of_its_row(toy_dataset):
    plain = toy_dataset()
    dataset = with_copies(plain, TextAugmentRecipe(kinds=["swap"], decide="always"), 5)
    targets = {
        tuple(sorted(words_of(text))): target
        for text, target in zip(plain.train.texts, plain.train.targets, strict=True)
    }
    first = len(plain.train)
    for text, target in zip(dataset.train.texts[first:], dataset.train.targets[first:], strict=True):
        assert targets[tuple(sorted(words_of(text)))] == target


@pytest.mark.parametrize(("decide", "gain"), [("always", None), ("auto", 0.5), ("auto", 0.0)])
def test_copies_are_learnt_always_or_where_the_probe_gains(toy_dataset, tiny_base, tmp_path, monkeypatch, decide, gain):
    plain = toy_dataset()
    dataset = with_copies(plain, TextAugmentRecipe(kinds=["swap"], decide=decide), 0)
    monkeypatch.setattr(useful_copies, "probe_gain", lambda *_: Gain(gain, 0.1, len(plain.validation)))
    tuned = tuning.tune(
        dataset,
        find_base(str(tiny_base("bert"))),
        TuneRecipe(method="probe", precision="fp32"),
        task="text-classification",
        metric="",
        device="cpu",
        seed=0,
        folder=tmp_path,
        progress=Silent(),
    )
    learnt = dataset if gain != 0.0 else dataset.without_copies()
    assert TunedModel.open(tmp_path).learns_copies == (learnt is dataset)
    assert tuned.training.settings["train_rows"] == len(learnt.train)
    assert tuned.training.settings.get("changed_copies") == (dataset.copies.rows if learnt is dataset else None)
    assert len(np.load(tmp_path / "features.npy")) == len(learnt.train) + len(plain.validation)
    words = {None: "", 0.5: "are learnt:", 0.0: "are left out:"}[gain]
    assert words in tuned.training.remark
    assert ("changed copies" in tuned.training.remark) == (gain is not None)
