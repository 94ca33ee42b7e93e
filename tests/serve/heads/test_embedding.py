"""The head of vectors: length one, shorter lengths that were trained, fewer bits, prompts, and golden answers."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import describe_head, open_head
from edgetune.serve.heads.embedding import EmbeddingHead, in_precision, unit

SPEC = HeadSpec(kind="embedding", width=4, lengths=[2], prompts={"query": "q: "})
OUTPUTS = np.array([[3, 4, 0, 0], [0, 0, 0, 2]], dtype=np.float32)


def head(spec: HeadSpec = SPEC) -> EmbeddingHead:
    opened = open_head(spec)
    assert isinstance(opened, EmbeddingHead)
    return opened


def test_vectors_have_length_one() -> None:
    answers = head().answer(OUTPUTS, [False, True])
    assert answers[0].plain == pytest.approx([0.6, 0.8, 0, 0])
    assert head().as_json(answers[1], None) == {"embedding": [0.0, 0.0, 0.0, 1.0], "truncated": True}
    assert head().as_lines(answers[0], 3) == [["0.6000 0.8000 0.0000 0.0000"]]
    assert describe_head(SPEC, 3) == "a vector of 4 numbers"


def test_a_beginning_is_scaled_again_and_others_are_refused() -> None:
    vectors = head().decide(np.array([[3, 0, 4, 0]], dtype=np.float32))
    assert head().shortened(vectors, 2).tolist() == [[1, 0]]
    assert head().shortened(vectors, None) is vectors
    with pytest.raises(InputError, match="not trained to be cut") as error:
        head().shortened(vectors, 3)
    assert error.value.expected == "4, 2"


def test_a_vector_of_nothing_stays() -> None:
    assert unit(np.zeros((1, 3), dtype=np.float32)).tolist() == [[0, 0, 0]]


def test_bytes_keep_the_cosine_and_bits_the_signs() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32))
    coarse = in_precision(vectors, "int8")
    assert coarse.dtype == np.int8
    assert np.abs(coarse).max(axis=1).tolist() == [127] * 50
    assert ((unit(coarse.astype(np.float32)) * vectors).sum(axis=1) > 0.999).all()
    bits = in_precision(vectors, "binary")
    assert bits.shape == (50, 4)
    assert (np.unpackbits(bits, axis=1) == (vectors > 0)).all()
    assert in_precision(vectors, "float32") is vectors
    with pytest.raises(InputError, match="float16"):
        in_precision(vectors, "float16")


def test_a_prompt_is_named_or_left_out() -> None:
    assert head().prompted(["a"], "query") == ["q: a"]
    assert head().prompted(["a"], None) == ["a"]
    with pytest.raises(InputError, match="no prompt 'document'") as error:
        head().prompted(["a"], "document")
    assert error.value.expected == "one of query"


def test_vectors_have_no_probabilities() -> None:
    with pytest.raises(InputError, match="no probabilities"):
        head().scores(OUTPUTS)


def test_golden_answers_are_compared_by_direction() -> None:
    case = GoldenCase(text="a", input_ids=[1], logits=[3.0, 4.0, 0.0, 0.0])
    assert head().misfit(case) == ""
    assert head().differs(case, np.array([6, 8, 0, 0.1], dtype=np.float32), 9.0) == ""
    assert "cosine of 0.0000" in head().differs(case, np.array([0, 0, 1, 0], dtype=np.float32), 9.0)
    assert (
        head().misfit(GoldenCase(text="a", input_ids=[1], logits=[1.0])) == "was packed for another head than a vector"
    )
    assert head().misfit(GoldenCase(text="a", input_ids=[1], logits=[1.0] * 4, label="x"))


@pytest.mark.parametrize(
    "spec",
    [
        HeadSpec(kind="embedding"),
        HeadSpec(kind="embedding", width=4, lengths=[4]),
        HeadSpec(kind="embedding", width=4, lengths=[1, 2]),
        HeadSpec(kind="embedding", width=4, lengths=[0]),
        HeadSpec(kind="embedding", width=4, labels=["a"]),
        HeadSpec(kind="embedding", width=4, temperature=2.0),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(spec: HeadSpec) -> None:
    with pytest.raises(BundleDamaged):
        open_head(spec)
