"""Recipes made to do harm, or with words that YAML takes for something else: one short message each, no traceback."""

from __future__ import annotations

import itertools
import os
import time

import pytest

from edgetune.once.recipe import OnceRecipe
from edgetune.recipe import parse_settings, read_recipe, recipe_values
from edgetune.recipe_yaml import NotYaml, shown, yaml_value
from edgetune.serve.errors import RecipeError

from .fuzzed_recipes import fuzzed_recipe

FUZZED = int(os.environ.get("EDGETUNE_FUZZED_RECIPES", "300"))
MOST_CHARACTERS = 6_000
MOST_SECONDS = 30


def bomb(width=10, levels="abcdefgh"):
    lines = [f"{levels[0]}: &{levels[0]} [{', '.join(['x'] * width)}]"]
    for before, name in itertools.pairwise(levels):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * width)}]")
    return "\n".join(lines) + "\n"


HOSTILE = {
    "a timestamp of no month": ("seed: 2024-13-45\n", "seed: should be a valid integer"),
    "a time of no day": ("seed: 2024-02-30 99:99:99\n", "seed: should be a valid integer"),
    "a tag that makes an object": ("base: !!python/object:os.system x\n", "line 1, !!python/object:os.system makes no"),
    "a tag of a timestamp": ("base: !!timestamp x\n", "line 1, !!timestamp makes no value of a recipe"),
    "a tag of a number": ("seed: !!int abc\n", "line 1, !!int makes no value"),
    "a tag of truth": ("a: 1\nbase: !!bool maybe\n", "line 2, !!bool makes no value"),
    "a tag of a set": ("base: !!set {a, b}\n", "line 1, !!set makes no value"),
    "a name that is too long": ("base: " + "a" * 5000, "base is too long, with 5,000 bytes: 'aaa"),
    "a file's name that is too long": (f"data: {{path: {'d' * 300}.csv}}", "data.path is too long, with 304 bytes"),
    "an output that is too long": (f"out: {'é' * 200}", "out is too long, with 400 bytes"),
    "a NUL": ('base: "a\\0b"', "line 1, a NUL or half a character stands in a word"),
    "half a character": ('base: "\\ud800"', "line 1, a NUL or half a character stands in a word"),
    "no character": ('base: "\\Uffffffff"', "cannot be read: "),
    "deep lists": ("base: " + "[" * 20_000, "nested more than 40 deep"),
    "deep sections": ("data: " + "{a: " * 3_000, "nested more than 40 deep"),
    "a list in itself": ("base: &a [*a]", "or stand inside themselves"),
    "aliases of aliases": (bomb() + "base: *h\n", "its aliases stand for more than 1,000,000 values"),
    "aliases of a long word": (f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 50)}]\n", "its aliases stand for more"),
    "more than a recipe": ("a: b\n" * 60_000, "has more than 262,144 bytes"),
    "a number of many digits": (f"seed: {'9' * 5000}", "seed: "),
    "an endless number": ("tune: {epochs: .inf}", "tune.epochs: should be a valid number"),
    "a list as a key": ("? [a]\n: 1\n", "line 1, a list or section stands where a key was expected"),
    "a key twice": ("base: a\nbase: b\n", "line 2, the key 'base' is there twice"),
    "many faults": ("".join(f"key{n}: 1\n" for n in range(900)), "  and 882 more\n"),
    "a long key": (f"{'k' * 900}: 1\n", ": there is no such key"),
    "a merged word": ("<<: 3\n", "line 1, << takes a section"),
    "two documents": ("a: 1\n---\nb: 2\n", "line 2, but found another document"),
    "another encoding": ("base: ä\n".encode("latin-1"), "line 1 is not UTF-8"),
    "a control character": ("base: \x01\n", "special characters are not allowed"),
}


@pytest.fixture
def recipe(tmp_path):
    """`recipe(content)` writes a recipe and returns its path."""

    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_recipe_holds_is_told_in_one_short_message(edgetune, recipe, name):
    content, words = HOSTILE[name]
    begun = time.monotonic()
    ended = edgetune("build", recipe(content), "--plan")
    assert (ended.code, ended.out) == (2, "")
    assert words in ended.err
    assert len(ended.err) < MOST_CHARACTERS
    assert ended.err.startswith("Error: ")
    assert time.monotonic() - begun < MOST_SECONDS


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "pipe"])
def test_what_is_no_file_is_no_recipe(edgetune, tmp_path, path):
    if path == "pipe":
        path = tmp_path / "pipe"
        os.mkfifo(path)
    ended = edgetune("build", path, "--plan")
    assert ended.code == 2
    assert f"The recipe {path} is no file but a device, a pipe or a folder." in ended.err


def test_a_recipe_with_a_name_that_is_too_long(edgetune):
    ended = edgetune("build", "r" * 5000, "--plan")
    assert ended.code == 2
    assert len(ended.err) < 600


# Words.


@pytest.mark.parametrize(
    "word", ["on", "off", "yes", "no", "y", "0", "1", "007", "1.10", "1e3", "2024-01-01", "12:30", "0x10", "1_000", "é"]
)
def test_a_column_is_named_by_a_word_whatever_it_looks_like(recipe, word):
    path = recipe(f"base: encoder\ndata: {{path: rows.csv, text: {word}, label: {word}x}}\n")
    assert OnceRecipe.load(path, {}).data.text == word
    settings = parse_settings([f"data.text={word}", f"data.label={word}", "data.header=true"])
    loaded, choice = read_recipe(None, {"base": "encoder", "data.path": "rows.csv", **settings})
    assert (loaded.data.text, loaded.data.label, loaded.data.header) == (word, word, True)
    assert choice.task == "text-classification"


def test_switches_and_numbers_are_still_what_they_were(recipe):
    text = (
        "base: encoder\ndata: {path: rows.csv, clean: {deduplicate: off, normalize: no}, split: [0.70, 0.15, 0.15]}\n"
    )
    more = "tune: {learning_rate: 1e-4, epochs: 2.50, lora: {rank: 8}}\nseed: 007\n"
    loaded = OnceRecipe.load(recipe(text + more), {})
    assert (loaded.data.clean.deduplicate, loaded.data.clean.normalize) == (False, False)
    assert loaded.data.split == (0.7, 0.15, 0.15)
    assert (loaded.tune.learning_rate, loaded.tune.epochs, loaded.tune.lora.rank, loaded.seed) == (1e-4, 2.5, 8, 7)


def test_a_recipe_that_was_written_is_read_as_the_same(recipe):
    text = {"text": "on", "label": "2024-01-01", "separator": "|", "encoding": "1_0"}
    values = {"base": "007", "data": {"path": "1.10", **text}, "tune": {"learning_rate": 1e-5, "epochs": 0.1}}
    written = OnceRecipe.of_values(values, None)
    assert OnceRecipe.load(recipe(written.to_yaml()), {}) == written


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("true", """should be a valid string (found True; in quotes it is a word: "True")"""),
        ("[a]", "should be a valid string (found ['a'])"),
        ("a: b", "should be a valid string (found {'a': 'b'})"),
    ],
)
def test_what_is_no_word_is_shown(value, told):
    settings = parse_settings([f"data.text={value}"])
    with pytest.raises(RecipeError) as caught:
        OnceRecipe.load(None, {"base": "encoder", "data.path": "rows.csv", **settings})
    assert told in str(caught.value)


def test_no_label_column_at_all_is_refused():
    """A list of label columns that is empty names no labels, and guesses none."""
    with pytest.raises(RecipeError, match="at least 1 item"):
        OnceRecipe.load(None, {"base": "encoder", "data.path": "rows.csv", **parse_settings(["data.label=[]"])})


@pytest.mark.parametrize("value", ["@handle", "#tag", "*", "[", "%", "`x`", '"', "{a"])
def test_a_word_that_yaml_does_not_read_is_shown_in_quotes(edgetune, value):
    ended = edgetune("build", "--base", "x", "--data", "rows.csv", "--set", f"data.text={value}")
    assert ended.code == 2
    assert f"--set data.text={value}: the value is " in ended.err
    (quoted,) = [line.partition("--set '")[2][:-1] for line in ended.err.splitlines() if line.startswith("To do: ")]
    assert parse_settings([quoted]) == {"data.text": value}


def test_anchors_and_merged_sections_are_read():
    text = "a: &a {x: 1, y: [1, 2.5, -3]}\nb: {<<: *a, x: 2}\nc: {<<: [*a, {z: 3, x: 4}]}\nd: *a\n"
    one = {"x": 1, "y": [1, 2.5, -3]}
    assert yaml_value(text) == {"a": one, "b": {**one, "x": 2}, "c": {"x": 1, "y": one["y"], "z": 3}, "d": one}
    assert yaml_value("on: !!str 5\n2024-01-01: ~\n") == {"on": "5", "2024-01-01": None}
    assert yaml_value("") is None
    with pytest.raises(NotYaml, match="line 1, expected the node content"):
        yaml_value("a: }")


def test_a_value_in_a_message_is_short():
    nested: list[object] = ["x" * 10_000] * 1_000
    for _ in range(50):
        nested = [nested] * 1_000
    assert len(shown(nested)) < 2_000
    assert shown("a") == "'a'"


# Recipes that nobody would write.


def fuzz_one(edgetune, folder, base, seed):
    """Plan a build by a recipe of this seed; nothing but a plan or a message may come of it."""
    content, settings = fuzzed_recipe(seed, str(base))
    (folder / "recipe.yaml").write_bytes(content)
    begun = time.monotonic()
    ended = edgetune("build", "recipe.yaml", "--plan", *(part for setting in settings for part in ("--set", setting)))
    assert ended.code in (0, 1, 2), seed
    assert ended.code == 0 or ended.err.splitlines()[-1], seed
    assert len(ended.err) < MOST_CHARACTERS, seed
    assert "Traceback" not in ended.err, seed
    assert time.monotonic() - begun < MOST_SECONDS, seed


def test_fuzzed_recipes_end_in_a_message(edgetune, tiny_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = tiny_base("bert")
    for seed in range(FUZZED):
        fuzz_one(edgetune, tmp_path, base, seed)


def test_a_fuzzed_recipe_is_told_by_its_seed():
    assert fuzzed_recipe(7, "base") == fuzzed_recipe(7, "base")
    assert len({fuzzed_recipe(seed, "base")[0] for seed in range(200)}) > 150
    with pytest.raises(RecipeError):
        recipe_values(None, {"a": 1, "a.b": 2})
