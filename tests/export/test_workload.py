"""Workloads: as long as the rows they stand in for, the same way through a cascade, and nothing that few rows said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetune.export.workload import Chain, picture_workload, prompt_workload, text_workload
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor
from edgetune.serve.workload import Workload

GOLDEN = Path(__file__).parent.parent / "golden" / "bundle-v1"
COMMON = ["where is my parcel", "my card is late", "please reset my password today", "i still have money on my card"]


@pytest.fixture(scope="module")
def predictor():
    return Predictor(Bundle.open(GOLDEN))


def lengths(predictor, workload: Workload) -> list[int]:
    return [row.size for row in predictor.encode([row.input for row in workload.rows])]


def test_texts_are_drawn_to_the_lengths_of_the_data_and_say_nothing_that_few_rows_said(predictor):
    secret = "walter rang about parcel"
    counted = COMMON * 20 + [secret] * 4
    inputs = [*COMMON * 10, secret, "my card " * 20]
    drawn = text_workload(predictor, inputs, counted, 0, drawn=True)
    as_they_are = text_workload(predictor, inputs, counted, 0, drawn=False)
    assert len(drawn.rows) == len(as_they_are.rows) == len(inputs)
    assert lengths(predictor, drawn) == [row.tokens for row in drawn.rows]
    pairs = zip(drawn.rows, as_they_are.rows, strict=True)
    assert all(abs(mine.tokens - theirs.tokens) <= 2 for mine, theirs in pairs)
    assert {text for row in as_they_are.rows for text in row.texts} == set(inputs)
    assert not any("walter" in text or "rang" in text for row in drawn.rows for text in row.texts)
    assert "drawn from words" in drawn.remark
    assert "as they are" in as_they_are.remark
    assert text_workload(predictor, inputs, counted, 0, drawn=True) == drawn


def test_few_rows_are_stood_in_for_by_a_sentence_of_ours(predictor):
    drawn = text_workload(predictor, ["walter rang", "walter rang twice"], ["walter rang"], 0, drawn=True)
    assert all("walter" not in text and text for row in drawn.rows for text in row.texts)


def test_a_cascade_goes_the_same_way(cascade_bundle):
    predictor = Predictor(Bundle.open(cascade_bundle))
    inputs = [*COMMON * 10]
    drawn = text_workload(predictor, inputs, inputs, 0, drawn=True)
    as_they_are = text_workload(predictor, inputs, inputs, 0, drawn=False)

    def left(workload: Workload) -> int:
        return len(predictor.small.answer(predictor.encode([row.input for row in workload.rows])).left)

    assert left(drawn) == left(as_they_are)


def test_pairs_have_both_texts_and_the_whole_stays_small(kind_bundle):
    predictor = Predictor(Bundle.open(kind_bundle("number", "text-pair")))
    pairs = [(first, second) for first in COMMON for second in COMMON]
    drawn = text_workload(predictor, pairs * 20, pairs, 0, drawn=True)
    assert len(drawn.rows) == 256
    assert all(len(row.texts) == 2 and all(row.texts) for row in drawn.rows)


def test_a_chain_begins_anew_where_nothing_follows():
    chain = Chain.of([[1, 2]] * 5, [9], 0)
    assert set(chain.draw(50)) == {1, 2}
    assert Chain.of([[1, 2]] * 4, [9], 0).draw(3) == [9, 9, 9]


def test_pictures_keep_size_and_format_and_prompts_their_lengths(tmp_path):
    from PIL import Image

    for number, kind in enumerate(("PNG", "JPEG")):
        Image.new("RGB", (40 + number, 30)).save(tmp_path / f"{number}.{kind.lower()}", format=kind)
    workload = picture_workload([str(path) for path in sorted(tmp_path.iterdir())], 0)
    assert {(size.width, size.height, size.format) for size in workload.pictures} == {(40, 30, "PNG"), (41, 30, "JPEG")}
    assert sorted(row.tokens for row in prompt_workload(np.arange(5), 0).rows) == [0, 1, 2, 3, 4]
