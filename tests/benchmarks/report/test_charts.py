"""Figures as text at their edges, axes with known answers, and charts that stay within their frame."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from edgetune.benchmarks.report import charts
from edgetune.benchmarks.report.charts import Axis, Bar
from edgetune.benchmarks.report.front import _frontier
from edgetune.serve.report import CurvePoint, LatencySummary, Pair

NAN = float("nan")


def drawn(chart: str) -> ElementTree.Element:
    """The chart as a tree; it has to be well-formed XML, with every x and width inside 0 to 100 percent."""
    tree = ElementTree.fromstring(chart)
    for element in tree.iter():
        for name in ("x", "x1", "x2", "cx", "width"):
            value = element.get(name, "0")
            if value.endswith("%"):
                assert 0 <= float(value[:-1]) <= 100
    assert not re.search(r"\b(None|nan|inf)\b", chart)
    return tree


def texts(tree: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in tree.iter("text")]


def test_plain_gives_three_digits() -> None:
    values = (0, 0.004, 0.0994, 0.65, 7.1, 9.996, 12.34, 99.96, 123.4, 3510.2, -0.5, -0.0001)
    assert [charts.plain(value) for value in values] == [
        "0.00", "0.004", "0.099", "0.65", "7.10", "10.0", "12.3", "100", "123", "3,510", "−0.50", "0.000",
    ]  # fmt: skip


def test_units() -> None:
    assert [charts.milliseconds(v) for v in (1.1, 3510, 12_345)] == ["1.10 ms", "3,510 ms", "12.3 s"]
    assert [charts.seconds(v) for v in (1.4, 262.3, 720)] == ["1.40 s", "262 s", "12.0 min"]
    assert [charts.size(v) for v in (0, 61_000, 23_400_000, 999_400_000, 1_910_000_000)] == [
        "0.00 kB", "61.0 kB", "23.4 MB", "999 MB", "1.91 GB",
    ]  # fmt: skip
    assert [charts.ratio(v) for v in (0.5, 1.04, 6.45, 15.6, 120)] == [
        "0.50×",
        "1.04×",
        "6.5×",
        "15.6×",
        "120×",
    ]
    assert [charts.share(v) for v in (0, 0.0004, 0.0812, 1)] == ["0%", "<0.1%", "8.1%", "100%"]
    assert charts.per_second(1657.2) == "1,657 /s"


@pytest.mark.parametrize("absent", [None, NAN, math.inf])
def test_what_was_not_measured_is_said(absent: float | None) -> None:
    said = {f(absent) for f in (charts.milliseconds, charts.seconds, charts.size, charts.ratio, charts.share)}
    said |= {charts.score(absent, "accuracy"), charts.difference(absent, "f1"), charts.per_second(absent)}
    assert said == {"not measured"}
    assert charts.milliseconds(absent, charts.TOO_SMALL) == "n too small"


def test_accuracy_is_percent_and_f1_is_not() -> None:
    assert charts.score(0.92932, "accuracy") == "92.93%"
    assert charts.score(0.92932, "accuracy", 1) == "92.9%"
    assert charts.score(0.92932, "f1_macro") == "0.9293"
    assert charts.difference(0.0019, "accuracy") == "0.19"
    assert charts.difference(0.0019, "accuracy", signed=True) == "+0.19"
    assert charts.difference(-0.0019, "f1_macro") == "−0.0019"


def test_a_loss_of_a_score_is_a_drop_and_of_an_error_a_rise_in_percent() -> None:
    assert (charts.loss_name("accuracy"), charts.loss(0.0019, "accuracy"), charts.loss_unit("accuracy")) == (
        "drop",
        "0.19",
        " points",
    )
    assert (charts.loss_name("micro_f1"), charts.loss(0.0019, "micro_f1"), charts.loss_unit("micro_f1")) == (
        "drop",
        "0.0019",
        "",
    )
    assert (charts.loss_name("mae"), charts.loss(0.0019, "mae", signed=True), charts.loss_unit("mae")) == (
        "rise",
        "+0.19%",
        "",
    )
    assert charts.loss(-0.0019, "rmse", signed=True) == "−0.19%"
    assert charts.loss(None, "mae") == charts.loss(NAN, "accuracy") == "not measured"


def test_of_an_error_the_front_is_what_is_lowest() -> None:
    times = [1.0, 2.0, 3.0]
    assert _frontier([0.9, 0.8, 0.95], times) == [0, 2]
    assert _frontier([-0.9, -0.8, -0.95], times) == [0, 1]  # as `pictures` turns errors


def test_change_names_the_direction() -> None:
    assert charts.change(Pair(base=90.0, bundle=30.0), "smaller", "larger") == "3.0× smaller"
    assert charts.change(Pair(base=30.0, bundle=60.0), "smaller", "larger") == "2.0× larger"
    assert charts.change(Pair(base=10.0, bundle=40.0), "more", "fewer", more_is_better=True) == "4.0× more"
    assert charts.change(Pair(base=100.0, bundle=99.0), "less", "more") == "about the same"
    assert charts.change(Pair(base=None, bundle=1.0), "less", "more") == ""
    assert charts.change(Pair(base=1.0, bundle=0.0), "less", "more") == ""


def test_heat_is_the_logarithm_of_the_speedup() -> None:
    assert [charts.heat(v) for v in (1, 10, 100, 0.1, 0)] == [0.0, 1.0, 1.0, -1.0, -1.0]


def test_axis_maps_its_ends_and_holds_what_lies_outside() -> None:
    linear = Axis(0, 10, start=10, end=90)
    assert [linear.at(v) for v in (0, 5, 10, -3, 99)] == [10, 50, 90, 10, 90]
    assert [Axis(1, 100, log=True).at(v) for v in (1, 10, 100)] == [0, 50, 100]
    assert Axis(3, 3).at(3) == 50


def test_ticks_are_round_and_inside() -> None:
    assert Axis(0.8, 13, log=True).ticks() == [1, 2, 5, 10]
    assert Axis(0.5, 5000, log=True).ticks() == [1, 10, 100, 1000]
    assert Axis(4.1, 21, log=True).ticks() == [5, 10, 15, 20]
    assert Axis(0, 3).ticks() == [0, 1, 2, 3]
    assert Axis(0.9, 0.94).ticks() == [0.9, 0.91, 0.92, 0.93, 0.94]


def test_density_peaks_at_the_middle_of_its_samples() -> None:
    axis = Axis(1, 100, log=True)
    curve = charts.density([9.0, 9.5, 10.0, 10.5, 11.1], axis)
    assert max(curve, key=lambda point: point[1])[0] == pytest.approx(50, abs=1.5)
    assert max(y for _, y in curve) == 1
    # Equal samples have no spread: still a curve, not a division by zero.
    assert max(y for _, y in charts.density([10.0] * 6, axis)) == 1


def test_latency_strips_mark_p50_and_p90() -> None:
    base = LatencySummary(n=5, mean=7.0, p50=7.0, p90=8.0, samples=[6.0, 6.5, 7.0, 7.5, 8.0])
    bundle = LatencySummary(n=3, mean=1.0, samples=[0.9, 1.0, 1.1])
    tree = drawn(charts.latency_strips([("base", "PyTorch", base), ("bundle", "int8 <1>", bundle)]))
    assert texts(tree).count("p50") == 1
    assert "p50 7.00 ms · p90 8.00 ms" in texts(tree)
    assert "p50 n too small · p90 n too small" in texts(tree)
    assert "int8 <1>" in texts(tree)
    areas = [e for e in tree.iter("path") if "area" in e.get("class", "")]
    rugs = [e for e in tree.iter("path") if "rug" in e.get("class", "")]
    assert len(areas) == 1  # three calls are shown as ticks only
    assert [e.get("d", "").count("V100") for e in rugs] == [5, 3]


def test_a_rug_of_many_calls_is_thinned() -> None:
    many = LatencySummary(n=5000, mean=1.0, p50=1.0, samples=[1 + i / 5000 for i in range(5000)])
    chart = charts.latency_strips([("base", "PyTorch", many)])
    drawn(chart)
    assert chart.count("V100") == 400


def test_no_latency_no_chart() -> None:
    assert charts.latency_strips([("base", "PyTorch", LatencySummary(n=0, mean=0.0))]) == ""
    assert charts.latency_strips([]) == ""


def test_interval_dot_lies_within_its_interval() -> None:
    axis = charts.score_axis([0.9, 0.92, 0.94])
    tree = drawn(charts.interval_dot(0.92, [0.9, 0.94], axis, 0.93, "bundle"))
    circle, (guide, whisker) = next(tree.iter("circle")), tree.iter("line")
    low, dot, high = (float(v.rstrip("%")) for v in (whisker.attrib["x1"], circle.attrib["cx"], whisker.attrib["x2"]))
    assert low < dot < high
    assert dot < float(guide.attrib["x1"].rstrip("%")) < high
    assert texts(drawn(charts.score_ticks(axis, "accuracy"))) == ["90", "92", "94"]
    assert len(list(drawn(charts.interval_dot(0.92, [], axis, None, "base")).iter("line"))) == 0


def test_paired_bars_are_in_proportion_and_a_missing_one_is_not_drawn() -> None:
    tree = drawn(charts.paired_bars([Bar("base", "PyTorch", 400.0, "400"), Bar("bundle", "bundle", 100.0, "100")]))
    long, short = (float(e.attrib["width"].rstrip("%")) for e in tree.iter("rect"))
    assert long == 4 * short
    tree = drawn(charts.paired_bars([Bar("base", "PyTorch", None, "not measured"), Bar("bundle", "b", 0.0, "0")]))
    assert [e.attrib["width"] for e in tree.iter("rect")] == ["0%"]
    assert "not measured" in texts(tree)


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.4, 1.0, 1.5])
def test_share_bar_stays_on_its_rail(value: float) -> None:
    drawn(charts.share_bar(value))


def test_training_curve_draws_what_is_there() -> None:
    points = [
        CurvePoint(epoch=1, train_loss=None, validation_loss=0.5, validation_value=0.8),
        CurvePoint(epoch=2, train_loss=0.3, validation_loss=0.4, validation_value=0.9),
    ]
    tree = drawn(charts.training_curve(points, "accuracy", 0.85, 2.0))
    assert len(list(tree.iter("circle"))) == 5
    assert {"loss", "accuracy on the validation part", "epoch", "1", "2"} <= set(texts(tree))
    assert charts.training_curve([], "accuracy", 0.85, None) == ""


def test_training_curve_of_one_point_and_of_very_many() -> None:
    one = [CurvePoint(epoch=0.0, train_loss=0.0, validation_loss=0.0, validation_value=1.0)]
    assert len(list(drawn(charts.training_curve(one, "f1", 1.0, 0.0)).iter("circle"))) == 3
    many = [CurvePoint(epoch=i / 50, train_loss=1.0, validation_loss=1.0, validation_value=0.5) for i in range(99)]
    assert len(list(drawn(charts.training_curve(many, "f1", 0.5, None)).iter("circle"))) == 0
