"""The proof for other processors: what agrees, what is refused and what stands in for it, and what stays unproven."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgetune.benchmarks.prove.ledger import Slice
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.benchmarks.target_recipe import TargetRecipe
from edgetune.benchmarks.targets import proof
from edgetune.benchmarks.targets.emulation import Prover
from edgetune.benchmarks.targets.proof import (
    TargetCandidate,
    TargetTerms,
    check_targets,
    entries,
    other_products,
    prove_targets,
    resolved,
)
from edgetune.benchmarks.targets.replay import TargetRows
from edgetune.serve.answer_rows import RowsResult
from edgetune.serve.bundle import Bundle, HeadSpec
from edgetune.serve.errors import GateError
from edgetune.serve.heads import open_head
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.progress import Silent

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"
ROWS = 600
LABELS = ("a", "b")


def rows_of(count: int = ROWS) -> Slice:
    task = TASKS["text-classification"]
    objective = task.objective(LABELS, "accuracy", [])
    head = open_head(HeadSpec(kind="label", labels=list(LABELS)))
    texts = tuple(str(row) for row in range(count))
    return Slice(texts, np.arange(count) % 2, head, objective, task, np.array([0, 1] * 50))


def right_logits(count: int = ROWS) -> np.ndarray:
    return np.eye(2, dtype=np.float32)[np.arange(count) % 2] * 4


def turned(share: float):
    """What a processor answers that turns this share of the rows, and shifts every output a little."""

    def replay(prover, folder, inputs, seconds):
        logits = right_logits()[[int(text) for text in inputs]] + np.float32(0.01)
        count = round(share * len(inputs))
        logits[:count] = logits[:count, ::-1]
        return TargetRows(logits, RowsResult(target="x86-64-v3", scheme="int8", golden=0.02))

    return replay


def prove(monkeypatch, replay, *, candidates=("int8",), count=ROWS, provers=None, **target):
    known = {"x86-64-v3": Prover("emulated", "Haswell by QEMU"), "arm64": Prover("unproven", "nothing is set up")}
    monkeypatch.setattr(proof, "prover_of", (provers or known).__getitem__)
    monkeypatch.setattr(proof, "replay_rows", replay)
    monkeypatch.setattr(proof, "target_here", lambda: "x86-64-vnni")
    draft = Bundle.open(GOLDEN)
    given = {name: TargetCandidate(draft, right_logits(count)) for name in candidates}
    isa = target.pop("isa", "x86-64-v3")
    terms = TargetTerms((TargetRecipe(isa=isa, **target),), GateRecipe(), 0)
    (report,) = prove_targets(given, rows_of(count), terms, Silent())
    return report, dict.fromkeys(candidates, draft)


def test_a_class_that_agrees_is_proven_on_500_rows(monkeypatch):
    report, drafts = prove(monkeypatch, turned(0.004))

    assert (report.scheme, report.proof, report.rows, report.agreement) == ("int8", "emulated", 500, 0.996)
    assert (report.here_value, report.value, report.drop, report.gate) == (1.0, 0.996, 0.004, "inconclusive")
    assert (report.max_abs_diff, report.golden_diff, report.refused) == (pytest.approx(4.01), 0.02, {})
    assert report.line == (
        "x86-64-v3: int8 agrees with the judged answers on 99.60% of 500 rows, emulated (Haswell by QEMU), which says "
        "nothing of speed."
    )
    (entry,) = entries([report], drafts)
    assert (entry.name, entry.scheme, entry.rows, entry.agreement) == ("x86-64-v3", "fp32", 500, 0.996)
    assert entry.tolerance == drafts["int8"].golden().tolerance  # never more than the scheme's


def test_a_scheme_that_answers_otherwise_is_refused_and_the_next_one_tried(monkeypatch):
    shares = iter([0.02, 0.0])
    report, _ = prove(monkeypatch, lambda *asked: turned(next(shares))(*asked), candidates=("int8", "fused"))

    assert (report.scheme, report.agreement) == ("fused", 1.0)
    (reason,) = report.refused.values()
    assert reason.startswith("it agrees on 98.00% of 500 rows, at least 99.5% is required")
    assert "int8 was refused: it agrees on 98.00%" in report.line


def test_nothing_is_packed_for_a_class_that_no_graph_answers_right(monkeypatch):
    report, drafts = prove(monkeypatch, turned(0.02))
    assert report.scheme == ""
    assert entries([report], drafts) == []

    with pytest.raises(GateError, match=r"no graph answers there as it was judged\. int8 was refused: it agrees"):
        check_targets(SimpleNamespace(targets=[report]), (TargetRecipe(isa="x86-64-v3"),), Path("report.json"))


@pytest.mark.parametrize(("count", "accepted"), [(60, True), (600, False)])
def test_one_row_of_few_is_no_proof_of_the_contrary(monkeypatch, count, accepted):
    report, _ = prove(monkeypatch, turned(1 / 60), count=count, min_agreement=0.995)
    assert bool(report.scheme) is accepted


def test_a_process_that_fails_or_took_itself_for_another_is_a_refusal(monkeypatch):
    failed = TargetRows(
        np.zeros((0, 0), np.float32), RowsResult(target="", scheme=""), "the process ended by signal 4: x"
    )
    report, _ = prove(monkeypatch, lambda *asked: failed)
    assert report.refused == {"int8": "the process ended by signal 4: x"}

    other = TargetRows(right_logits(), RowsResult(target="x86-64-vnni", scheme="int8"))
    report, _ = prove(monkeypatch, lambda *asked: other)
    assert report.refused == {"int8": "the process took its processor for x86-64-vnni"}


def test_what_cannot_be_answered_here_is_unproven_and_told(monkeypatch):
    report, drafts = prove(monkeypatch, pytest.fail, isa="arm64")

    assert (report.scheme, report.proof, report.agreement) == ("int8", "unproven", None)
    assert report.line == "arm64 is unproven: nothing is set up."
    (entry,) = entries([report], drafts)
    assert (entry.proof, entry.tolerance) == ("unproven", None)


def test_computed_sums_say_nothing_of_products_that_they_are_not_known_for(monkeypatch):
    computed = {"x86-64-v3": Prover("computed", "sums that fit")}
    monkeypatch.setattr(proof, "other_products", lambda graph: ["MatMulNBits"])
    report, _ = prove(monkeypatch, pytest.fail, provers=computed)
    assert (report.proof, report.how) == ("unproven", "only an emulator tells what MatMulNBits computes there")

    assert other_products(GOLDEN / "model.onnx") == []


def test_here_is_the_class_of_this_machine(monkeypatch):
    monkeypatch.setattr(proof, "target_here", lambda: "arm64")
    targets = (TargetRecipe(), TargetRecipe(isa="x86-64-v3"), TargetRecipe(isa="arm64"))
    assert list(resolved(targets)) == ["arm64", "x86-64-v3"]

    monkeypatch.setattr(proof, "target_here", lambda: "")
    assert resolved((TargetRecipe(),)) == {}


def test_the_memory_of_a_target_is_a_limit():
    target = (TargetRecipe(isa="arm64", memory_mb=100),)
    report = SimpleNamespace(
        targets=[], chosen="int8", memory=SimpleNamespace(bundle=SimpleNamespace(rss_peak_bytes=None))
    )
    with pytest.raises(GateError, match="memory that was not measured"):
        check_targets(report, target, Path("r"))
    report.memory.bundle.rss_peak_bytes = 120_000_000
    with pytest.raises(GateError, match="takes 120 MB of memory here"):
        check_targets(report, target, Path("r"))
    report.memory.bundle.rss_peak_bytes = 90_000_000
    check_targets(report, target, Path("r"))
