"""Which rows of a file that is sorted by topic a language model's build calibrates, judges and shows: of all topics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.pipeline import Build
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.stepwise import stages
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.model import TunedLanguageModel
from edgetune.tune.training.progress import Silent

ROWS = 1000


def build_of(tmp_path: Path, **sections: Any) -> Build[StepwiseRecipe]:
    """A build whose data, model and graph are there."""
    values = {"base": "none", "data": {"path": "rows.jsonl"}, "out": str(tmp_path / "bundle"), **sections}
    spec = GenerationSpec(layers=1, kv_heads=1, head_dim=2, vocabulary=16, context_tokens=12, eos_ids=[2])
    work: Any = SimpleNamespace(trials=tmp_path / "trials", digest=lambda stage: f"of {stage}")
    base: Any = SimpleNamespace(id="none", digest="sha256:0")
    lines: Any = SimpleNamespace(progress=Silent())
    unused: Any = None
    results = {
        "data": sorted_by_topic(),
        "tune": TunedLanguageModel(tmp_path, "none", "sha256:0", "test", unused, unused, 0.0, unused),
        "export": DecoderGraph(tmp_path / "model.onnx", spec, 1),
    }
    return Build(StepwiseRecipe.model_validate(values), base, work, lines, results=results)


def sorted_by_topic() -> EncodedConversations:
    """The first half of every part is of topic 10 or "a", the other half of 20 or "b"."""
    rows = [{"input_ids": [10 if row < ROWS // 2 else 20, row], "labels": [-100, row]} for row in range(ROWS)]
    chats = [
        Chat((Turn("user", f"{'a' if row < ROWS // 2 else 'b'} {row}"), Turn("assistant", "yes")))
        for row in range(ROWS)
    ]
    encoder = SimpleNamespace(request=lambda chat: chat.turns[0].content)
    parts: Any = SimpleNamespace(
        train=rows, validation=rows, test=rows, template=None, stop_ids=(2,), encoder=encoder, asked={}
    )
    conversations: Any = SimpleNamespace(
        train=chats, validation=chats, test=chats, kind="completion", digest="sha256:1", prompt_columns=()
    )
    return EncodedConversations(conversations, None, parts)


def shares(topics: list[Any]) -> float:
    """The share of the first topic."""
    return topics.count(topics[0]) / len(topics)


def test_calibration_and_gate_see_both_topics(tmp_path):
    build = build_of(tmp_path, gate={"rows": 100}, compress={"calibration_rows": 100})
    ladder = stages._ladder(build)
    assert len(ladder.calibration) == len(ladder.rows) == 100
    # Half of each is expected; the share of 100 drawn scatters by 5%.
    assert 0.25 < shares([ids[0] for ids in ladder.calibration]) < 0.75
    assert 0.25 < shares([ids[0] for ids in ladder.rows.ids]) < 0.75
    assert stages._ladder(build) == ladder
    assert stages._ladder(build_of(tmp_path, seed=1, gate={"rows": 100})).rows != ladder.rows


def test_the_search_is_kept_for_what_was_exported(tmp_path):
    kept = stages._ladder(build_of(tmp_path)).kept
    assert (kept.folder, kept.digest) == (tmp_path / "trials", "of export")


def test_tuning_measures_and_export_proves_both_topics(tmp_path, monkeypatch):
    build, given = build_of(tmp_path, gate={"rows": 100}), {}
    monkeypatch.setattr(stages, "tune_language_model", lambda rows, *_, **named: given.update(rows=rows.measured))
    monkeypatch.setattr(stages, "check_base", lambda recipe, base: given.update(checked=base))
    monkeypatch.setattr(stages, "export_generation", lambda model, texts, *_, **named: given.update(named, texts=texts))
    stages.TuneStage().make(build, tmp_path)
    stages.ExportStage().make(build, tmp_path)
    assert given["checked"] is build.base
    assert len(given["texts"]) == len(given["rows"]) == 100
    assert given["requests"] == given["texts"], "the requests of the very rows"
    assert 0.25 < shares([text[0] for text in given["texts"]]) < 0.75
    assert 0.25 < shares([row["input_ids"][0] for row in given["rows"]]) < 0.75


def test_golden_prompts_are_drawn_from_the_whole_part(tmp_path):
    packing = stages._packing(build_of(tmp_path))
    assert len(packing.golden_prompts) == 4
    assert max(int(prompt.split()[1]) for prompt in packing.golden_prompts) > ROWS // 4
