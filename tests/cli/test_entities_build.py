"""A whole build of entities: what the bundle answers is what transformers' pipeline does with the merged model."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

from edgetune.benchmarks.report.html import render_html
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import open_codec
from edgetune.serve.codecs.tokens import shared_tokens
from edgetune.serve.golden import replay_golden
from edgetune.serve.heads import open_head
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.metrics import ENTITY_F1
from edgetune.tune.tasks import TASKS
from tests.conftest import KEYWORDS, TINY_TOKENS
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # a whole build

FILLERS = "i can not see why my the a was is it please help today again since yesterday where how do you".split()
TYPES = ("card", "login")


def rows() -> list[dict[str, Any]]:
    """480 texts with up to two entities, of one or two words that tell their type."""
    draw, made = random.Random(3), []
    for number in range(480):
        words: list[tuple[str, str]] = [(word, "") for word in draw.choices(FILLERS, k=draw.randint(1, 9))]
        for kind in TYPES:
            if draw.random() < 0.6:
                said = " ".join(draw.choices(KEYWORDS[kind], k=draw.randint(1, 2)))
                words.insert(draw.randint(0, len(words)), (said, kind))
        text, spans = f"w{number}", []
        for word, kind in words:
            if kind:
                spans.append([len(text) + 1, len(text) + 1 + len(word), kind])
            text += f" {word}"
        made.append({"text": text, "label": spans})
    return made


@pytest.fixture(scope="module")
def built(tiny_base, tmp_path_factory) -> Path:
    """The folder of a bundle that was built by the defaults but for schemes, rates and a wide gate."""
    folder = tmp_path_factory.mktemp("entities")
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()), encoding="utf-8")
    values = {
        "base": str(tiny_base("bert")),
        "data": {"path": str(path)},
        "out": str(folder / "out"),
        "tune": {
            **{"epochs": 12, "patience": 12, "batch_size": 16},
            **{"learning_rate": 3e-3, "head_learning_rate": 1e-2, "precision": "fp32"},
        },
        "compress": {"schemes": ["fused"]},
        "gate": {"max_drop": 0.5},
    }
    build_untimed(values)
    return folder / "out"


def test_the_report_says_what_the_bundle_answers(built):
    report, dataset = Report.load(built / "report.json"), Dataset.open(built.with_name("out.work") / "data")
    task = TASKS["token-classification"]
    assert (report.task, report.quality.metric) == (task.name, "entity_f1")
    assert report.training.settings["tag_unit"] == "word"
    objective = task.objective(dataset.labels, "", ())
    predictor = load(built)
    answers = predictor.head.decide(predictor.logits(predictor.encode(dataset.test.texts)))
    value = ENTITY_F1.of(objective.expected(dataset.test.targets), answers)
    assert report.stage(report.chosen).value == pytest.approx(value)
    assert value > report.stage("base").value + 0.1  # 0.7 against 0.4 where this was written
    assert set(report.stage(report.chosen).metrics) == {"type_macro_f1", "wrong_border", "wrong_type"}
    assert [quality.label for quality in report.quality.classes] in (["card", "login"], ["login", "card"])
    assert report.quality.baseline.answer == "no label"
    floor = {entry.stage: entry for entry in report.quality.floor}
    assert (floor.keys(), report.quality.floor_remark) == ({"majority", "linear"}, "")
    assert floor["linear"].described.startswith("words, their ends and shapes, and their neighbours, learnt from")
    assert floor["linear"].value > floor["majority"].value == 0
    assert report.training.handed_on == "layers"
    assert render_html(report)


@pytest.mark.parametrize(("codec", "strategy"), [("words", "first"), ("tokens", "simple")])
def test_answers_are_those_of_transformers_pipeline(built, codec, strategy):
    """By words as the bundle says, since the spans are of words, and token by token, with the same graph."""
    bundle = Bundle.open(built)
    assert bundle.manifest.codec == "words"
    predictor = Predictor(bundle, codec=lambda: open_codec(codec, built, TINY_TOKENS))
    model = AutoModelForTokenClassification.from_pretrained(built.with_name("out.work") / "tune" / "model")
    tokenizer = AutoTokenizer.from_pretrained(built)
    assert tokenizer.model_max_length == TINY_TOKENS
    find = pipeline(
        "token-classification",
        model=model,
        tokenizer=tokenizer,
        aggregation_strategy=strategy,
        stride=shared_tokens(TINY_TOKENS),
    )
    texts = [row["text"] for row in rows()[:20]]
    long = " , ".join(row["text"] for row in rows()[20:60])
    assert len(predictor.encode([long])[0].windows) > 3
    texts += [long, "Café naïve: password!", "  pin  card ", "é"]
    for text, answer in zip(texts, predictor.predict(texts), strict=True):
        expected = [
            {
                "type": e["entity_group"],
                "start": e["start"],
                "end": e["end"],
                "score": pytest.approx(e["score"], abs=1e-4),
            }
            for e in find(text)
        ]
        given = [{"type": e.type, "start": e.start, "end": e.end, "score": e.score} for e in answer.entities]
        assert given == expected
        assert all(text[e.start : e.end] == e.text for e in answer.entities)
    assert sum(len(answer.entities) for answer in predictor.predict(texts)) > 20


def test_every_way_to_ask_gives_the_same(built):
    predictor, texts = load(built), [row["text"] for row in rows()[:40]]
    texts += [" ".join(texts), "card"]
    answers = predictor.predict(texts)
    assert [predictor.predict_one(text).plain for text in texts[-3:]] == [answer.plain for answer in answers[-3:]]
    assert [answer.plain for answer in asyncio.run(predictor.predict_async(texts))] == [a.plain for a in answers]
    head = open_head(predictor.head.spec)
    decided = head.decide(predictor.logits(predictor.encode(texts)))
    assert [head.plain(decision) for decision in decided] == [answer.plain for answer in answers]
    assert replay_golden(predictor).cases == 8


def test_the_folder_is_one_of_a_token_classifier(built):
    manifest = Bundle.open(built).manifest
    (head,) = manifest.answer_heads
    assert (head.kind, head.labels, manifest.codec) == (
        "entities",
        ["O", "B-card", "I-card", "B-login", "I-login"],
        "words",
    )
    assert manifest.outputs[0].shape == ["batch", "tokens", 5]
    assert not manifest.strip_inputs
    config = json.loads((built / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BertForTokenClassification"]
    assert list(config["id2label"].values()) == head.labels
