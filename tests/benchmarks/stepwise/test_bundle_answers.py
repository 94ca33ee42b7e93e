"""What a bundle answers, held against the model that it was made of: the same texts, the same scores, a few shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.lab.language.artefacts import FILE, FP32, INT4, Artefacts, place_of
from edgetune.benchmarks.stepwise import bundle_answers
from edgetune.benchmarks.stepwise.bundle_answers import SAMPLES, Interview, answer_held_out
from edgetune.export.stepwise.pack import LanguagePacking, draft_language_bundle
from edgetune.serve.bundle import BaseIdentity
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.stepwise.answers import find_questions, generate_answers, score_model
from edgetune.tune.stepwise.model import open_language_model
from edgetune.tune.training.progress import Silent

METRICS = ("chrf", "rouge_l", "exact_match")
ROWS = [
    {
        "input_ids": [1, *(3 + (7 * row + 5 * place) % 290 for place in range(4 + row % 9)), 50, 51, 52 + row, 2],
        "labels": [-100] * (5 + row % 9) + [50, 51, 52 + row, 2],
    }
    for row in range(20)
]


@pytest.fixture(scope="module")
def drafts(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`drafts(FP32)` is the folder of a bundle with that graph."""
    made = msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts)
    folder = tmp_path_factory.mktemp("drafts")
    packing = LanguagePacking(
        name="tiny", task="text-generation", model_folder=tiny_family / "model", base=BaseIdentity("tiny", "sha256:0"),
        data_digest="sha256:1", spec=made.specs[FP32], golden_prompts=("w4 w5 w6",),
    )  # fmt: skip
    for name, scheme in ((FP32, "fp32"), (INT4, "int4")):
        graph = tiny_family / place_of(name) / "model.onnx"
        draft_language_bundle(graph, scheme, {"FLOAT": 1.0}, packing, folder / place_of(name))
    return lambda name: folder / place_of(name)


@pytest.fixture(scope="module")
def interview(tiny_family: Path) -> Interview:
    """Base and tuned model are one and the same."""
    from transformers import AutoTokenizer

    folder = tiny_family / "model"
    return Interview(
        rows=ROWS, metrics=METRICS, scored_rows=12, seed=1, tokenizer=AutoTokenizer.from_pretrained(folder),
        models={name: lambda: open_language_model(folder) for name in ("base", "tuned")},
    )  # fmt: skip


class Said(Silent):
    """Keeps the findings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_bundle_in_fp32_answers_and_scores_as_its_model_does(interview, drafts):
    told = Said()
    found = answer_held_out(interview, drafts(FP32), 1, told)
    asked = frozen_indices(len(ROWS), 12, 1)
    questions = find_questions([ROWS[row] for row in asked])
    model, tokenizer = open_language_model_of(interview), interview.tokenizer
    scores = score_model(model, tokenizer, questions, METRICS)
    assert found.metrics == {one.metric: one.value for one in scores}
    assert (found.answers, found.answer_tokens) == (12, 4 + 8)
    assert found.metrics["chrf"] > 0  # words of the same letters
    assert told.lines == [f"{one.metric}: bundle {one.value:.4f} on 12 answers" for one in scores]
    assert len(found.samples) == SAMPLES
    assert len({one.prompt for one in found.samples}) == SAMPLES
    answers = generate_answers(model, tokenizer, questions)
    for one in found.samples:
        place = next(
            place for place, question in enumerate(questions) if tokenizer.decode(question.prompt[1:]) == one.prompt
        )
        assert one.reference == f"w50 w51 w{52 + asked[place]}"
        assert one.base == one.tuned == one.bundle == answers[place]
    assert found.remark == "The sample answers are greedy and end after 12 tokens at the latest."


def open_language_model_of(interview: Interview) -> Any:
    return interview.models["tuned"]()


def test_what_int4_does_to_answers_shows_in_its_own(interview, drafts):
    full, small = (answer_held_out(interview, drafts(name), 1, Silent()) for name in (FP32, INT4))
    assert set(small.metrics) == set(METRICS)
    assert [(one.prompt, one.tuned) for one in small.samples] == [(one.prompt, one.tuned) for one in full.samples]
    assert any(one.bundle != one.tuned for one in small.samples)


def test_without_metrics_samples_alone_are_shown_and_why_is_said(interview, drafts):
    found = answer_held_out(replace(interview, metrics=(), scored_rows=0), drafts(FP32), 1, Silent())
    assert (found.metrics, found.answers, found.answer_tokens) == ({}, 0, 0)
    assert len(found.samples) == SAMPLES
    assert all(one.bundle == one.tuned and one.bundle for one in found.samples)
    assert found.samples[-1].reference == "w50 w51 w71"  # from the first row to the last
    assert found.remark.startswith("Generated answers were not scored, since tune.metrics names no metric. ")


def test_plain_texts_ask_nothing_and_open_nothing(interview, tmp_path):
    texts = [{"input_ids": [1, 4, 5, 2], "labels": [1, 4, 5, 2]}]
    found = answer_held_out(replace(interview, rows=texts, metrics=()), tmp_path / "no bundle", 1, Silent())
    assert (found.metrics, found.samples) == ({}, ())
    assert found.remark == "No answers were generated: the rows are plain texts, which ask nothing."


def test_rows_that_ask_the_same_are_shown_once(interview, drafts):
    found = answer_held_out(replace(interview, rows=[ROWS[0]] * 5, metrics=()), drafts(FP32), 1, Silent())
    assert len(found.samples) == 1
    two = answer_held_out(replace(interview, rows=[*ROWS[:2]] * 5, scored_rows=10), drafts(FP32), 1, Silent())
    assert [one.reference for one in two.samples] == ["w50 w51 w52", "w50 w51 w53"]
    assert two.answers == 10


def test_long_texts_are_cut_where_they_say_least(interview, drafts, monkeypatch):
    monkeypatch.setattr(bundle_answers, "SAMPLE_CHARACTERS", 10)
    monkeypatch.setattr(bundle_answers, "SAMPLE_TOKENS", 5)
    found = answer_held_out(replace(interview, rows=ROWS[8:9]), drafts(FP32), 1, Silent())
    [one] = found.samples
    whole = interview.tokenizer.decode(ROWS[8]["input_ids"][1:13])
    assert len(one.prompt) <= 10
    assert one.prompt.startswith("…")
    assert whole.endswith(one.prompt[1:])
    assert one.reference == "w50 w51 w…"
    assert len(one.bundle) <= 10
    assert one.bundle == one.tuned  # both end after five tokens
    assert found.remark == "The sample answers are greedy and end after 5 tokens at the latest."
    assert found.answer_tokens == 12  # the scores are of whole answers
