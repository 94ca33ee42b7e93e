"""Token ids of short texts from those of their words, remembered: a sixth of the time that a tokenizer takes.

Where a tokenizer splits at every blank and looks at nothing beyond it, the ids of a text are those of its words, one
behind the other. Words are encoded by the tokenizer itself, each once, so that there is no second implementation of
it. Must not import numpy.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, normalizers, pre_tokenizers

from edgetune.serve.errors import RunError
from edgetune.serve.tokenizing import TokenizerCall

# The first so many words that are met are remembered, among them those that every other text has: about 2 MB.
MOST_WORDS, LONGEST_WORD = 8_192, 32
# A longer text is likely to be truncated, and a tokenizer takes milliseconds for it.
LONGEST_TEXT = 1_024
# So many words alone take the tokenizer no longer than a whole text.
MOST_UNKNOWN = 3

_SPLITTING = (pre_tokenizers.BertPreTokenizer, pre_tokenizers.Whitespace, pre_tokenizers.WhitespaceSplit)
_BY_CHARACTER = (normalizers.BertNormalizer, normalizers.Lowercase)


class WordCache:
    """What a tokenizer gives for words.

    Attributes:
        type_id: of every token.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int], behind: Sequence[int], type_id: int) -> None:
        self._tokenizer = tokenizer
        self._before, self._behind, self.type_id = list(before), list(behind), type_id
        self._ids: dict[str, tuple[int, ...]] = {"": ()}

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> WordCache | None:
        """A cache for a tokenizer; None for one of which it is not known that a blank is a border of all it does."""
        added = tokenizer.get_added_tokens_decoder().values()
        is_by_word = isinstance(tokenizer.pre_tokenizer, _SPLITTING) and (
            tokenizer.normalizer is None or isinstance(tokenizer.normalizer, _BY_CHARACTER)
        )
        if not is_by_word or any(" " in token.content for token in added):
            return None
        try:
            with TokenizerCall():
                sample = tokenizer.encode("a")
        except RunError:  # told with the first text
            return None
        ordinary = [place for place, is_special in enumerate(sample.special_tokens_mask) if not is_special]
        type_ids = set(sample.type_ids)
        if not ordinary or len(type_ids) != 1:
            return None
        before, behind = sample.ids[: ordinary[0]], sample.ids[ordinary[-1] + 1 :]
        return cls(tokenizer, before, behind, type_ids.pop())

    def encode(self, text: str, most_tokens: int) -> list[int] | None:
        """The ids of a text with its special tokens; None where the tokenizer has to be asked: of a text that is long,
        empty or truncated, or that has many words which cannot be remembered.

        Raises:
            What the tokenizer raises: see `TokenizerCall`.
        """
        if len(text) > LONGEST_TEXT:
            return None
        words, ids, known = text.split(" "), self._before.copy(), self._ids
        try:
            for word in words:
                ids += known[word]
        except KeyError:
            learnt = self._learn([word for word in words if word not in known])
            if learnt is None:
                return None
            ids = [*self._before, *(token for word in words for token in (learnt if word in learnt else known)[word])]
        ids += self._behind
        return ids if 0 < len(ids) <= most_tokens else None

    def _learn(self, words: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
        """The ids of new words, remembered while there is room; None where the tokenizer is faster on the text."""
        is_full = len(self._ids) + len(words) > MOST_WORDS
        if len(words) > MOST_UNKNOWN and (is_full or max(map(len, words)) > LONGEST_WORD):
            return None
        learnt: dict[str, tuple[int, ...]] = {}
        for word in words:
            encoding = self._tokenizer.encode(word, add_special_tokens=False)
            if encoding.overflowing:
                return None
            learnt[word] = tuple(encoding.ids)
            if not is_full and len(word) <= LONGEST_WORD:
                self._ids[word] = learnt[word]
        return learnt
