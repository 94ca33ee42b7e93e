"""Builds in the test's own process, without the races that take most of a build's time; their figures are made up.

What is timed is answered here in turn, so that the report still compares it with what was judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from edgetune.benchmarks.recipe import BenchmarkRecipe
from edgetune.benchmarks.timing.quick import QuickFigures
from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.benchmarks.timing.race import Race, Timing
from edgetune.benchmarks.timing.side import Side
from edgetune.pipeline import Built, build
from edgetune.progress import StageLines
from edgetune.recipe import read_recipe
from edgetune.serve.bundle import Bundle, RuntimeSettings
from edgetune.serve.codecs import codec_inputs
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import LatencyComparison, LatencySummary, Memory, MemoryComparison, Pair, Speedup

SUMMARY = LatencySummary(n=40, mean=1.0, p50=1.0, p90=1.0, samples=[1.0] * 40)
SETTINGS = RuntimeSettings(threads=1, spinning=False, cpu="any", cores=1)


def build_untimed(values: Mapping[str, Any], until: str = "pack") -> Built:
    """Build by a recipe's values; of candidates that pass the smallest is taken, as on a machine too busy to time."""
    recipe, _ = read_recipe(None, values)
    with untimed():
        return build(recipe, StageLines(Console(quiet=True)), until=until)


@contextmanager
def untimed() -> Iterator[None]:
    """Time nothing meanwhile, and plan nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgetune.benchmarks.bench.race", _race)
        patch.setattr("edgetune.benchmarks.bench.measure_settings", lambda *_, **__: (SETTINGS, {}))
        patch.setattr("edgetune.benchmarks.prove.search.quick_race", _quick_race)
        patch.setattr("edgetune.pipeline._estimate", lambda *_: {})
        yield


def _quick_race(sides: Mapping[str, Side], *_: object) -> dict[str, QuickFigures]:
    return dict.fromkeys(sides, QuickFigures(SUMMARY, 1.0, 1, timing_valid=False))


def _race(race: Race, texts: Sequence[Any], recipe: BenchmarkRecipe, *_: object) -> Timing:
    predictor = Predictor(Bundle.open(Path(race.bundle.folder)))
    answers = {}
    for text in texts:
        (given,) = codec_inputs(predictor.bundle.manifest.codec, [text])
        (answer,) = predictor.head.decide(predictor.logits(predictor.encode([given])))
        answers[text] = predictor.head.plain(answer)
    none = Pair(base=None, bundle=None)
    return Timing(
        latency_ms=LatencyComparison(base=SUMMARY, bundle=SUMMARY, speedup=Speedup(p50=None, p90=None, ci95=None)),
        grid_ms=[],
        throughput_per_second=none,
        memory=MemoryComparison(base=Memory(rss_peak_bytes=None), bundle=Memory(rss_peak_bytes=None)),
        cold_start_ms=none,
        placement={},
        answers=answers,
        verdict=TimingVerdict(False, "Nothing was timed."),
    )
