"""Rounding to nearest: levels and bytes known by hand, and errors within half a step."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.compress.gptq.rounding import find_grid, in_blocks, in_half, nearest


def row_of(*values: float, width: int = 32) -> np.ndarray:
    row = np.zeros((1, width), np.float32)
    row[0, : len(values)] = values
    return row


def test_sixteen_levels_between_least_and_largest_keep_whole_numbers():
    weight = row_of(*range(-5, 11))
    blocks = nearest(weight, 4, 32)
    assert (blocks.grid.scales.tolist(), blocks.grid.zeros.tolist()) == ([[1.0]], [[5.0]])
    assert blocks.levels[0, 0, :16].tolist() == list(range(16))
    assert (blocks.restored() == weight).all()


def test_bytes_hold_the_first_level_in_the_low_half():
    weight = np.concatenate([row_of(*range(-5, 11)), row_of(*range(0, 31, 2))], axis=1)
    blocks = nearest(weight, 4, 32)
    assert blocks.packed().shape == (1, 2, 16)
    assert blocks.packed()[0, 0, :3].tolist() == [0x10, 0x32, 0x54]
    assert blocks.packed_zeros().tolist() == [[0x05]]  # the second block's zero point, 0, is in the high half


def test_zero_points_of_an_odd_number_of_blocks_fill_their_last_byte_with_zero():
    weight = np.concatenate([row_of(*range(-5, 11))] * 3, axis=1)
    assert nearest(weight, 4, 32).packed_zeros().tolist() == [[0x55, 0x05]]


def test_eight_bits_have_zero_in_the_middle_and_store_no_zero_point():
    weight = row_of(*range(-127, 128), width=256)
    blocks = nearest(weight, 8, 256)
    assert (blocks.grid.scales.tolist(), blocks.grid.zeros.tolist()) == ([[1.0]], [[128.0]])
    assert blocks.grid.is_symmetric
    assert blocks.packed()[0, 0].tolist() == [*range(1, 256), 128]
    assert (blocks.restored() == weight).all()
    assert blocks.stored_bytes == 256 + 2


@pytest.mark.parametrize("sign", [1, -1])
def test_four_symmetric_bits_give_the_largest_weight_the_lowest_level(sign):
    weight = sign * row_of(*range(-8, 8))
    blocks = nearest(weight, 4, 32, symmetric=True)
    assert (blocks.grid.scales.tolist(), blocks.grid.zeros.tolist()) == ([[float(sign)]], [[8.0]])
    assert blocks.levels[0, 0, :16].tolist() == list(range(16))
    assert (blocks.restored() == weight).all()
    assert blocks.stored_bytes == 16 + 2
    assert not nearest(weight + 1, 4, 32).grid.is_symmetric


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_of_zeros_stays_zero_and_a_short_last_block_is_filled_with_it(bits):
    weight = np.zeros((3, 40), np.float32)
    weight[1] = np.linspace(-1, 3, 40)
    blocks = nearest(weight, bits, 16)
    assert blocks.levels.shape == (3, 3, 16)
    assert blocks.restored().shape == (3, 40)
    assert (blocks.restored()[[0, 2]] == 0).all()
    assert (blocks.levels[:, 2, 8:] == blocks.grid.zeros[:, 2:]).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_the_error_is_that_of_the_grid_and_never_larger_than_without_clipping(bits):
    weight = np.random.default_rng(2).standard_t(4, size=(40, 96)).astype(np.float32)
    blocks = nearest(weight, bits, 32)
    error = in_blocks(blocks.restored() - weight, 32)
    low, high = (
        (0 - blocks.grid.zeros) * blocks.grid.scales,
        (2**bits - 1 - blocks.grid.zeros) * blocks.grid.scales,
    )
    inside = (in_blocks(weight, 32) >= low[:, :, None]) & (in_blocks(weight, 32) <= high[:, :, None])
    half = np.broadcast_to(blocks.grid.scales[:, :, None] * 0.5001, error.shape)
    assert (np.abs(error) <= half)[inside].all()
    groups = in_blocks(weight, 32)
    if bits == 4:
        step = (np.maximum(groups.max(axis=2), 0) - np.minimum(groups.min(axis=2), 0)) / 15
    else:
        step = np.abs(groups).max(axis=2) / 127
    plain = np.rint(groups / step[:, :, None]) * step[:, :, None] - groups
    if bits == 4:  # clipping makes up for what is lost by scales that float16 holds
        assert ((error**2).sum(axis=2) <= (plain**2).sum(axis=2) * 1.001 + 1e-7).mean() > 0.98
    assert (error**2).sum() < (plain**2).sum() * 1.02


def test_scales_are_values_of_float16_that_still_span_their_block():
    scales = np.asarray([1e-7, 3.3e-5, 0.1, 1.0, 70_000.0], np.float32)
    rounded = in_half(scales)
    assert (rounded[:4] == rounded[:4].astype(np.float16)).all()
    assert (rounded >= scales).all()
    assert rounded[2] <= 0.1 * (1 + 2**-10)
    assert rounded[3:].tolist() == [1.0, 70_000.0]  # exact already, and beyond float16


def test_columns_that_count_more_are_kept_better():
    weight = np.random.default_rng(2).normal(size=(64, 32)).astype(np.float32)
    weight[:, 0] = 6.0
    importance = np.ones(32, np.float32)
    importance[0] = 0.001

    def widths(counts):
        return find_grid(weight, 4, 32, importance=counts).scales.mean()

    assert widths(importance) < 0.9 * widths(None)  # the lone large weight is clipped where it hardly counts
