"""The page of the load benchmark: targets by hand-made runs, rounds by their median, absent servers told."""

from __future__ import annotations

from benchmarks.lab.load_page import OURS, PIPELINE, Loads, Run, Soak, page, rate, targets


def run(side: str, callers: int, per_second: float, **other: object) -> Run:
    values: dict[str, object] = {
        "side": side,
        "kind": "closed",
        "callers": callers,
        "offered_per_second": None,
        "answered_per_second": per_second,
        "p50_ms": 2.0,
        "p90_ms": 3.0,
        "p99_ms": 4.0,
        "worst_ms": 5.0,
        "refused": 0,
        "faults": {},
        "unsent": 0,
        "answered": 100,
        "agreement": 1.0,
        "peak_bytes": 150_000_000,
    }
    return Run(**(values | other))  # type: ignore[arg-type]


def loads(*runs: Run, soak: Soak | None = None) -> Loads:
    return Loads(
        machine="a machine.", bundle="x", runs=list(runs), bare_p50_ms=1.25, soak=soak, absent={"mlserver": "absent"}
    )


FOUND = loads(
    run(OURS, 1, 400.0),
    run(OURS, 32, 900.0),
    run(OURS, 32, 1_100.0),
    run(OURS, 32, 1_000.0),
    run(PIPELINE, 32, 100.0),
    run(OURS, 512, 950.0, kind="open", offered_per_second=2_000.0, refused=700, p99_ms=640.0),
)


def test_a_figure_is_the_median_of_its_rounds():
    assert rate(FOUND, OURS, 32) == 1_000.0
    assert rate(FOUND, "nobody", 32) is None


def test_targets_say_what_was_reached_and_what_was_not_measured():
    rows = {cells[0]: cells[3:] for cells in targets(FOUND)}

    assert rows["answers/s at 32 callers, against FastAPI with pipeline"] == ["**10 times**", "yes"]
    assert rows["the same, against LitServe, PyTorch"] == ["not measured", ""]
    assert rows["median added over the bare predictor, one caller"] == ["**0.75 ms**", "yes"]
    assert rows["neither answer nor honest refusal at twice the capacity"] == ["**0**", "yes"]
    assert rows["p99 of accepted requests at twice the capacity"] == ["**640 ms**", "yes"]


def test_a_fault_under_overload_is_not_reached():
    bad = run(OURS, 512, 950.0, kind="open", offered_per_second=2_000.0, faults={"status 500": 3})
    rows = {cells[0]: cells[3:] for cells in targets(loads(bad))}

    assert rows["neither answer nor honest refusal at twice the capacity"] == ["**3**", "**no**"]


def test_the_page_has_every_run_the_soak_and_who_was_absent():
    soak = Soak(seconds=600.0, run=FOUND.runs[-1], resident_bytes=[100_000_000, 101_000_000])
    text = page(loads(*FOUND.runs, soak=soak))

    assert "| edgetune serve | 32 | 1,000 |" in text
    assert "| edgetune serve | 2,000 | 950 | 700 | 0 |" in text
    assert "Twice the capacity for 10 minutes" in text
    assert "MB: 100, 101." in text
    assert "Not in the race: mlserver: absent." in text
