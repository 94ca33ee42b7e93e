"""`edgetune init`: the recipe it writes repeats what it saw, and it never overwrites unasked."""

import json

import pytest
import yaml
from click.testing import CliRunner

from edgetune.commands.init import command
from edgetune.serve.errors import DataError, WorkError
from edgetune.tune.dataset import DataRecipe, Dataset


@pytest.fixture
def tickets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"text {n},{('card', 'rate')[n % 3 == 0]}" for n in range(30)]
    (tmp_path / "tickets.csv").write_text("\n".join(["message,topic", *rows, rows[0]]) + "\n", encoding="utf-8")
    return tmp_path


def invoke(*arguments):
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False)


def test_the_recipe_holds_what_was_found_and_its_comments_the_counts(tickets):
    result = invoke("tickets.csv", "-o", "out/tickets.yaml")
    assert result.exit_code == 0
    text = (tickets / "out" / "tickets.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {
        "base": "all-MiniLM-L6-v2",
        "task": "text-classification",
        "data": {
            "path": "tickets.csv",
            "text": "message",
            "label": "topic",
            "split": [0.7, 0.15, 0.15],
            "clean": {"deduplicate": True, "normalize": True},
        },
        "tune": {"method": "auto", "pooling": "auto", "epochs": "auto"},
        "compress": {"schemes": "auto"},
        "gate": {"max_drop": 0.01, "confidence": 0.95},
        "benchmark": {},
        "seed": 0,
        "out": "bundles/tickets",
    }
    assert "#   Read 31 rows from tickets.csv." in text
    assert "#   Removed 1 duplicate row from the training data" in text
    assert "#   2 classes, from 10 rows ('rate') to 20 rows ('card')." in text
    assert [path.name for path in (tickets / "out").iterdir()] == ["tickets.yaml"]
    assert "Next: edgetune build out/tickets.yaml" in result.stdout


def test_json_is_one_document(tickets):
    result = invoke("tickets.csv", "--json", "--base", "mine/encoder")
    found = json.loads(result.stdout)
    assert found["recipe"] == "recipe.yaml"
    assert found["rows"] == {"train": 21, "validation": 5, "test": 4}
    assert found["classes"] == {"card": 20, "rate": 10}
    assert yaml.safe_load((tickets / "recipe.yaml").read_text(encoding="utf-8"))["base"] == "mine/encoder"


@pytest.mark.parametrize(
    ("name", "content", "extra"),
    [
        ("plain.tsv", "".join(f"film {n}\t{n % 2}\n" for n in range(20)).encode(), {"header": False}),
        ("odd: #1.csv", ("text,yes\n" + "".join(f"film {n},{n % 2}\n" for n in range(20))).encode(), {}),
        (
            "latin.csv",
            ("text,label\n" + "".join(f"déjà vu à côté {n},{n % 2}\n" for n in range(20))).encode("cp1252"),
            {"encoding"},
        ),
    ],
)
def test_the_recipe_repeats_exactly(tickets, name, content, extra):
    (tickets / name).write_bytes(content)
    invoke(name)
    section = yaml.safe_load((tickets / "recipe.yaml").read_text(encoding="utf-8"))["data"]
    assert set(extra) == set(section) - {"path", "text", "label", "split", "clean"}
    assert section["path"] == name
    repeated = Dataset.load(DataRecipe(**section), seed=0)
    assert repeated.digest == Dataset.load(DataRecipe(path=name), seed=0).digest


def test_an_existing_recipe_is_kept_without_force(tickets):
    (tickets / "recipe.yaml").write_text("mine", encoding="utf-8")
    with pytest.raises(WorkError, match=r"recipe.yaml exists already") as caught:
        invoke("tickets.csv")
    assert "--force" in caught.value.action
    assert (tickets / "recipe.yaml").read_text(encoding="utf-8") == "mine"
    assert invoke("tickets.csv", "--force").exit_code == 0
    assert (tickets / "recipe.yaml").read_text(encoding="utf-8") != "mine"


def test_columns_that_cannot_be_guessed_can_be_named(tickets):
    rows = "".join(f"one {n},two {n},{n % 2},{n % 2}\n" for n in range(20))
    (tickets / "pairs.csv").write_text("a,b,c,d\n" + rows, encoding="utf-8")
    with pytest.raises(DataError, match="--text and --label"):
        invoke("pairs.csv")
    assert not (tickets / "recipe.yaml").exists()
    invoke("pairs.csv", "--text", "b", "--label", "d")
    section = yaml.safe_load((tickets / "recipe.yaml").read_text(encoding="utf-8"))["data"]
    assert (section["text"], section["label"]) == ("b", "d")


def test_a_recipe_that_cannot_be_written_leaves_nothing(tickets):
    (tickets / "file").touch()
    with pytest.raises(WorkError, match="cannot be written"):
        invoke("tickets.csv", "-o", "file/recipe.yaml")


def test_help_has_an_example():
    assert "edgetune init tickets.csv -o tickets.yaml" in invoke("--help").stdout
