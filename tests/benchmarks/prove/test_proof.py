"""The fall from the preferred candidate to the next on the test part."""

from __future__ import annotations

import numpy as np

from edgetune.benchmarks.prove.gate import Verdict, judge_answers
from edgetune.benchmarks.prove.proof import FinalVerdict, prove
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.errors import GateError
from edgetune.tune.metrics import ACCURACY
from edgetune.tune.training.progress import Silent

EXPECTED = np.zeros(1000, dtype=np.int64)


def verdict(lost: int, looks: int) -> Verdict:
    candidate = (np.arange(1000) < lost).astype(np.int64)
    return judge_answers(ACCURACY, EXPECTED, EXPECTED, candidate, GateRecipe(), looks=looks)


def test_each_look_is_counted_and_what_cannot_be_judged_has_failed() -> None:
    def judge(name: str, looks: int) -> Verdict:
        if name == "broken":
            raise GateError("its logits are not finite.")
        return verdict({"worse": 100, "good": 0}[name], looks)

    final = prove(["worse", "broken", "good", "never"], judge, 1000, Silent())
    assert (final.chosen, final.looks, final.verdict) == ("good", 3, verdict(0, 3))
    assert final.fallen == {"worse": verdict(100, 1).reason, "broken": "its logits are not finite"}
    assert prove(["worse"], judge, 1000, Silent()) == FinalVerdict("", None, 1, {"worse": verdict(100, 1).reason})
    assert prove([], judge, 1000, Silent()).chosen == ""
