"""The search over schemes on a tiny llama: rungs that fail, what is kept for another gate, and which rows judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.lab.language.artefacts import FILE, FP32, Artefacts, place_of
from edgetune.benchmarks.prove.trials import Kept
from edgetune.benchmarks.stepwise import ladder as ladder_module
from edgetune.benchmarks.stepwise.judged_rows import JudgedRows
from edgetune.benchmarks.stepwise.ladder import Climbed, Ladder
from edgetune.benchmarks.stepwise.mixed import MOST_TRIES
from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.compress.gptq.coverage import read_coverage
from edgetune.compress.gptq.schemes import SCHEMES, write_scheme
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.serve.errors import CompressError, WorkError
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.encoded_parts import EncodedParts
from edgetune.tune.training.progress import Silent

ROWS = JudgedRows(
    tuple((1, *(3 + (7 * row + 5 * token) % 290 for token in range(8))) for row in range(8)),
    tuple((-100, -100, *(3 + (7 * row + 5 * token) % 290 for token in range(1, 8))) for row in range(8)),
)
WIDE = GenerationGateRecipe(max_rise=0.5)


@pytest.fixture
def search(tiny_family: Path, tmp_path: Path) -> Callable[..., Ladder]:
    """`search(gate=...)` is a search over the tiny llama whose schemes are kept in one folder."""
    made = msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts)
    graph = DecoderGraph(tiny_family / place_of(FP32) / "model.onnx", made.specs[FP32], nodes=1)
    kept = Kept(tmp_path / "trials", "graph")
    first = Ladder(graph, ROWS, ROWS.ids, WIDE, 32, 1, kept, Silent())
    return lambda **changes: replace(first, **changes)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was made and what was scored, in order."""
    made: list[str] = []
    scores = ladder_module.divergences

    def write(scheme: Any, *given: Any, **named: Any) -> Any:
        made.append(scheme.name)
        return write_scheme(scheme, *given, **named)

    def score(*given: Any, **named: Any) -> Any:
        made.append("scores")
        return scores(*given, **named)

    monkeypatch.setattr(ladder_module, "write_scheme", write)
    monkeypatch.setattr(ladder_module, "divergences", score)
    return made


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_another_gate_judges_what_was_made_and_makes_nothing(search, calls, tmp_path):
    schemes = [SCHEMES["int8"], SCHEMES["fp32"]]
    first = search().climb(schemes)
    assert calls == ["int8", "scores", "fp32", "scores"]
    assert first.order == ("int8", "fp32")
    before = files(tmp_path / "trials")
    again = search(gate=GenerationGateRecipe(max_rise=0.4, min_agreement=1.0)).climb(schemes)
    assert len(calls) == 4
    assert files(tmp_path / "trials") == before
    assert [candidate.rise for candidate in again.candidates] == [candidate.rise for candidate in first.candidates]
    assert again.order == ("fp32",)
    assert "at least 100% is required" in again.candidates[0].reason


def test_other_rows_are_scored_again_and_another_block_or_graph_is_made_again(search, calls):
    schemes = [SCHEMES["int8"]]
    search().climb(schemes)
    fewer = search(rows=JudgedRows(ROWS.ids[:6], ROWS.labels[:6])).climb(schemes)
    assert calls == ["int8", "scores", "scores"]
    assert fewer.order == ("int8",)
    search(block=16).climb(schemes)
    search(calibration=ROWS.ids[:4]).climb(schemes)
    search(kept=replace(search().kept, digest="another graph")).climb(schemes)
    assert calls[3:] == ["int8", "scores"] * 3


def test_a_scheme_that_cannot_be_made_or_judged_is_a_rung_that_failed(search, monkeypatch, tmp_path):
    def write(scheme: Any, graph: Path, target: Path, **named: Any) -> None:
        if scheme.name == "int4_g128":
            raise CompressError("no weight is quantized", expected="a matrix")
        write_scheme(scheme, graph, target, **named)
        if scheme.name == "int8":
            model = onnx.load(target)
            for tensor in model.graph.initializer:
                values = numpy_helper.to_array(tensor)
                if values.dtype == np.float32 and values.ndim:
                    tensor.CopyFrom(numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
            onnx.save(model, target)

    monkeypatch.setattr(ladder_module, "write_scheme", write)
    climbed = search().climb([SCHEMES[name] for name in ("int4_g128", "int8", "fp32")])
    assert climbed.order == ("fp32",)
    assert [candidate.scheme for candidate in climbed.candidates] == ["fp32"]
    assert climbed.failed["int4_g128"] == "no weight is quantized"
    assert climbed.failed["int8"].startswith("the candidate int8 gives logits that are not finite on a text of 9")
    (tmp_path / "stage").mkdir()
    climbed.save(tmp_path / "stage")
    assert Climbed.open(tmp_path / "stage") == climbed


def test_a_mixture_of_bits_lies_between_those_of_one_kind(search, calls, tmp_path):
    schemes = [SCHEMES[name] for name in ("int4", "mixed", "int8")]
    bounds = search(gate=GenerationGateRecipe(max_rise=1e-9)).climb(schemes[::2]).candidates
    limit = max(bounds[0].rise, 1e-6) / 2
    found = search(gate=GenerationGateRecipe(max_rise=limit)).climb(schemes)
    int4, mixed, int8 = found.candidates
    assert int4.size_bytes < mixed.size_bytes <= int8.size_bytes
    assert mixed.scheme == "mixed"
    assert "matrices in 4 and 8 bits" in mixed.made_by
    assert read_coverage(found.graph("mixed")).size_bytes == mixed.size_bytes
    made = calls.count("mixed")
    assert 1 <= made <= MOST_TRIES
    again = search(gate=GenerationGateRecipe(max_rise=limit)).climb(schemes)
    assert again == found
    assert calls.count("mixed") == made
    assert (tmp_path / "trials" / "sensitivities" / "sensitivities.json").is_file()


def test_a_mixture_is_not_measured_for_a_second_choice(search, calls):
    climbed = search().climb([SCHEMES[name] for name in ("int4", "mixed", "int8", "fp32")])
    assert climbed.order == ("int4", "int8")
    assert calls == ["int4", "scores", "int8", "scores"]


def test_what_was_made_and_is_gone_is_told(search, tmp_path):
    climbed = search().climb([SCHEMES["fp32"]])
    (tmp_path / "stage").mkdir()
    climbed.save(tmp_path / "stage")
    climbed.graph("fp32").unlink()
    with pytest.raises(WorkError, match=r"candidates are gone: .*trials/fp32/model.onnx\."):
        Climbed.open(tmp_path / "stage")
    with pytest.raises(WorkError, match="holds no search"):
        Climbed.open(tmp_path / "none")


def sorted_by_topic(rows: int) -> tuple[dict[str, list[int]], ...]:
    """The first half of the rows is of topic 10, the second of topic 20; their second token numbers them."""
    return tuple(
        {"input_ids": [10 if row < rows // 2 else 20, row], "labels": [-100, row], "position_ids": [0, 1]}
        for row in range(rows)
    )


def test_of_rows_sorted_by_topic_all_topics_judge():
    rows = sorted_by_topic(1000)
    judged, again, other = (JudgedRows.of(rows, 100, seed) for seed in (0, 0, 1))
    assert judged == again != other
    # 50 of each are expected; the drawn share scatters by 4.7, so that 25 is five deviations off.
    assert 25 < sum(ids[0] == 10 for ids in judged.ids) < 75
    numbers = [ids[1] for ids in judged.ids]
    assert numbers == sorted(set(numbers))
    assert judged.labels == tuple((-100, number) for number in numbers)
    assert JudgedRows.of(rows, 1000, 0).ids == tuple(tuple(row["input_ids"]) for row in rows)
    assert set(judged.drawn(10, 0).ids) < set(judged.ids)


def test_base_and_tuned_model_are_measured_on_the_rows_that_judge():
    rows: Any = sorted_by_topic(1000)
    parts = EncodedParts(rows, rows[:500], rows, None, (2,), None, packed=False, findings=())  # type: ignore[arg-type]
    encoded = EncodedConversations(None, None, parts)  # type: ignore[arg-type]
    measured = encoded.language_rows(100, 3).measured
    assert JudgedRows.of(encoded.judging, 100, 3).ids == tuple(tuple(row["input_ids"]) for row in measured)
    assert {row["input_ids"][0] for row in measured} == {10, 20}


def test_own_texts_calibrate_and_show_what_is_lost_outside(search, calls, tmp_path, monkeypatch):
    seen: dict[str, int] = {}
    written = ladder_module.write_scheme

    def write(scheme: Any, *given: Any, calibration: Any, **named: Any) -> Any:
        seen[scheme.name] = len(calibration)
        return written(scheme, *given, calibration=calibration, **named)

    monkeypatch.setattr(ladder_module, "write_scheme", write)
    climbed = search(own_texts=6, seed=3).climb([SCHEMES["int8"], SCHEMES["fp32"]])
    assert seen == {"int8": len(ROWS.ids) + 6, "fp32": 0}
    assert calls == ["int8", "scores", "scores", "fp32", "scores"]
    int8, fp32 = climbed.candidates
    assert int8.own_kl is not None
    assert 0 < int8.own_kl < 0.1
    assert (fp32.own_kl, fp32.own_rise) == (None, None)
    texts = msgspec.json.decode((tmp_path / "trials" / "own-texts" / "texts.json").read_bytes())
    assert [len(texts[name]) for name in ("calibration", "held_out")] == [6, 2]
    assert len({tuple(text[:2]) for name in texts for text in texts[name]}) > 1
    again = search(own_texts=6, seed=3).climb([SCHEMES["int8"], SCHEMES["fp32"]])
    assert again.candidates == climbed.candidates
    assert len(calls) == 5
