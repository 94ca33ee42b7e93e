"""Which rows of a file that is sorted by topic a language model's build calibrates, judges and shows: of all topics."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgetune.benchmarks.prove.trials import Kept
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tasks import text_generation
from edgetune.tasks.generation_recipe import GenerationRecipe
from edgetune.tasks.text_generation import Stages
from edgetune.tune.stepwise.chats import Chat, Turn
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.training.progress import Silent

ROWS = 1000


def stages(tmp_path: Path, **sections: Any) -> Stages:
    values = {"base": "none", "data": {"path": "rows.jsonl"}, "out": str(tmp_path / "bundle"), **sections}
    recipe = GenerationRecipe.model_validate(values)
    work: Any = SimpleNamespace(
        folder=tmp_path, chain="x", stage=lambda name, inputs, make, reopen, found: make(tmp_path)
    )
    return Stages(recipe, SimpleNamespace(id="none", digest="sha256:0"), work, SimpleNamespace(progress=Silent()))  # type: ignore[arg-type]


def sorted_by_topic() -> EncodedConversations:
    """The first half of every part is of topic 10 or "a", the other half of 20 or "b"."""
    rows = [{"input_ids": [10 if row < ROWS // 2 else 20, row], "labels": [-100, row]} for row in range(ROWS)]
    chats = [
        Chat((Turn("user", f"{'a' if row < ROWS // 2 else 'b'} {row}"), Turn("assistant", "yes")))
        for row in range(ROWS)
    ]
    parts: Any = SimpleNamespace(train=rows, validation=rows, test=rows, template=None, stop_ids=(2,))
    conversations: Any = SimpleNamespace(
        train=chats, validation=chats, test=chats, kind="completion", digest="sha256:1"
    )
    return EncodedConversations(conversations, None, parts)


def shares(topics: list[Any]) -> float:
    """The share of the first topic."""
    return topics.count(topics[0]) / len(topics)


def test_calibration_and_gate_see_both_topics(tmp_path):
    build = stages(tmp_path, gate={"rows": 100}, compress={"calibration_rows": 100})
    graph: Any = SimpleNamespace()
    ladder = build._ladder(sorted_by_topic(), graph, Kept(tmp_path, "x"))
    assert len(ladder.calibration) == len(ladder.rows) == 100
    # Half of each is expected; the share of 100 drawn scatters by 5%.
    assert 0.25 < shares([ids[0] for ids in ladder.calibration]) < 0.75
    assert 0.25 < shares([ids[0] for ids in ladder.rows.ids]) < 0.75
    assert build._ladder(sorted_by_topic(), graph, Kept(tmp_path, "x")) == ladder
    assert stages(tmp_path, seed=1)._ladder(sorted_by_topic(), graph, Kept(tmp_path, "x")).rows != ladder.rows


def test_tuning_measures_and_export_proves_both_topics(tmp_path, monkeypatch):
    build, seen = stages(tmp_path, gate={"rows": 100}), {}
    monkeypatch.setattr(
        text_generation, "export_generation", lambda folder, texts, *given, **named: seen.update(texts=texts)
    )
    build.export(sorted_by_topic(), SimpleNamespace(model_folder=tmp_path))
    assert len(seen["texts"]) == 100
    assert 0.25 < shares([text[0] for text in seen["texts"]]) < 0.75
    measured = sorted_by_topic().language_rows(100, 0).measured
    assert 0.25 < shares([row["input_ids"][0] for row in measured]) < 0.75


def test_golden_prompts_are_drawn_from_the_whole_part(tmp_path):
    spec = GenerationSpec(layers=1, kv_heads=1, head_dim=2, vocabulary=16, context_tokens=12, eos_ids=[2])
    graph: Any = SimpleNamespace(spec=spec)
    packing = stages(tmp_path)._packing(sorted_by_topic(), SimpleNamespace(model_folder=tmp_path), graph)
    assert len(packing.golden_prompts) == 4
    assert max(int(prompt.split()[1]) for prompt in packing.golden_prompts) > ROWS // 4
