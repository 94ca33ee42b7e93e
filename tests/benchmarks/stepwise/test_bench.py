"""The bench stage on a tiny llama and graphs made of it: what stands in the report, also where nothing may be packed.

The race is not run: its figures are given, since other tests run it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.lab.language.artefacts import FILE, FP32, Artefacts, place_of
from edgetune.benchmarks.prove.trials import Kept
from edgetune.benchmarks.stepwise import bench
from edgetune.benchmarks.stepwise.bench import LanguageBenched, LanguageContest, bench_language_model
from edgetune.benchmarks.stepwise.bundle_answers import SAMPLES
from edgetune.benchmarks.stepwise.figures import RaceFigures, SideFigures
from edgetune.benchmarks.stepwise.html import render_language_html
from edgetune.benchmarks.stepwise.judged_rows import JudgedRows
from edgetune.benchmarks.stepwise.ladder import Ladder
from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.compress.gptq.schemes import SCHEMES
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.pack import LanguagePacking
from edgetune.serve.bundle import BaseIdentity
from edgetune.serve.errors import GateError, RecipeError
from edgetune.serve.stepwise.report import LanguageReport, LanguageTraining
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.answers import questions_of, score_model
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.encoded_parts import EncodedParts
from edgetune.tune.stepwise.model import AnswerScore, LanguageQuality, TunedLanguageModel, open_language_model
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.training.progress import Silent

METRICS = ("chrf", "exact_match")
RACE = RaceFigures(
    sides={
        name: SideFigures(side=name, first_ms={8: [ms]}, step_ms={1: [ms, ms]}, cold_start_ms=[ms], size_bytes=9)
        for name, ms in (("base", 8.0), ("bundle", 2.0))
    },
    prompt_tokens=[8], batches=[1], decode_prompt_tokens=16, new_tokens=8, rounds=2, threads=1,
)  # fmt: skip


def rows(count: int, *, text: bool = False) -> tuple[dict[str, list[int]], ...]:
    """Numbered words: prompts of 4 to 8 and answers of three; plain texts answer nothing, so all of them is learnt."""
    found = []
    for row in range(count):
        prompt = [1, *(3 + (7 * row + 5 * place) % 290 for place in range(4 + row % 5))]
        answer = [50, 51, 52 + row, 2]
        found.append({"input_ids": prompt + answer, "labels": [*(prompt if text else [-100] * len(prompt)), *answer]})
    return tuple(found)


def encoded(judging: tuple[dict[str, list[int]], ...], tokenizer: Any) -> EncodedConversations:
    conversations = Conversations((), (), (), "completion", "prompt-completion", None, "", "sha256:1", "rows.jsonl", ())
    parts: Any = EncodedParts(judging, judging, judging, None, (2,), None, packed=False, findings=())  # type: ignore[arg-type]
    return EncodedConversations(conversations, tokenizer, parts)


def tuned_model(family: Path, folder: Path, judging: tuple[dict[str, list[int]], ...]) -> TunedLanguageModel:
    """The tiny llama as if it had been tuned, measured on the rows."""
    shutil.copytree(family / "model", folder / "model")
    found = measure_perplexity(open_language_model(folder / "model"), judging)
    told = TunedLanguageModel(
        folder=folder, base_id="tiny", base_digest="sha256:0", measured_on="test", base=LanguageQuality.of(found),
        tuned=LanguageQuality.of(found), merge_max_abs_diff=0.0,
        training=LanguageTraining(method="full", best_epoch=1, epochs=1, remark="", curve=[], settings={}),
    )  # fmt: skip
    found.save(folder / "base_perplexity.npz")
    found.save(folder / "tuned_perplexity.npz")
    told.save(folder)
    return told


@pytest.fixture(scope="module")
def contest(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> LanguageContest:
    """Eight judging rows and the schemes int8 and fp32, of which int8 was taken; no metrics."""
    from transformers import AutoTokenizer

    folder, judging = tmp_path_factory.mktemp("contest"), rows(8)
    made = msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts)
    graph = DecoderGraph(tiny_family / place_of(FP32) / "model.onnx", made.specs[FP32], nodes=1)
    judged = JudgedRows(
        tuple(tuple(row["input_ids"]) for row in judging), tuple(tuple(row["labels"]) for row in judging)
    )
    gate = GenerationGateRecipe(max_rise=0.5)
    kept = Kept(folder / "trials", "graph")
    ladder = Ladder(graph, judged, judged.ids, gate, 32, 1, kept, Silent())
    return LanguageContest(
        climbed=ladder.climb([SCHEMES["int8"], SCHEMES["fp32"]]),
        graph=graph,
        tuned=tuned_model(tiny_family, folder / "tune", judging),
        base=Base("tiny", tiny_family / "model", "sha256:0"),
        encoded=encoded(judging, AutoTokenizer.from_pretrained(tiny_family / "model")),
        packing=LanguagePacking(
            name="tiny", task="text-generation", model_folder=tiny_family / "model",
            base=BaseIdentity("tiny", "sha256:0"),
            data_digest="sha256:1", spec=made.specs[FP32], golden_prompts=("w4 w5 w6",),
        ),
        gate=gate,
        budget=GenerationBudgetRecipe(),
        benchmark=GenerationBenchmarkRecipe(threads=1),
        seed=0,
        command="edgetune build",
        schemes=["int8", "fp32"],
    )  # fmt: skip


def benched(contest: LanguageContest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LanguageReport:
    """What the stage leaves, its race taken as run."""
    monkeypatch.setattr(bench, "race", lambda *_: RACE)
    (folder / "bench").mkdir()
    bench_language_model(contest, folder / "bench", folder / "report.json", Silent())
    found = LanguageBenched.open(folder / "bench")
    assert LanguageReport.load(folder / "report.json") == found.report
    assert found.draft.manifest.scheme == found.report.chosen
    return found.report


def test_the_bundle_s_scores_stand_beside_those_of_base_and_tuned(contest, tmp_path, monkeypatch):
    model, tokenizer = open_language_model(contest.tuned.model_folder), contest.encoded.tokenizer
    scores = score_model(model, tokenizer, questions_of(contest.encoded.parts.test[:5]), METRICS)
    answers = tuple(AnswerScore(metric=one.metric, rows=5, base=0.25, tuned=one.value) for one in scores)
    asked = replace(contest, tuned=replace(contest.tuned, answers=answers))
    report = benched(asked, tmp_path, monkeypatch)
    stages = {one.stage: one for one in report.quality.stages}
    assert list(stages) == ["base", "tuned", "onnx", "int8"]
    assert stages["base"].metrics == dict.fromkeys(METRICS, 0.25)
    assert stages["tuned"].metrics == {one.metric: one.value for one in scores}
    assert stages["onnx"].metrics == {}
    assert set(stages["int8"].metrics) == set(METRICS)
    # Rounding to eight bits changes few of the answers.
    assert stages["int8"].metrics["chrf"] == pytest.approx(stages["tuned"].metrics["chrf"], abs=0.1)
    assert (report.quality.answers, report.quality.answer_tokens) == (5, 4 + 8)
    assert len(report.samples) == SAMPLES
    assert any("greedy" in note for note in report.notes)
    page = render_language_html(report)
    assert "Scores of 5 answers" in page
    assert "<dt>bundle</dt>" in page


def test_the_graph_is_held_against_the_tuned_model(contest, tmp_path, monkeypatch):
    report = benched(contest, tmp_path, monkeypatch)
    base, tuned, graph, packed = report.quality.stages
    assert (base.kl, base.agreement, tuned.rise) == (None, None, 0.0)
    assert graph.kl is not None
    assert 0 <= graph.kl < 1e-6
    assert graph.agreement == 1.0
    assert graph.value == pytest.approx(tuned.value, rel=1e-4)
    assert graph.rise == pytest.approx(0.0, abs=1e-4)
    assert graph.token_accuracy == tuned.token_accuracy
    assert packed.token_accuracy is not None
    assert graph.ci95 == pytest.approx(tuned.ci95, rel=1e-3)
    assert packed.kl is not None
    assert packed.kl > graph.kl
    assert packed.ci95 is not None
    assert packed.ci95[0] < packed.value < packed.ci95[1]
    assert (report.quality.n, report.quality.tokens) == (8, 32)
    assert report.why == (
        "int8 won: schemes are tried in the order of the recipe, and the gate let the first one through."
    )
    assert report.skipped == {
        "int4_g128": "the recipe's compress.schemes does not name it",
        "int4": "the recipe's compress.schemes does not name it",
        "int4_head8": "the recipe's compress.schemes does not name it",
        "mixed": "the recipe's compress.schemes does not name it",
    }
    assert any(note.startswith("Generated answers were not scored") for note in report.notes)
    assert (report.quality.answers, base.metrics, packed.metrics) == (0, {}, {})
    assert all(one.bundle is not None and one.tuned == one.base for one in report.samples)


def test_a_busy_machine_leaves_quality_and_gives_no_speed(contest, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "race", lambda *_: msgspec.structs.replace(RACE, timing_remark="It was busy."))
    budget = GenerationBudgetRecipe(size_mb=1e6, tokens_per_second=0.001, first_token_ms=1e6)
    with pytest.raises(GateError) as refused:
        bench_language_model(replace(contest, budget=budget), tmp_path, tmp_path / "report.json", Silent())
    assert str(refused.value).startswith(
        "The int8 candidate is over budget: first_token_ms was not measured on a quiet machine, the budget "
        "1e+06; tokens_per_second was not measured on a quiet machine, the budget 0.001."
    )
    report = LanguageReport.load(tmp_path / "report.json")
    assert (report.timing_valid, report.timing_remark) == (False, "It was busy.")
    assert report.verdict.endswith("; the machine was too busy to judge its speed.")
    assert [(row.speedup, row.ci95) for row in report.decoding] == [(None, None)]
    assert report.proof is not None
    assert report.proof.gate == "pass"


def test_plain_texts_have_no_samples_and_say_why(contest, tmp_path, monkeypatch):
    texts = replace(contest, encoded=encoded(rows(8, text=True), contest.encoded.tokenizer))
    report = benched(texts, tmp_path, monkeypatch)
    assert report.samples == []
    assert "No answers were generated: the rows are plain texts, which ask nothing." in report.notes


def test_where_nothing_may_be_packed_the_report_is_kept(contest, tmp_path, monkeypatch):
    nothing = replace(contest, climbed=replace(contest.climbed, order=()))
    with pytest.raises(GateError, match="no scheme passed the gate, so nothing was packed"):
        benched(nothing, tmp_path, monkeypatch)
    report = LanguageReport.load(tmp_path / "report.json")
    assert [one.stage for one in report.quality.stages] == ["base", "tuned"]
    assert (report.chosen, report.why, report.samples, report.decoding) == ("", "", [], [])
    assert "Sample answers" not in render_language_html(report)


def test_all_stages_are_of_the_rows_that_judged(contest, tmp_path, monkeypatch):
    """Without a test part tuning measures the whole validation part, of which the gate may take fewer rows."""
    few = replace(contest, gate=GenerationGateRecipe(max_rise=0.5, rows=3))
    report = benched(few, tmp_path, monkeypatch)
    assert (report.quality.n, report.quality.tokens) == (3, 12)
    sums, judging = contest.tuned.tuned_perplexity, frozen_indices(8, 3, contest.seed)
    assert report.quality.stages[1].value == pytest.approx(np.exp(sums.losses[judging].sum() / 12))
    assert report.quality.stages[2].value == pytest.approx(report.quality.stages[1].value, rel=1e-4)


def test_a_candidate_that_fails_on_the_test_part_gives_way_to_the_next(contest, tmp_path, monkeypatch):
    diverges = bench.diverges

    def scores(reference: Any, candidate: Path, *given: Any) -> Any:
        if candidate.parent.name == "int8":
            raise GateError("the candidate candidate gives logits that are not finite on a text of 9 tokens")
        return diverges(reference, candidate, *given)

    monkeypatch.setattr(bench, "diverges", scores)
    report = benched(contest, tmp_path, monkeypatch)
    assert report.chosen == "fp32"
    assert report.proof is not None
    assert report.proof.looks == 2
    assert any(
        note.startswith("int8 was preferred and then failed on the test part: the candidate") for note in report.notes
    )


def test_memory_that_was_not_measured_meets_no_budget(contest, tmp_path, monkeypatch):
    strict = replace(contest, budget=GenerationBudgetRecipe(rss_mb=10_000))
    with pytest.raises(GateError, match="int8 candidate is over budget: rss_mb was not measured, the budget 1e"):
        benched(strict, tmp_path, monkeypatch)


def test_the_report_names_the_terms_that_held(contest, tmp_path, monkeypatch):
    assert benched(contest, tmp_path, monkeypatch).gate == {
        "metric": "perplexity", "max_rise": 0.5, "min_agreement": 0.0, "confidence": 0.95, "when_inconclusive": "auto",
        "rows": 500,
    }  # fmt: skip


def test_a_metric_that_fails_ends_the_stage_before_the_race(contest, tmp_path, monkeypatch):
    scoring = tmp_path / "scoring.py"
    scoring.write_text("def score(answer, reference):\n    return 'good'\n", encoding="utf-8")
    score = AnswerScore(metric=f"{scoring}:score", rows=4, base=0.0, tuned=0.0)
    monkeypatch.setattr(bench, "race", lambda *_: pytest.fail("the race was run"))
    with pytest.raises(RecipeError, match="gave 'good' for an answer"):
        bench_language_model(
            replace(contest, tuned=replace(contest.tuned, answers=(score,))), tmp_path, tmp_path / "report.json",
            Silent(),
        )  # fmt: skip
