"""Tokens guessed from the text itself: what followed the last few tokens where they stood before.

Prompt-lookup decoding (Saxena 2023; `prompt_lookup_num_tokens` of transformers): answers that quote their prompt, or
themselves, are guessed by an index of n-grams, and one run of the graph over the guesses tells how many were right. The
tokens are chosen from the graph's logits as ever, so that a wrong guess costs time and changes nothing. Must import
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

# So many last tokens must have stood together before: fewer guess more often and more often wrongly.
NGRAM_TOKENS = 3
# Guesses of a run: at first, and at most after runs in which all were right.
FIRST_GUESSES, MOST_GUESSES = 4, 12
# Steps without guesses after a run in which none was right; twice as many after the next one.
FIRST_PAUSE, LONGEST_PAUSE = 2, 32


class Lookup:
    """The n-grams of one text and how well guessing from them goes.

    Attributes:
        guessed: tokens that were run ahead.
        right: those of them that the answer then had.
    """

    def __init__(self, tokens: Iterable[int]) -> None:
        self.guessed = self.right = 0
        self._tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}
        self._length, self._pause, self._waiting = FIRST_GUESSES, FIRST_PAUSE, 0
        self.push(tokens)

    @property
    def tokens(self) -> int:
        """Tokens of the text so far."""
        return len(self._tokens)

    def push(self, tokens: Iterable[int]) -> None:
        """Add tokens to the text."""
        for token in tokens:
            if len(self._tokens) >= NGRAM_TOKENS:
                self._behind[tuple(self._tokens[-NGRAM_TOKENS:])] = len(self._tokens)
            self._tokens.append(token)

    def guesses(self, most: int) -> list[int]:
        """The tokens that may come next, at most `most`; none where the last ones stood nowhere before.

        Behind the end of the text it begins anew, as a text that repeats itself does.
        """
        if self._waiting:
            self._waiting -= 1
            return []
        place = self._behind.get(tuple(self._tokens[-NGRAM_TOKENS:]))
        if place is None:
            return []
        period = len(self._tokens) - place
        return [self._tokens[place + ahead % period] for ahead in range(min(most, self._length))]

    def judge(self, guessed: int, right: int) -> None:
        """Learn how many of a run's guesses were right: guess further ahead, or pause."""
        self.guessed += guessed
        self.right += right
        if right == 0:
            self._waiting, self._pause = self._pause, min(LONGEST_PAUSE, 2 * self._pause)
            self._length = FIRST_GUESSES
        else:
            self._pause = FIRST_PAUSE
            self._length = min(MOST_GUESSES, 2 * self._length) if right == guessed else max(2, right)
