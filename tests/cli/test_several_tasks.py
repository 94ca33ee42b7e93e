"""Several tasks on one encoder, from the recipe to the answers: each answers as where it is asked alone."""

from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.benchmarks.prove.gate import judge_answers
from edgetune.compress.calibration import answers, calibration, distance
from edgetune.compress.candidate import weight_dtypes
from edgetune.compress.material import Material
from edgetune.compress.schemes import int8_dynamic, int8_static
from edgetune.recipe import read_recipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged, DataError, InputError, RecipeError
from edgetune.serve.golden import replay_golden
from edgetune.serve.loading import load
from edgetune.serve.stepwise.report import report_of
from edgetune.serve.tasks_report import TasksReport
from edgetune.several.data import TaskDatasets
from edgetune.tune.models.model import open_model
from edgetune.tune.several.shared_trunk import trunk_of
from edgetune.tune.several.tuned import TunedTasks
from edgetune.tune.training.progress import Silent
from tests.cli.here import run_here
from tests.several_tasks import TASKS, recipe_values, write_rows
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # a whole build

TEXTS = ["my card is lost", "i forgot the password " * 40, "", "please help with the login and the card"]


@pytest.fixture(scope="module")
def together(several_bundle):
    return load(several_bundle)


@pytest.fixture(scope="module")
def alone(several_bundle):
    return {task: load(several_bundle, task=task) for task in TASKS}


def test_one_pass_answers_each_task_as_it_answers_alone(together, alone):
    answers = together.predict(TEXTS)
    assert [list(answer.answers) for answer in answers] == [list(TASKS)] * len(TEXTS)
    assert len(together.encode(TEXTS)[1].windows) > 1
    for task, predictor in alone.items():
        for text, given, expected in zip(TEXTS, answers, predictor.predict(TEXTS), strict=True):
            one, other = (json.loads(json.dumps(predictor.head.as_json(each, 3))) for each in (given[task], expected))
            assert _rounded(one) == _rounded(other), (task, text)
    assert [answer.truncated for answer in answers] == [False, True, False, False]


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


def test_the_float_graph_answers_as_the_tuned_models_do(several_bundle):
    """Words are one token each here, or many: what bears a tag in the graph is what bore it in training."""
    work = several_bundle.with_name("desk.work")
    tuned = TunedTasks.open(work / "tune").models
    assert tuned["people"].codec == "words"
    for name, report in TasksReport.load(several_bundle / "report.json").tasks.items():
        assert report.stage("fused").value == pytest.approx(report.stage("tuned").value), name


def test_every_way_to_ask_gives_the_same(together):
    plain = [answer.plain for answer in together.predict(TEXTS)]
    for given in (
        [together.predict_one(text).plain for text in TEXTS],
        [answer.plain for answer in asyncio.run(together.predict_async(TEXTS))],
        [answer.plain for answer in pickle.loads(pickle.dumps(together)).predict(TEXTS)],
        [together.head.plain(one) for one in together.head.decide(together.logits(together.encode(TEXTS)))],
    ):
        assert _rounded(json.loads(json.dumps(given))) == _rounded(json.loads(json.dumps(plain)))


def test_the_manifest_lists_the_heads_and_one_graph_has_their_outputs(several_bundle):
    manifest = Bundle.open(several_bundle).manifest
    assert (manifest.task, manifest.labels, manifest.codec) == ("multi-task", [], "text-and-words")
    assert [(head.name, head.kind, head.output) for head in manifest.heads] == [
        ("intent", "label", "logits.intent"),
        ("words", "number", "logits.words"),
        ("people", "entities", "logits.people"),
    ]
    assert manifest.heads[2].decode == "viterbi"
    assert [(one.name, one.shape) for one in manifest.outputs] == [
        ("logits.intent", ["batch", 4]),
        ("logits.words", ["batch", 1]),
        ("logits.people", ["batch", "tokens", 5]),
    ]
    config = json.loads((several_bundle / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BertModel"]
    assert "id2label" not in config


def test_all_models_have_one_trunk_and_the_graph_runs_it_once(several_bundle):
    import onnx

    tuned = TunedTasks.open(several_bundle.with_name("desk.work") / "tune").models
    weights = [trunk_of(open_model(model.model_folder)).state_dict() for model in tuned.values()]
    shared = set.intersection(*(set(each) for each in weights))
    assert len(shared) > 30
    assert all(bool((weights[0][name] == each[name]).all()) for each in weights for name in shared)
    graph = onnx.load(str(several_bundle.with_name("desk.work") / "trials" / "fused" / "model.onnx")).graph
    assert sum(node.op_type == "Attention" for node in graph.node) == 2  # the layers of the base


@pytest.mark.parametrize("scheme", [int8_dynamic, int8_static])
def test_int8_keeps_all_outputs_of_the_graph(several_bundle, tmp_path, scheme):
    work = several_bundle.with_name("desk.work")
    datasets = TaskDatasets.open(work / "data", list(TASKS))
    model = next(iter(TunedTasks.open(work / "tune").models.values()))
    train = datasets.joined("train")
    material = Material(model, train, train, (), "cpu", "cpu", 0, Silent(), several=True)
    graph, made = work / "trials" / "fused" / "model.onnx", tmp_path / "model.onnx"
    scheme.compress(graph, made, material)
    feeds = calibration(material, graph).held_back
    expected, actual = answers(graph, feeds), answers(made, feeds)
    assert [one.shape[1] for one in expected] == [4, 1, 5]
    assert 0 < distance(expected, actual) < 0.05
    assert weight_dtypes(made).get("INT8", 0) > 0.3


def test_golden_answers_have_a_tolerance_a_task_and_are_replayed_by_it(several_bundle, together):
    golden = together.golden()
    assert set(golden.tolerances) == set(TASKS) == set(golden.cases[0].answers)
    assert replay_golden(together).cases == len(golden.cases)
    case = golden.cases[0]
    answer = case.answers["intent"]
    off = 2 * golden.tolerances["intent"]
    wrong = msgspec.structs.replace(answer, logits=[value + off for value in answer.logits])
    changed = msgspec.structs.replace(
        golden, cases=[msgspec.structs.replace(case, answers={**case.answers, "intent": wrong})]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "golden", lambda: changed)
        with pytest.raises(BundleDamaged, match=r"is off by .* by the task intent"):
            replay_golden(together)


def test_the_report_has_each_task_with_its_own_gate_at_a_corrected_level(several_bundle):
    report = report_of(Bundle.open(several_bundle))
    assert isinstance(report, TasksReport)
    assert list(report.tasks) == list(TASKS)
    assert [one.quality.metric for one in report.tasks.values()] == ["accuracy", "mae", "entity_f1"]
    assert report.gate["correction"] == "Bonferroni over 3 tasks"
    datasets = TaskDatasets.open(several_bundle.with_name("desk.work") / "data", list(TASKS)).parts
    for task, one in report.tasks.items():
        predictor, test = load(several_bundle, task=task), datasets[task].test
        objective = _objective(task, datasets[task], one.quality.metric)
        rows = objective.drawn(test.targets, 40, 0)
        given = predictor.head.decide(
            np.stack([predictor.logits(predictor.encode([test.texts[row]]))[0] for row in rows])
            if task != "people"
            else predictor.logits(predictor.encode([test.texts[row] for row in rows]), batch_size=1)
        )
        value = objective.metric.of(objective.expected(test.targets)[rows], given)
        assert one.stage(one.chosen).value == pytest.approx(value, abs=1e-6)
        assert one.packed.value == pytest.approx(value, abs=1e-6)
    looked = report.proof.looks
    level = 100 * (1 - 0.05 / (3 * looked))
    assert all(f"{level:.4g}% interval" in one.proof.reason for one in report.tasks.values())
    assert report.skipped == {"student": "it makes another model of one task, and here several tasks share one"}
    page = (several_bundle / "report.html").read_text("utf-8")
    assert all(f"<summary>Task {task}</summary>" in page for task in TASKS)
    assert page.count("</body>") == page.count("</html>") == 1


def _objective(task, dataset, metric):
    from edgetune.several.recipe import KINDS
    from edgetune.tune.tasks import TASKS as ALL

    kinds = dict(zip(TASKS, ("label", "number", "entities"), strict=True))
    return ALL[KINDS[kinds[task]]].objective(dataset.labels, metric, dataset.train.targets).in_units()


def test_the_gate_of_a_task_stops_a_candidate_that_the_others_let_pass():
    from edgetune.benchmarks.recipe import GateRecipe
    from edgetune.benchmarks.several.slices import worst
    from edgetune.tune.metrics import ACCURACY

    right, wrong = np.zeros(400, dtype=int), np.r_[np.ones(80, dtype=int), np.zeros(320, dtype=int)]
    kept = judge_answers(ACCURACY, right, right, right, GateRecipe())
    lost = judge_answers(ACCURACY, right, right, wrong, GateRecipe())
    verdict = worst({"first": kept, "second": lost})
    assert (verdict.gate, verdict.accepted, verdict.loss.loss) == ("fail", False, pytest.approx(0.2))
    assert verdict.reason.startswith("first: ")
    assert "second: accuracy drop +20.00 points" in verdict.reason
    assert worst({"first": kept, "second": kept}).accepted == kept.accepted


def test_the_command_line_answers_all_tasks_or_one(several_bundle):
    ended = run_here("predict", several_bundle, "my card is lost", "--json")
    (row,) = json.loads(ended.out)
    assert list(row) == ["text", *TASKS]
    assert set(row["intent"]) == {"label", "score", "scores", "truncated"}
    assert isinstance(row["words"]["value"], float)
    assert isinstance(row["people"], list)
    lines = run_here("predict", several_bundle, "my card is lost").out.splitlines()
    assert list(dict.fromkeys(line.split("\t")[0] for line in lines)) == list(TASKS)
    (single,) = json.loads(run_here("predict", several_bundle, "my card is lost", "--task", "words", "--json").out)
    assert single == {
        "text": "my card is lost",
        "value": pytest.approx(row["words"]["value"], abs=1e-3),
        "truncated": False,
    }
    refused = run_here("predict", several_bundle, "my card is lost", "--task", "mood")
    assert refused.code == 1
    assert "has no task 'mood'" in refused.err
    assert "one of intent, words, people" in refused.err
    shown = run_here("inspect", several_bundle).out
    assert "answer      people: spans of 5 labels" in shown
    assert run_here("verify", several_bundle).code == 0


def test_one_probability_for_all_tasks_is_refused(several_bundle):
    with pytest.raises(InputError, match="answers 3 tasks"):
        load(several_bundle, abstain_below=0.5)
    assert load(several_bundle, abstain_below=0.5, task="intent").head.spec.abstain_below == 0.5


def _tasks(folder: Path, **changed: object) -> dict[str, object]:
    sections = write_rows(folder)
    return {"base": "none", "tasks": {**sections, **changed}}


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        (
            "vectors",
            {"kind": "feature-extraction"},
            "cannot be one of several tasks, since vectors are the encoder's own states",
        ),
        ("photos", {"kind": "image-classification"}, "pictures are read by another encoder than texts"),
        (
            "chat",
            {"kind": "text-generation"},
            "cannot be one of several tasks, since it takes a decoder and texts or chats",
        ),
        ("mood", {"kind": "text-classification"}, "expected label, which text-classification is here"),
        (
            "mood",
            {"kind": "spans"},
            "tasks.mood.kind: there is no kind 'spans'; expected label or labels or number or entities",
        ),
        ("Mood!", {"kind": "label"}, "'Mood!' cannot be names of tasks"),
        ("text", {"kind": "label"}, "'text' cannot be names of tasks"),
        ("mood", {"kind": "label", "metric": "mae"}, "mood: metric is 'mae'; expected for text-classification"),
        ("mood", {"kind": "number", "answer": {"abstain_below": 0.5}}, "of the kind number are never unsure"),
    ],
)
def test_what_cannot_be_one_of_several_tasks_is_refused(tmp_path, name, section, message):
    values = _tasks(tmp_path, **{name: {"data": {"path": str(tmp_path / "intent.csv")}, **section}})
    with pytest.raises(RecipeError) as caught:
        read_recipe(None, values)
    assert message in str(caught.value)


def test_a_recipe_has_tasks_or_data_and_two_tasks_at_least(tmp_path):
    values = _tasks(tmp_path)
    with pytest.raises(RecipeError, match="has data and tasks"):
        read_recipe(None, {**values, "data": {"path": "x.csv"}})
    with pytest.raises(RecipeError, match="has tasks"):
        read_recipe(None, {**values, "task": "text-classification"})
    with pytest.raises(RecipeError, match="expected two or more"):
        read_recipe(None, {**values, "tasks": {"intent": values["tasks"]["intent"]}})
    recipe, _ = read_recipe(None, values)
    assert [part.kind for part in recipe.tasks.values()] == ["label", "number", "entities"]


def test_a_look_at_several_data_sets_writes_a_recipe_that_is_read_alike(tmp_path):
    sections = {name: section for name, section in write_rows(tmp_path).items() if name != "words"}
    pairs = [f"{name}={section['data']['path']}" for name, section in sections.items()]
    ended = run_here("init", *pairs, "--base", "all-MiniLM-L6-v2", "-o", tmp_path / "desk.yaml")
    assert (ended.code, "intent: " in ended.out) == (0, True)
    recipe, choice = read_recipe(tmp_path / "desk.yaml", {})
    assert choice.task == "multi-task"
    assert {name: part.kind for name, part in recipe.tasks.items()} == {"intent": "label", "people": "entities"}
    assert [part.data.path for part in recipe.tasks.values()] == [one["data"]["path"] for one in sections.values()]
    refused = run_here("init", pairs[0], "mood.csv", "-o", tmp_path / "other.yaml")
    assert (refused.code, "each as NAME=DATA" in refused.err) == (2, True)
    assert run_here("init", *pairs, "--label", "x", "-o", tmp_path / "other.yaml").code == 2


def test_a_plan_says_what_all_tasks_would_take(several_bundle, tiny_base):
    recipe = several_bundle / "recipe.yaml"
    (plan,) = [json.loads(run_here("build", recipe, "--plan", "--json").out)]
    assert plan["tasks"] == dict(zip(TASKS, ("label", "number", "entities"), strict=True))
    assert set(plan["seconds"]) >= {"tune", "export", "compress", "bench"}
    assert plan["schemes"] == ["fused", "fp32"]


def test_an_error_names_the_task_whose_data_it_is_of(tmp_path):
    empty = tmp_path / "empty.csv"
    empty.write_text("text,label\n", encoding="utf-8")
    recipe, _ = read_recipe(None, _tasks(tmp_path, mood={"kind": "label", "data": {"path": str(empty)}}))
    with pytest.raises(DataError, match="In the task mood: "):
        TaskDatasets.load(recipe)


@pytest.mark.long
@pytest.mark.parametrize("name", ["distilbert", "roberta", "deberta_v2", "albert", "t5_classifier", "qwen2_classifier"])
def test_other_architectures_share_their_trunk_too(tiny_base, tmp_path, name):
    values = recipe_values(tiny_base(name), tmp_path)
    build_untimed({**values, "tune": {"method": "lora", "epochs": 1, "precision": "fp32"}})
    together = load(tmp_path / "desk")
    for task in TASKS:
        alone = load(tmp_path / "desk", task=task)
        for text in TEXTS:
            one, other = together.predict_one(text)[task].plain, alone.predict_one(text).plain
            assert _rounded(one) == _rounded(other), (task, text)
