"""An exported graph beside its model in PyTorch: equal but for rounding, and far off where the model is another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.lab.language.artefacts import FILE, FP32, Artefacts, place_of
from edgetune.benchmarks.stepwise import fidelity
from edgetune.benchmarks.stepwise.fidelity import graph_fidelity
from edgetune.benchmarks.stepwise.judged_rows import JudgedRows
from edgetune.serve.errors import GateError
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.stepwise.model import open_language_model
from edgetune.tune.training.progress import Silent


@pytest.fixture(scope="module")
def spec(tiny_family: Path) -> GenerationSpec:
    return msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts).specs[FP32]


@pytest.fixture(scope="module")
def rows() -> JudgedRows:
    """Texts of 20 tokens, the answers of the last 12; one is longer than the context of 128."""
    drawn = np.random.default_rng(0)
    ids = tuple(tuple(drawn.integers(3, 300, length).tolist()) for length in (20, 20, 20, 140))
    return JudgedRows(ids, tuple((*[-100] * 8, *one[8:]) for one in ids))


def compared(folder: Path, spec: GenerationSpec, rows: JudgedRows, model: Any = None) -> fidelity.Divergence:
    return graph_fidelity(
        lambda: model or open_language_model(folder / "model"),
        folder / place_of(FP32) / "model.onnx",
        rows,
        spec=spec,
        threads=1,
        progress=Silent(),
    )


def test_a_graph_is_its_model_but_for_rounding(tiny_family, spec, rows):
    found = compared(tiny_family, spec, rows)
    assert [one.tokens for one in found.texts] == [12, 12, 12, 120]
    assert 0 <= found.kl_nats < 1e-6
    assert found.top1_agreement == 1.0
    assert found.perplexity == pytest.approx(found.reference_perplexity, rel=1e-5)


def test_another_model_is_found_out(tiny_family, spec, rows):
    import torch

    other = open_language_model(tiny_family / "model")
    with torch.no_grad():
        other.model.layers[0].mlp.down_proj.weight.mul_(-1)
    found = compared(tiny_family, spec, rows, other)
    assert found.kl_nats > 1e-3
    assert found.top1_agreement < 1.0
    assert found.perplexity != pytest.approx(found.reference_perplexity, rel=1e-3)


def test_no_more_rows_are_run_than_say_something(tiny_family, spec, rows, monkeypatch):
    monkeypatch.setattr(fidelity, "FIDELITY_ROWS", 2)
    assert len(compared(tiny_family, spec, rows).texts) == 2


def test_logits_that_are_no_numbers_are_told(tiny_family, spec, rows, monkeypatch):
    class Broken:
        """A session that answers with nothing but NaN."""

        def get_inputs(self) -> list[Any]:
            return []

        def run(self, _outputs: list[str], _feed: dict[str, Any]) -> list[Any]:
            return [np.full((1, 20, spec.vocabulary), np.nan, np.float32)]

    monkeypatch.setattr(fidelity, "open_session", lambda *_, **__: Broken())
    with pytest.raises(GateError, match="not finite on a text of 20 tokens"):
        compared(tiny_family, spec, rows)
