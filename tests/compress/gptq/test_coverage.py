"""What a scheme's name does not say of its file is put in words."""

from __future__ import annotations

from edgetune.compress.gptq.coverage import Coverage, LeftMatrix, QuantizedMatrix


def _quantized(name: str, block: int, stored_bytes: int = 100) -> QuantizedMatrix:
    return QuantizedMatrix(name, ("MatMulNBits",), 4, block, 200, stored_bytes)


def _coverage(*quantized: QuantizedMatrix, left: tuple[LeftMatrix, ...] = ()) -> Coverage:
    total = sum(one.stored_bytes for one in (*quantized, *left))
    return Coverage(total, {}, total, quantized, left)


def test_narrower_blocks_than_were_asked_for_are_told() -> None:
    coverage = _coverage(_quantized("a", 64), _quantized("b", 32), _quantized("c", 128))
    assert coverage.remarks(128) == ("2 of 3 matrices have 32 or 64 weights to a scale: they are too narrow for 128",)
    assert coverage.remarks(32) == ()
    assert _coverage().remarks(128) == ()


def test_a_file_that_is_mostly_floats_is_told() -> None:
    """The experts of a mixture, which lie in one tensor of three dimensions."""
    experts = LeftMatrix("layers.0.experts", 4000, 850, "of 3 dimensions")
    small = LeftMatrix("router", 10, 50, "of 8x16, smaller than a block")
    assert _coverage(_quantized("a", 32), left=(small, experts)).remarks(32) == (
        "only 10% of the bytes stored are quantized: 2 matrices stay in floats, the largest layers.0.experts (of 3 "
        "dimensions)",
    )
    assert _coverage(_quantized("a", 32, 2000), left=(experts,)).remarks(32) == ()
