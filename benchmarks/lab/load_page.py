"""What the load benchmark found, as a page with plots: targets first, then every server under every load.

A figure of several rounds is their median. Plots are drawn by matplotlib, which only this script needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

import msgspec

from benchmarks.lab.real_data import table
from edgetune.serve.errors import MissingDependency

OURS = "edgetune serve"
PIPELINE = "FastAPI, transformers.pipeline"
TORCH_SERVERS = ("LitServe, PyTorch", "MLServer, Hugging Face runtime")
OUR_PREDICTOR = ("LitServe, our predictor", "MLServer, our predictor")
# Of the p99 under overload: what callers wait for at most, by many clients' settings, is a few seconds.
BOUND_MS = 2_000
PLOTS = ("serving-throughput.svg", "serving-overload.svg")


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one server. `kind` is closed or open; `offered_per_second` None in a closed loop."""

    side: str
    kind: str
    callers: int
    offered_per_second: float | None
    answered_per_second: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    worst_ms: float | None
    refused: int
    faults: dict[str, int]
    unsent: int
    answered: int
    agreement: float | None
    peak_bytes: int


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """Twice the capacity for minutes: `resident_bytes` at even times, first to last."""

    seconds: float
    run: Run
    resident_bytes: list[int]


class Loads(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured; `bare_ms` are latencies of the predictor alone, one text after the other."""

    machine: str
    bundle: str
    runs: list[Run]
    bare_p50_ms: float
    soak: Soak | None
    absent: dict[str, str]


def page(loads: Loads) -> str:
    """The Markdown page, to stand beside the plots."""
    parts = [
        "# Serving under load",
        "Written by `python -m benchmarks.lab.serve_load` (`make serving`). One text a request, real texts of "
        "mixed lengths, keep-alive connections over loopback; each server had its turn in every round, and a figure is "
        f"the median of its rounds. The bundle is {loads.bundle}. {loads.machine}",
        "\n".join(table(["figure", "must reach", "aim", "measured", "reached"], targets(loads))),
        f"![Requests a second by callers]({PLOTS[0]})",
        "## Closed loop: so many callers, each waiting for its answer",
        "\n".join(
            table(["server", "callers", "answers/s", "p50 ms", "p90 ms", "p99 ms", "labels", "peak MB"], _closed(loads))
        ),
        "## Open loop: requests come at Poisson times, whether or not there is an answer",
        f"![Slowest percent of the accepted requests]({PLOTS[1]})",
        "\n".join(
            table(
                ["server", "offered/s", "answers/s", "refused", "faults", "p50 ms", "p99 ms", "slowest ms"],
                _open(loads),
            )
        ),
        _soak(loads),
        "".join(f"Not in the race: {name}: {why}.\n" for name, why in loads.absent.items()),
        '"Labels" is the share of answers equal to those of `edgetune predict`, text by text; the PyTorch servers run '
        'another model of the same data, so theirs says nothing of their quality. "Refused" counts 429 and 503, '
        '"faults" all else that was no answer. Memory is the proportional set size of all processes of a server.',
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def targets(loads: Loads) -> list[list[str]]:
    """What must be reached, with what was measured; a row whose servers were absent says so."""
    ours = rate(loads, OURS, 32)
    added = middle(loads, OURS, 1, lambda run: run.p50_ms)
    over = [run for run in loads.runs if run.side == OURS and run.kind == "open" and _overloaded(run)]
    faults = sum(sum(run.faults.values()) for run in over)
    worst = max((run.p99_ms for run in over if run.p99_ms is not None), default=None)
    return [
        _times("answers/s at 32 callers, against FastAPI with pipeline", ours, rate(loads, PIPELINE, 32), 8, 12),
        *(_times(f"the same, against {name}", ours, rate(loads, name, 32), 2, 2) for name in TORCH_SERVERS),
        *(_times(f"the same, against {name}", ours, rate(loads, name, 32), 1, 1) for name in OUR_PREDICTOR),
        [
            "median added over the bare predictor, one caller",
            "at most 1 ms",
            "",
            "not measured" if added is None else f"**{added - loads.bare_p50_ms:.2f} ms**",
            "" if added is None else "yes" if added - loads.bare_p50_ms <= 1 else "**no**",
        ],
        [
            "neither answer nor honest refusal at twice the capacity",
            "0",
            "",
            f"**{faults}**",
            "yes" if not faults else "**no**",
        ],
        [
            "p99 of accepted requests at twice the capacity",
            f"bounded: at most {BOUND_MS:,} ms",
            "",
            "not measured" if worst is None else f"**{worst:,.0f} ms**",
            "" if worst is None else "yes" if worst <= BOUND_MS else "**no**",
        ],
    ]


def _overloaded(run: Run) -> bool:
    return run.offered_per_second is not None and run.offered_per_second > 1.2 * run.answered_per_second


def rate(loads: Loads, side: str, callers: int) -> float | None:
    """Answers a second of a closed loop, the median of the rounds."""
    return middle(loads, side, callers, lambda run: run.answered_per_second)


def middle(loads: Loads, side: str, callers: int, read: Callable[[Run], float | None]) -> float | None:
    """The median over the rounds of a figure of a closed loop; None where it was not measured."""
    found = [
        value
        for run in loads.runs
        if (run.side, run.kind, run.callers) == (side, "closed", callers) and (value := read(run)) is not None
    ]
    return median(found) if found else None


def _times(figure: str, ours: float | None, theirs: float | None, must: float, aim: float) -> list[str]:
    if ours is None or not theirs:
        return [figure, f"at least {must:g} times", f"{aim:g} times", "not measured", ""]
    found = ours / theirs
    reached = "aim" if found >= aim else "yes" if found >= must else "**no**"
    return [figure, f"at least {must:g} times", f"{aim:g} times", f"**{found:.3g} times**", reached]


def _sides(loads: Loads) -> list[str]:
    return list(dict.fromkeys(run.side for run in loads.runs))


def _counts(loads: Loads) -> list[int]:
    return sorted({run.callers for run in loads.runs if run.kind == "closed"})


def _closed(loads: Loads) -> list[list[str]]:
    return [
        [
            side,
            str(count),
            _plain(rate(loads, side, count), 0),
            *(_plain(middle(loads, side, count, read), 2) for read in (_p50, _p90, _p99)),
            _percent(middle(loads, side, count, lambda run: run.agreement)),
            _plain(max(run.peak_bytes for run in loads.runs if run.side == side) / 1e6, 0),
        ]
        for side in _sides(loads)
        for count in _counts(loads)
    ]


def _p50(run: Run) -> float | None:
    return run.p50_ms


def _p90(run: Run) -> float | None:
    return run.p90_ms


def _p99(run: Run) -> float | None:
    return run.p99_ms


def _open(loads: Loads) -> list[list[str]]:
    return [
        [
            run.side,
            _plain(run.offered_per_second, 0),
            _plain(run.answered_per_second, 0),
            f"{run.refused:,}",
            ", ".join(f"{kind}: {count}" for kind, count in run.faults.items()) or "0",
            _plain(run.p50_ms, 1),
            _plain(run.p99_ms, 1),
            _plain(run.worst_ms, 0),
        ]
        for run in loads.runs
        if run.kind == "open"
    ]


def _soak(loads: Loads) -> str:
    if loads.soak is None:
        return ""
    soak, run = loads.soak, loads.soak.run
    megabytes = ", ".join(f"{value / 1e6:,.0f}" for value in soak.resident_bytes)
    return (
        f"## Twice the capacity for {soak.seconds / 60:.0f} minutes\n\n"
        f"{run.answered:,} answers ({run.answered_per_second:,.0f} a second), {run.refused:,} refusals, "
        f"{sum(run.faults.values())} faults; p99 {_plain(run.p99_ms, 1)} ms, slowest {_plain(run.worst_ms, 0)} ms. "
        f"Memory at even times, MB: {megabytes}."
    )


def _plain(value: float | None, places: int) -> str:
    return "" if value is None else f"{value:,.{places}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}%"


def write_plots(loads: Loads, folder: Path) -> None:
    """Answers a second by callers, and p99 by offered load, as SVG.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ModuleNotFoundError as error:
        raise MissingDependency("matplotlib is not installed.", action="pip install matplotlib") from error
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "edgetune"  # the same figures, the same bytes
    counts = _counts(loads)
    lines = {side: [(count, rate(loads, side, count)) for count in counts] for side in _sides(loads)}
    _plot(folder / PLOTS[0], lines, "callers", "answers a second", logarithmic=("x",))
    offered = {
        side: sorted(
            (run.offered_per_second, run.p99_ms) for run in loads.runs if run.side == side and run.offered_per_second
        )
        for side in _sides(loads)
    }
    _plot(folder / PLOTS[1], offered, "requests offered a second", "p99 of accepted, ms", logarithmic=("x", "y"))


def _plot(
    path: Path,
    lines: Mapping[str, Sequence[tuple[float, float | None]]],
    x: str,
    y: str,
    logarithmic: Sequence[str],
) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for side, points in lines.items():
        known = [(one, other) for one, other in points if other is not None]
        axes.plot([one for one, _ in known], [other for _, other in known], marker="o", label=side, linewidth=1.5)
    axes.set(xlabel=x, ylabel=y, **{f"{axis}scale": "log" for axis in logarithmic})
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
