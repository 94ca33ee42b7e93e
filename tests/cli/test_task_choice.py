"""Which task a recipe is of when it names none: by its keys, its rows and its base; named, by nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetune import tasks
from edgetune.evidence import Guess
from edgetune.once import recognition
from edgetune.once.recipe import OnceRecipe
from edgetune.recipe import read_recipe
from edgetune.serve.errors import DataError, RecipeError
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.task_choice import choose_task
from edgetune.tasks import TASKS

CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
ROWS: dict[str, dict[str, Any]] = {
    "messages": CHAT,
    "judged messages": {**CHAT, "label": True},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]},
    "alpaca": {"instruction": "Translate.", "input": "cat", "output": "Katze"},
    "dolly": {"instruction": "Translate.", "context": "", "response": "Katze", "category": "open_qa"},
    "pairs": {"conversations": [{"human": "Hi", "AI": "Hello!"}]},
    "pairs of a bot": {"conversations": [{"user": "Hi", "bot": "Hello!"}]},
    "messages twice": {"prompt": CHAT["messages"][:1], "completion": CHAT["messages"][1:]},
    "completion": {"prompt": "The capital of France is", "completion": " Paris."},
    "marked": {"text": "Human: Hi\nAssistant: Hello!"},
}
LABELLED: dict[str, dict[str, Any]] = {
    "usual": {"text": "where is my card", "label": "card"},
    "chats with a class": {"instruction": "Translate.", "output": "Katze", "category": "language"},
    "unknown columns": {"headline": "rain", "kind": "weather"},
}


@pytest.fixture
def base(tmp_path):
    """`base("LlamaForCausalLM")` is the folder of a model of that architecture: its config alone is looked at."""

    def write(*names: str) -> str:
        folder = tmp_path / "-".join(names)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"architectures": names or None}), encoding="utf-8")
        return str(folder)

    return write


@pytest.fixture
def data(tmp_path):
    """`data(row)` is the data section of a file with such rows, no two alike in their first words."""

    def write(row: dict[str, Any], count: int = 6) -> dict[str, str]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps({**row, "number": n}) + "\n" for n in range(count)), encoding="utf-8")
        return {"path": str(path)}

    return write


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel", None])
def test_chats_are_for_a_language_model(base, data, name, architecture):
    named = {"base": base(architecture)} if architecture else {"base": "some/model"}
    choice = choose_task({**named, "data": data(ROWS[name])})
    assert choice.task == "text-generation"
    assert choice.reason.startswith("Task text-generation, since ")
    assert f"the rows of rows.jsonl {'hold preferences' if 'judged' in name else 'are written as '}" in choice.reason
    assert (f"is a decoder ({architecture})" in choice.reason) is bool(architecture)
    assert choice.reason.endswith("; --task says otherwise.")


@pytest.mark.parametrize("name", ROWS)
def test_chats_and_an_encoder_fit_no_task(base, data, name):
    either = (
        r"It may be text-classification, since .* is no decoder \(BertForMaskedLM\); text-generation, since the rows"
    )
    with pytest.raises(RecipeError, match=either) as refused:
        choose_task({"base": base("BertForMaskedLM"), "data": data(ROWS[name])})
    assert refused.value.action == (
        "add --task text-classification (a label for a text; takes an encoder and labelled rows) or "
        "--task text-generation (text that continues or answers a prompt; takes a decoder and texts or chats)"
    )


@pytest.mark.parametrize("name", LABELLED)
def test_labelled_rows_are_for_a_classifier_and_for_no_decoder(base, data, name):
    section = data(LABELLED[name])
    for named in ("some/model", base("BertModel"), base("BertForSequenceClassification"), base()):
        choice = choose_task({"base": named, "data": section})
        assert (choice.task, choice.reason) == ("text-classification", "")
    with pytest.raises(
        RecipeError, match=r"The task cannot be guessed.*text-generation, since the base .* is a decoder"
    ) as refused:
        choose_task({"base": base("LlamaForCausalLM"), "data": section})
    assert "--task text-generation" in (refused.value.action or "")


def test_answers_that_come_again_are_labels_and_others_are_answers(data):
    section = data({"question": "is it wet", "answer": "yes"})
    assert choose_task({"base": "b", "data": section}).task == "text-classification"
    path = Path(section["path"])
    rows = [{"question": f"how much is {n} and {n}", "answer": str(2 * n)} for n in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert choose_task({"base": "b", "data": section}).task == "text-generation"


def test_a_decoder_that_embeds_sentences_is_for_a_classifier(base, data):
    folder = base("Qwen3ForCausalLM")
    (Path(folder) / "1_Pooling").mkdir()
    choice = choose_task({"base": folder, "data": data(LABELLED["usual"])})
    assert choice.task == "text-classification"


def test_texts_alone_are_for_a_decoder_and_a_text_file_for_any(base, tmp_path):
    (tmp_path / "stories.txt").write_text("once upon a time\nthere was a cat\n", encoding="utf-8")
    section = {"path": str(tmp_path / "stories.txt")}
    assert choose_task({"base": base("LlamaForCausalLM"), "data": section}).task == "text-generation"
    choice = choose_task({"base": "some/model", "data": section})
    assert choice.reason == "Task text-generation, since stories.txt holds texts alone; --task says otherwise."
    with pytest.raises(
        RecipeError, match=r"is no decoder \(BertModel\); text-generation, since stories.txt holds texts alone"
    ):
        choose_task({"base": base("BertModel"), "data": section})


def test_a_folder_of_classes_is_labelled(base, tmp_path):
    for name in ("good", "bad"):
        (tmp_path / "films" / name).mkdir(parents=True)
        (tmp_path / "films" / name / "1.txt").write_text("a film", encoding="utf-8")
    section = {"path": str(tmp_path / "films")}
    assert choose_task({"base": "some/model", "data": section}).task == "text-classification"
    with pytest.raises(RecipeError, match="has a sub-folder of texts a class"):
        choose_task({"base": base("LlamaForCausalLM"), "data": section})


@pytest.mark.parametrize(
    ("section", "task"),
    [
        ({"format": "alpaca"}, "text-generation"),
        ({"columns": {"prompt": "q"}, "packing": True}, "text-generation"),
        ({"label": "mood"}, "text-classification"),
        ({"unlabeled": "more.txt"}, "text-classification"),
        ({"label": "mood", "format": "alpaca"}, "text-classification"),  # of both: the faults are told
        ({"split": [0.8, 0.1, 0.1]}, "text-classification"),
    ],
)
def test_keys_that_one_task_alone_knows_tell_it(section, task):
    choice = choose_task({"base": "b", "data": {"path": "missing.jsonl", **section}})
    assert choice.task == task
    assert bool(choice.reason) is (task == "text-generation")


@pytest.mark.parametrize(
    "section",
    [None, "rows.csv", {}, {"path": 3}, {"path": "no/such/set"}, {"path": "missing.csv"}, {"path": "damaged.jsonl"}],
)
def test_where_rows_tell_nothing_the_base_does(base, tmp_path, monkeypatch, section):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.jsonl").write_text("{not json\n", encoding="utf-8")
    assert choose_task({"base": "b", "data": section}).task == "text-classification"
    assert choose_task({"base": base("BertModel"), "data": section}).task == "text-classification"
    assert choose_task({"base": base("LlamaForCausalLM"), "data": section}).task == "text-generation"


@pytest.mark.parametrize("config", ["{", "[]", '{"architectures": "Llama"}'])
def test_a_config_that_cannot_be_read_tells_nothing(tmp_path, data, config):
    (tmp_path / "config.json").write_text(config, encoding="utf-8")
    assert choose_task({"base": str(tmp_path), "data": data(CHAT)}).task == "text-generation"
    assert choose_task({"base": str(tmp_path), "data": data(LABELLED["usual"])}).task == "text-classification"


def test_a_task_that_is_named_is_taken_whatever_the_rows(base, data):
    values = {"base": base("BertModel"), "data": data(CHAT)}
    for task in ("text-classification", "text-generation"):
        assert choose_task({"task": task, **values}).task == task
        assert choose_task({"task": task, **values}).reason == ""
    for none in ("poetry", 3, ["text-generation"]):
        with pytest.raises(RecipeError, match="There is no task") as refused:
            choose_task({"task": none, **values})
        assert refused.value.expected == " or ".join(TASKS)


def test_the_recipe_is_that_of_the_task_and_names_it(data):
    recipe, choice = read_recipe(None, {"base": "some/model", "data.path": data(CHAT)["path"]})
    assert isinstance(recipe, StepwiseRecipe)
    assert (recipe.task, choice.task) == ("text-generation", "text-generation")
    assert "task: text-generation" in recipe.to_yaml()
    recipe, choice = read_recipe(None, {"base": "some/model", "data.path": data(LABELLED["usual"])["path"]})
    assert isinstance(recipe, OnceRecipe)
    assert choice.reason == ""


def test_the_guess_is_said_on_stderr_and_stdout_stays_one_document(edgetune, language_base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"the cat sees {n}", "completion": " a fish ."} for n in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ("--base", language_base(), "--data", "rows.jsonl", "--out", "bundle", "--plan", "--json")
    ended = edgetune("build", *flags)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["task"] == "text-generation"
    assert ended.err.startswith("Task text-generation, since the base ")
    assert ended.err.count("\n") == 1
    ended = edgetune("build", *flags, "--task", "text-generation")
    assert (ended.code, ended.err) == (0, "")


@pytest.fixture
def sibling(monkeypatch):
    """`sibling(strength)` adds a task of the family `once` whose guess of every recipe has that strength."""

    def add(strength: float) -> None:
        monkeypatch.setitem(tasks.TASKS, "colour", tasks.Task("colour", "A colour for a text.", "once"))
        usual = recognition.recognise
        guess = Guess(strength, "it is about colours")
        monkeypatch.setattr(
            recognition, "recognise", lambda task, evidence: guess if task == "colour" else usual(task, evidence)
        )

    return add


@pytest.mark.parametrize("strength", [0.95, 1.0, 1.05])
def test_two_tasks_of_one_family_that_fit_alike_are_named(base, data, sibling, strength):
    sibling(strength)
    with pytest.raises(
        RecipeError, match=r"It may be text-classification, since .*; colour, since it is about colours"
    ) as e:
        choose_task({"base": base("BertModel"), "data": {**data(LABELLED["usual"]), "label": "label"}})
    assert "--task colour (a colour for a text; takes an encoder and labelled rows)" in (e.value.action or "")


def test_the_better_fit_of_one_family_is_taken_and_announced(base, data, sibling):
    sibling(0.8)
    section = data(LABELLED["usual"])
    assert choose_task({"base": "some/model", "data": section}).task == "colour"
    choice = choose_task({"base": "some/model", "data": {**section, "label": "label"}})
    assert choice.reason == "Task colour, since it is about colours; --task says otherwise."
    assert choose_task({"base": base("BertModel"), "data": section}).task == "text-classification"
    assert choose_task({"task": "colour", "base": "b", "data": section}).task == "colour"


def test_preferences_without_a_base_are_a_language_models(data):
    choice = choose_task({"data": data({"prompt": "Hi", "chosen": "Hello!", "rejected": "Go away."})})
    assert choice.task == "text-generation"
    assert "the rows of rows.jsonl hold preferences" in choice.reason


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("__label__{label} where is my number {n}", "fastText's labels"),
        ("{label}\twhere is my number {n}", "a tab and a word that comes again"),
        ("where is my number {n}\t{label}", "a tab and a word that comes again"),
    ],
)
def test_lines_with_labels_are_asked_about(tmp_path, line, named):
    path = tmp_path / "rows.txt"
    path.write_text("".join(line.format(label=("card", "cash")[n % 2], n=n) + "\n" for n in range(24)), "utf-8")
    with pytest.raises(DataError, match=named) as raised:
        choose_task({"data": {"path": str(path)}})
    assert f"{path.with_suffix('.tsv')} and take that file" in raised.value.action
    assert "--task text-generation" in raised.value.action
    assert choose_task({"task": "text-generation", "data": {"path": str(path)}}).task == "text-generation"


def test_lines_of_texts_with_a_tab_now_and_then_are_texts(tmp_path):
    path = tmp_path / "rows.txt"
    ends = ("\t.\n", "\n", "\n")
    path.write_text("".join(f"a story of number {n}{ends[n % 3]}" for n in range(24)), "utf-8")
    assert choose_task({"data": {"path": str(path)}}).task == "text-generation"
