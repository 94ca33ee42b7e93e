"""`edgetune init`: the recipe it writes repeats what it saw, and it never overwrites unasked."""

import json
import re

import pytest
import yaml
from click.testing import CliRunner

from edgetune.commands.init import command
from edgetune.serve.errors import DataError, ModelError, RecipeError, WorkError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.tasks import TASKS


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
    repeated = Dataset.load(DataRecipe(**section), TASKS["text-classification"], seed=0)
    assert repeated.digest == Dataset.load(DataRecipe(path=name), TASKS["text-classification"], seed=0).digest


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
    with pytest.raises(DataError, match=r"--set data\.text=b"):
        invoke("pairs.csv")
    assert not (tickets / "recipe.yaml").exists()
    invoke("pairs.csv", "--text", "b", "--label", "d")
    section = yaml.safe_load((tickets / "recipe.yaml").read_text(encoding="utf-8"))["data"]
    assert (section["text"], section["label"]) == ("b", "d")


def test_a_recipe_that_cannot_be_written_leaves_nothing(tickets):
    (tickets / "file").touch()
    with pytest.raises(WorkError, match="cannot be written"):
        invoke("tickets.csv", "-o", "file/recipe.yaml")


@pytest.fixture
def chats(tmp_path, monkeypatch):
    """A folder with `talk.jsonl`: 24 prompts with completions, one of them twice."""
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"the {one} sees {n}", "completion": " a fish ."} for one in ("cat", "dog") for n in range(12)]
    lines = [json.dumps(row) for row in [*rows, rows[0]]]
    (tmp_path / "talk.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_chats_give_the_recipe_of_a_language_model(chats):
    result = invoke("talk.jsonl", "-o", "talk.yaml")
    assert result.exit_code == 0
    assert result.stderr == (
        "Task text-generation, since the rows of talk.jsonl are written as prompt-completion; --task says otherwise.\n"
    )
    text = (chats / "talk.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {
        "base": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "task": "text-generation",
        "data": {
            "path": "talk.jsonl",
            "format": "prompt-completion",
            "columns": {"prompt": "prompt", "completion": "completion"},
            "split": [0.7, 0.15, 0.15],
            "clean": {"deduplicate": True, "normalize": True},
        },
        "tune": {"method": "lora", "epochs": "auto", "metrics": []},
        "compress": {"schemes": "auto"},
        "gate": {"max_rise": 0.02, "confidence": 0.95},
        "benchmark": {},
        "seed": 0,
        "out": "bundles/talk",
    }
    assert "#   Read 25 rows from talk.jsonl." in text
    assert "#   Removed 1 duplicate row from the training data" in text
    assert "#   Tokens were not counted: the base is not on this machine" in text
    assert "# template:" not in text  # nothing is put around prompts and completions
    assert "Next: edgetune build talk.yaml" in result.stdout


def test_a_base_on_this_machine_counts_the_tokens(chats, language_base):
    result = invoke("talk.jsonl", "--json", "--base", str(language_base()))
    found = json.loads(result.stdout)
    assert (found["task"], found["format"]) == ("text-generation", "prompt-completion")
    assert found["columns"] == {"prompt": "prompt", "completion": "completion"}
    assert found["rows"] == {"train": 17, "validation": 4, "test": 3}
    assert found["tokens"] == {"train": 136, "validation": 32, "test": 24}  # 4 words, 3 words and the end of each
    assert "Encoded the test part: 3 rows, 24 tokens, 12 of them learnt." in found["findings"]
    assert "#   Encoded the test part: 3 rows" in (chats / "recipe.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((), {}),
        (("data.separator=' '", "data.max_tokens=32"), {"separator": " ", "max_tokens": 32}),
        (("data.format=question-answer", "data.columns.question=prompt", "data.columns.answer=completion"), {}),
        (("data.split=[0.5, 0.25, 0.25]", "data.clean.deduplicate=false"), {}),
    ],
)
def test_the_recipe_of_a_language_model_repeats_exactly(chats, settings, said):
    flags = [part for setting in settings for part in ("--set", setting)]
    digest = json.loads(invoke("talk.jsonl", "--json", "--task", "text-generation", *flags).stdout)["digest"]
    section = yaml.safe_load((chats / "recipe.yaml").read_text(encoding="utf-8"))["data"]
    assert said.items() <= section.items()
    assert Conversations.load(ConversationRecipe(**section), seed=0).digest == digest


def test_a_decoder_as_the_base_makes_texts_those_of_a_language_model(chats, language_base):
    (chats / "stories.csv").write_text("text\n" + "".join(f"the cat sees {n}\n" for n in range(20)), encoding="utf-8")
    assert "task: text-generation" not in invoke("stories.csv", "--base", str(language_base()), "--json").stdout
    text = (chats / "recipe.yaml").read_text(encoding="utf-8")
    assert "task: text-generation" in text
    assert yaml.safe_load(text)["data"]["format"] == "text"


def test_an_encoder_does_not_answer_chats(chats, tiny_base):
    with pytest.raises(RecipeError, match="The task cannot be guessed"):
        invoke("talk.jsonl", "--base", str(tiny_base("bert")))
    with pytest.raises(ModelError, match="does not generate text"):
        invoke("talk.jsonl", "--base", str(tiny_base("bert")), "--task", "text-generation")
    assert not (chats / "recipe.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--set", "tune.method=full"), "--set gives values of tune."),
        (("--set", "data.colour=red"), "data.colour: there is no such key"),
        (("--task", "poetry"), "There is no task 'poetry'."),
        (("--label", "completion", "--task", "text-generation"), "data.label: there is no such key"),
        (("--set", "data.format"), "--set data.format says nothing."),
    ],
)
def test_what_init_cannot_take_is_told_and_nothing_is_written(chats, arguments, said):
    with pytest.raises(RecipeError, match=re.escape(said)):
        invoke("talk.jsonl", *arguments)
    assert not (chats / "recipe.yaml").exists()


def test_what_a_base_on_this_machine_takes_in_is_said_before_anything_is_trained(tickets, tiny_base):
    rows = "".join(f"{'卡 ' * 200}{n},{n % 2}\n" for n in range(20))
    (tickets / "long.csv").write_text("text,label\n" + rows, encoding="utf-8")
    result = invoke("long.csv", "--base", str(tiny_base("bert")), "--json")
    found = json.loads(result.stdout)
    assert found["cut_share"] == 1.0
    assert found["unknown_share"] > 0.5
    assert "#   100.0% of 14 training texts are longer than" in (tickets / "recipe.yaml").read_text(encoding="utf-8")


def test_help_has_an_example():
    assert "edgetune init tickets.csv -o tickets.yaml" in invoke("--help").stdout


def test_what_a_linear_model_reaches_is_told_before_anything_is_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"my {('card', 'rate')[n % 2]} is number {n},{('a', 'b')[n % 2]}" for n in range(200)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n", encoding="utf-8")
    finding = (
        "A linear model of words 1-2 and characters within words 2-5 that learns from 140 training rows reaches "
        "100.00% accuracy on 30 validation rows: what a tuned model has to beat."
    )
    assert finding in invoke("rows.csv").output
    assert finding in " ".join((tmp_path / "recipe.yaml").read_text(encoding="utf-8").replace("#", "").split())
    linear = json.loads(invoke("rows.csv", "--force", "--json").output)["linear"]
    assert (linear["value"], linear["rows"], linear["learnt_rows"]) == (1.0, 30, 140)
