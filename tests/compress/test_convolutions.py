"""Static int8 of convolutions: one way to fix ranges that fails takes none of the others with it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from edgetune.compress import convolutions
from edgetune.compress.convolutions import WAYS, quantize_nearest
from edgetune.serve.errors import CompressError


@pytest.fixture
def material(monkeypatch):
    """A material whose graphs answer with what their files say."""
    monkeypatch.setattr(convolutions, "_feeds", lambda *_: iter([]))
    monkeypatch.setattr(convolutions, "answers", lambda graph, _: np.float32(graph.read_text()))
    monkeypatch.setattr(convolutions, "distance", lambda expected, given: abs(float(expected - given)))
    encoder = SimpleNamespace(probes=lambda inputs, most: list(inputs)[:most])
    return SimpleNamespace(encoder=encoder, train=SimpleNamespace(texts=("a", "b", "c")))


def made_by(monkeypatch, outcomes):
    """Let each way write what `outcomes` has for it; an error where that is None."""

    def quantize(graph, target, material, *, ranges, pictures):
        if outcomes[ranges.method] is None:
            raise CompressError(f"{ranges.method}: too many bins")
        target.write_text(outcomes[ranges.method])
        return ranges.method

    monkeypatch.setattr(convolutions, "quantize_convolutions", quantize)


@pytest.mark.parametrize(
    ("outcomes", "chosen"),
    [
        ({"MinMax": "1.5", "Percentile": None}, "MinMax"),
        ({"MinMax": None, "Percentile": "1.5"}, "Percentile"),
        ({"MinMax": "1.5", "Percentile": "1.1"}, "Percentile"),
    ],
)
def test_the_nearest_of_the_ways_that_work_is_written(monkeypatch, material, tmp_path, outcomes, chosen):
    assert set(outcomes) == {way.method for way in WAYS}
    (tmp_path / "graph").write_text("1")
    made_by(monkeypatch, outcomes)
    line = quantize_nearest(tmp_path / "graph", tmp_path / "target", material)
    assert line.startswith(f"{chosen}; squared logit distance")
    assert (tmp_path / "target").read_text() == outcomes[chosen]
    assert {path.name for path in tmp_path.iterdir()} == {"graph", "target"}


def test_no_way_that_works_is_an_error(monkeypatch, material, tmp_path):
    (tmp_path / "graph").write_text("1")
    made_by(monkeypatch, {"MinMax": None, "Percentile": None})
    with pytest.raises(CompressError, match="Percentile: too many bins"):
        quantize_nearest(tmp_path / "graph", tmp_path / "target", material)
    made_by(monkeypatch, {"MinMax": "nan", "Percentile": "nan"})
    with pytest.raises(CompressError, match="not finite"):
        quantize_nearest(tmp_path / "graph", tmp_path / "target", material)
