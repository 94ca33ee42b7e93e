"""Two contestants in processes of their own: all figures come back, and one that dies says why."""

import json
import shutil
from pathlib import Path

import pytest

from edgetune.benchmarks.recipe import BenchmarkRecipe
from edgetune.benchmarks.timing import blocks as timing
from edgetune.benchmarks.timing.blocks import TimedBlocks
from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.benchmarks.timing.race import Race, _compare, race
from edgetune.benchmarks.timing.samples import flat, summarize
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.report import Training
from edgetune.tune.models.model import TunedModel
from edgetune.tune.training.progress import Silent

BUNDLE = Path(__file__).parents[2] / "golden" / "bundle-v1"
TEXTS = ["where is my card", "send it to another account please", "what"]


@pytest.fixture(scope="module")
def sides(tiny_base, tmp_path_factory):
    """A base with a classifier, as tuning leaves it, beside the golden bundle."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tuned = tmp_path_factory.mktemp("tuned")
    folder = tuned / "base"
    AutoModelForSequenceClassification.from_pretrained(tiny_base("bert"), num_labels=4).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base("bert")).save_pretrained(folder)
    training = Training(
        method="", handed_on="", pooling="", probe_value=0.0, best_value=0.0, best_epoch=None, epochs=0.0, remark=""
    )
    head = HeadSpec(kind="label", labels=list("abcd"))
    TunedModel(tuned, "text-classification", head, "tiny", "", 32, 0.0, training).save(tuned)
    shutil.copytree(folder, tuned / "model")
    return Race(Side("base", folder, 1, tuned=tuned), Side("bundle", BUNDLE, 1), max_tokens=32)


class Told(Silent):
    """Remembers how far each part of the race came."""

    def __init__(self):
        self.steps = {}

    def advance(self, done, total, note=""):
        self.steps.setdefault(note.split(",")[0], []).append((done, total))


@pytest.mark.slow
def test_a_race_gives_all_figures(sides, monkeypatch):
    monkeypatch.setattr(timing, "judge_timing", lambda conditions: TimingVerdict(True))  # the machine may be busy
    told = Told()
    found = race(sides, TEXTS, BenchmarkRecipe(samples=50, cold_starts=1, grid=True), told)
    latency = found.latency_ms
    # 50 samples are three blocks of 20: enough for a p90, not for a p95.
    for summary in (latency.base, latency.bundle):
        assert summary.n == len(summary.samples) == 60
        assert 0 < summary.p50 <= summary.p90
        assert summary.p99 is None
    assert latency.speedup.p50 == pytest.approx(latency.base.p50 / latency.bundle.p50)
    assert latency.speedup.ci95[0] <= latency.speedup.p50 <= latency.speedup.ci95[1]
    assert found.throughput_per_second.base > 0
    assert found.throughput_per_second.bundle > 0
    # No torch in the bundle's process.
    assert 0 < found.memory.bundle.rss_peak_bytes < found.memory.base.rss_peak_bytes
    assert found.memory.bundle.gpu_peak_bytes is None
    assert 0 < found.cold_start_ms.bundle < found.cold_start_ms.base
    assert sum(found.placement.values()) > 0
    assert set(found.placement) == {"CPUExecutionProvider"}
    timed = [cell for cell in found.grid_ms if cell.tokens <= 32]
    assert [(cell.batch, cell.tokens) for cell in timed] == [(1, 16), (8, 16), (32, 16)]
    assert all(cell.base_ms > 0 and cell.bundle_ms > 0 for cell in timed)
    # Longer than the model takes: not measured, and no guess either.
    assert all(cell.base_ms is None and cell.bundle_ms is None for cell in found.grid_ms if cell.tokens > 32)
    assert told.steps["grid"][-1] == (9, 9)
    assert told.steps["throughput"][-1] == (3, 3)


def test_both_sides_answer_what_they_are_asked(sides):
    from edgetune.serve import load

    with ContestantProcess(sides.bundle, TEXTS[0]) as process:
        assert process.cold_start_ms > 0
        asked = process.ask("latency", texts=TEXTS)
        assert asked["answers"] == [answer.label for answer in load(BUNDLE).predict(TEXTS)]
        assert len(asked["ms"]) == 3
        assert process.ask("throughput", texts=TEXTS)["answers"] == asked["answers"]


def test_a_bundle_that_cannot_be_opened_is_told_with_its_last_line(tmp_path):
    damaged = shutil.copytree(BUNDLE, tmp_path / "bundle")
    (damaged / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(EdgetuneError) as ended:
        ContestantProcess(Side("bundle", damaged, 1), TEXTS[0])
    assert str(ended.value).startswith(f"The benchmark process of the bundle {damaged} ended: ")
    assert "model.onnx has 7 bytes" in str(ended.value)


def test_a_side_that_dies_under_way_is_told(sides):
    with (
        ContestantProcess(sides.bundle, TEXTS[0]) as process,
        pytest.raises(EdgetuneError, match=r"of the bundle .* ended: KeyError: 'texts'"),
    ):
        process.ask("latency")
    with ContestantProcess(sides.bundle, TEXTS[0]) as process:
        process._process.kill()
        process._process.wait()
        with pytest.raises(EdgetuneError, match=r"of the bundle .* ended: exit code -9"):
            process.ask("latency", texts=TEXTS)


def test_a_busy_machine_gives_times_but_no_ratios():
    blocks = [[8.0] * 20] * 3, [[2.0] * 20] * 3
    quiet = _compare(*blocks, TimingVerdict(True))
    busy = _compare(*blocks, TimingVerdict(False, "The machine was too busy."))
    assert (quiet.speedup.p50, quiet.speedup.p90, quiet.speedup.ci95) == (4.0, 4.0, [4.0, 4.0])
    assert (busy.base, busy.bundle) == (quiet.base, quiet.bundle)
    assert (busy.speedup.p50, busy.speedup.p90, busy.speedup.ci95) == (None, None, None)


def test_the_verdict_knows_what_each_side_was_given():
    starved = TimedBlocks({"bundle": [[1.0]]}, {}, {"bundle": 0.2}, others_cores=None, threads=1)
    assert "the bundle got a processor for 20% of the time" in starved.verdict().remark
    fine = TimedBlocks({"bundle": [[1.0]]}, {}, {"bundle": 1.0}, others_cores=None, threads=1)
    assert fine.verdict([0.99, 1.01]) == TimingVerdict(True)
    assert "came out 0.40 to 2.10 times as fast" in fine.verdict([0.4, 2.1]).remark


def test_a_summary_leaves_out_what_its_samples_cannot_bound():
    few, some = summarize([2.0] * 28), summarize([float(value) for value in range(1, 60)])
    assert (few.n, few.mean, few.p50, few.p90, few.p95) == (28, 2.0, 2.0, None, None)
    assert (some.p50, some.p90, some.p99) == (30, pytest.approx(53.2), None)
    assert some.p95 == pytest.approx(56.1)
    assert json.dumps(few.samples)
    assert flat([[1.0, 2.0], [], [3.0]]) == [1, 2, 3]
