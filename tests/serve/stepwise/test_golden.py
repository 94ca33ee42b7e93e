"""Golden answers replay where nothing has changed, and tell what has."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import GenerationGolden, read_golden, record, replay


@pytest.fixture
def golden(generator: Generator, texts: list[str]) -> GenerationGolden:
    return record(generator, texts, tolerance=1e-3, tokens=12)


def _changed(golden: GenerationGolden, **fields: Any) -> GenerationGolden:
    return msgspec.structs.replace(
        golden, cases=[msgspec.structs.replace(golden.cases[0], **fields), *golden.cases[1:]]
    )


def test_what_was_packed_replays(generator: Generator, golden: GenerationGolden) -> None:
    assert [len(case.tokens) for case in golden.cases] == [12] * 4
    assert [len(case.top) for case in golden.cases] == [10] * 4
    read = msgspec.json.decode(msgspec.json.encode(golden), type=GenerationGolden)
    assert read == golden
    result = replay(generator, read)
    assert (result.cases, result.tolerance) == (4, 1e-3)
    assert 0 <= result.max_abs_diff < 1e-4


def test_every_difference_is_told(generator: Generator, golden: GenerationGolden) -> None:
    case = golden.cases[0]
    other = (case.tokens[5] + 1) % 300
    tokens = [*case.tokens[:5], other, *case.tokens[6:]]
    for changed, said in (
        ({"input_ids": [*case.input_ids, 5]}, "tokenizes differently"),
        ({"top": [(token, logit + 0.01) for token, logit in case.top]}, r"is off by 0\.01 \(allowed 0\.001\)"),
        ({"tokens": tokens}, f"goes on with token {case.tokens[5]} instead of {other} at place 5"),
        ({"tokens": [4000]}, "was packed for another vocabulary"),
    ):
        with pytest.raises(BundleDamaged, match="1 of 4 golden answers differ: 'the card.*" + said):
            replay(generator, _changed(golden, **changed))


def test_a_close_choice_may_fall_otherwise(generator: Generator, golden: GenerationGolden) -> None:
    case = golden.cases[0]
    logits, _ = generator.decoder.prefill([case.input_ids])
    second = int(np.argsort(-logits[0])[1])
    gap = float(logits[0].max() - logits[0, second])
    swapped = _changed(golden, tokens=[second])
    wide = msgspec.structs.replace(swapped, tolerance=gap / 2 + 1e-4)
    assert replay(generator, wide).cases == 4
    narrow = msgspec.structs.replace(swapped, tolerance=gap / 2 - 1e-4)
    with pytest.raises(BundleDamaged, match="at place 0"):
        replay(generator, narrow)


def test_no_answers_and_no_file_are_faults(generator: Generator, bundle_copy: Any) -> None:
    with pytest.raises(BundleDamaged, match="empty"):
        replay(generator, GenerationGolden(0.1, []))
    bundle = Bundle.open(bundle_copy.folder)  # a classifier's: its golden answers are of another kind
    with pytest.raises(BundleDamaged, match="cannot be read"):
        read_golden(bundle)
    bundle_copy.path("golden.json").unlink()
    with pytest.raises(BundleDamaged, match="cannot be read"):
        read_golden(bundle)


def test_logits_that_are_no_numbers_fail(
    generator: Generator, golden: GenerationGolden, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generator.decoder.run

    def broken(*given: Any) -> Any:
        logits, cache = real(*given)
        return np.full_like(logits, np.nan), cache

    monkeypatch.setattr(generator.decoder, "run", broken)
    with pytest.raises(BundleDamaged, match="4 of 4"):
        replay(generator, golden)
