"""Which n-grams are counted, by the script of the texts."""

from __future__ import annotations

import pytest

from edgetune.tune.ngrams.blocks import LONG_TEXT, SPACED, WORDS, Block, choose_blocks

CHINESE, THAI = Block("char", 1, 2), Block("char", 2, 5)


@pytest.mark.parametrize(
    ("texts", "blocks"),
    [
        (["my card has not arrived", "où est ma carte"], SPACED),
        (["где моя карта", "카드가 어디에 있나요"], SPACED),  # Korean has blanks between words
        (["my card 卡 has not arrived yet, where is it"], SPACED),
        (["送餐很快，味道好", "太慢了"], (CHINESE,)),
        (["カードが届きません", "どうすればいいですか"], (CHINESE,)),
        (["บัตรของฉันยังไม่มาถึง"], (THAI,)),
        (["手机 iPhone 14 Pro 屏幕坏了", "Galaxy 电池不行"], (WORDS, CHINESE)),
        (["a good film " * (LONG_TEXT // 10)], (WORDS,)),
        (["", "123 !?"], SPACED),
        ([], SPACED),
    ],
)
def test_blocks_suit_the_script(texts, blocks):
    assert choose_blocks(texts) == blocks


def test_blocks_are_described_in_words():
    assert [block.described for block in SPACED] == ["words 1-2", "characters within words 2-5"]
