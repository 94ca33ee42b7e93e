"""Answers that take their steps together: one run of the graph gives each of them its next token.

The batch and the scheduler share it. It imports the decoder for its type only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import InputError
from edgetune.serve.stepwise.answer import Answer, TokenPiece
from edgetune.serve.stepwise.cache import Cache, beginning, gather, shortened, without_room
from edgetune.serve.stepwise.lookup import Lookup
from edgetune.serve.stepwise.prefixes import LEAST_TOKENS, Prefixes, common_tokens

if TYPE_CHECKING:
    from edgetune.serve.stepwise.decoder import Decoder


class Group:
    """Answers under way and their common cache.

    Attributes:
        answers: in the order of the cache's rows; each has its first token.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.answers: list[Answer] = []
        self._decoder = decoder
        self._cache: Cache | None = None
        # Guessed tokens that have run already, each with the logits behind it, and how many were right until now.
        self._ahead: list[tuple[int, NDArray[np.float32]]] = []
        self._guessed = self._right = 0

    def change(self, leaving: Sequence[Answer] = (), joining: Sequence[tuple[Answer, Cache]] = ()) -> None:
        """Let answers go, and others in with the caches of their prompts (one row each); one copy for all of them."""
        self._take_back()
        gone = {id(answer) for answer in leaving}
        rows = [row for row, answer in enumerate(self.answers) if id(answer) not in gone]
        parts = [(self._cache, rows)] if self._cache is not None and rows else []
        parts += [(cache, [0]) for _, cache in joining]
        self.answers = [self.answers[row] for row in rows] + [answer for answer, _ in joining]
        self._cache = gather(self._decoder.store, parts) if parts else None

    def start(self, answers: Sequence[Answer], cache: Cache) -> None:
        """Begin with answers whose prompts were run together."""
        self.answers, self._cache = list(answers), cache

    def step(self) -> NDArray[np.float32]:
        """Run the last token of each answer: logits (answers, vocabulary) float32, for `Answer.take`.

        A token of a single answer that was guessed has run already, and so have those behind it.
        """
        if self._cache is None:
            raise ValueError("a group without answers has no step")
        if self._decoder.lookup and len(self.answers) == 1:
            return self._step_ahead(self.answers[0], self._cache)
        ids = np.array([[answer.token_ids[-1]] for answer in self.answers], dtype=np.int64)
        logits, self._cache = self._decoder.run(ids, self._cache)
        return logits

    def _step_ahead(self, answer: Answer, cache: Cache) -> NDArray[np.float32]:
        token, lookup = answer.token_ids[-1], answer.lookup
        if lookup is None:
            lookup = answer.lookup = Lookup(answer.prompt)
        # All that are new: some may have come while others shared the steps.
        lookup.push(answer.token_ids[lookup.tokens - len(answer.prompt) :])
        if self._ahead and self._ahead[0][0] == token:
            self._right += 1
            return self._ahead.pop(0)[1]
        self._take_back()
        cache = self._cache or cache
        guesses = lookup.guesses(answer.left - 1)
        ids = np.array([[token, *guesses]], dtype=np.int64)
        if not guesses:
            logits, self._cache = self._decoder.run(ids, cache)
            return logits
        logits, self._cache = self._decoder.run_ahead(ids, cache)
        self._ahead = [(guess, logits[place : place + 1]) for place, guess in enumerate(guesses, 1)]
        self._guessed = len(guesses)
        return logits[:1]

    def _take_back(self) -> None:
        """Forget the guesses that have run and were wrong, or that nobody waits for any more."""
        if self._guessed and (lookup := self.answers[0].lookup) is not None:
            lookup.judge(self._guessed, self._right)
        if self._ahead and self._cache is not None:
            self._cache = shortened(self._cache, self._cache.columns - len(self._ahead))
        self._ahead, self._guessed, self._right = [], 0, 0

    def apart(self) -> list[Group]:
        """The same answers, each in a group of its own."""
        self._take_back()
        groups = []
        for row, answer in enumerate(self.answers):
            if self._cache is not None:
                groups.append(Group(self._decoder))
                groups[-1].start([answer], gather(self._decoder.store, [(self._cache, [row])]))
        return groups

    @property
    def cache(self) -> Cache | None:
        """The cache of all answers; None where there are none."""
        self._take_back()
        return self._cache


def answer_together(
    decoder: Decoder, answers: Sequence[Answer], *, batch_size: int, prefixes: Prefixes | None = None
) -> Iterator[tuple[int, TokenPiece]]:
    """Work answers off in groups of like length: the number of an answer with each piece of it.

    Args:
        decoder: the graph; one whose batch is fixed takes one answer at a time.
        answers: not begun.
        batch_size: answers in a group.
        prefixes: beginnings of prompts that have been computed before.

    Raises:
        InputError: a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"The batch size is {batch_size}.", expected="1 or more prompts a batch")
    size = 1 if decoder.spec.batch_one else batch_size
    order = sorted(range(len(answers)), key=lambda number: len(answers[number].prompt))
    for start in range(0, len(order), size):
        numbers = {id(answers[number]): number for number in order[start : start + size]}
        group = Group(decoder)
        taken = [answers[number] for number in order[start : start + size]]
        logits, cache = begin(decoder, taken, prefixes)
        group.start(taken, cache)
        while True:
            for answer, row in zip(group.answers, logits, strict=True):
                if (piece := answer.take(row)) is not None:
                    yield numbers[id(answer)], piece
            if finished := [answer for answer in group.answers if answer.finish]:
                group.change(leaving=finished)
            if not group.answers:
                break
            logits = group.step()


def begin(decoder: Decoder, answers: Sequence[Answer], prefixes: Prefixes | None) -> tuple[NDArray[np.float32], Cache]:
    """Run the prompts of answers together, behind what is known of their common beginning; as `Decoder.prefill`."""
    prompts = [answer.prompt for answer in answers]
    if any(answer.echoes for answer in answers):
        runs = [read_token_by_token(decoder, answer, _start(decoder, [answer])) for answer in answers]
        return np.concatenate([logits for logits, _ in runs]), gather(
            decoder.store, [(cache, [0]) for _, cache in runs]
        )
    if prefixes is None:
        return decoder.prefill(prompts, _start(decoder, answers))
    keys = [sequence_ids(decoder, answer) for answer in answers]
    tokens, cache = known_beginning(decoder, answers[0], prefixes, _common(keys), rows=len(prompts))
    if cache is not None:
        for answer in answers:
            answer.cached_tokens = tokens
    logits, cache = decoder.prefill([prompt[tokens:] for prompt in prompts], cache or _start(decoder, answers))
    if len(prompts) == 1:
        prefixes.keep(keys[0], without_room(decoder.store, cache))
    return logits, cache


def sequence_ids(decoder: Decoder, answer: Answer) -> tuple[int, ...]:
    """The ids of a prompt behind those of the virtual tokens that it starts from: one for each column of its cache."""
    return (*decoder.first.virtual_ids(answer.adapter), *answer.prompt)


def known_beginning(
    decoder: Decoder, answer: Answer, prefixes: Prefixes, ids: tuple[int, ...], *, rows: int = 1
) -> tuple[int, Cache | None]:
    """What is known of the beginning of a sequence's ids: how many tokens of its prompt, and their cache for `rows`."""
    virtual = len(decoder.first.virtual_ids(answer.adapter))
    tokens, known = prefixes.find(ids)
    if known is None or tokens - virtual < LEAST_TOKENS:
        return 0, None
    cache = beginning(decoder.store, known, tokens, rows=rows)
    return (0, None) if cache is None else (tokens - virtual, cache)


def _start(decoder: Decoder, answers: Sequence[Answer]) -> Cache:
    """What the sequences of answers start from, of unlike adapters too."""
    coming = max(len(answer.prompt) for answer in answers)
    adapters = [answer.adapter for answer in answers]
    if len(set(adapters)) == 1:
        return decoder.start(len(answers), coming=coming, adapter=adapters[0])
    return gather(decoder.store, [(decoder.start(1, adapter=adapter), [0]) for adapter in adapters])


def read_token_by_token(
    decoder: Decoder, answer: Answer, cache: Cache, *, start: int = 0, most: int | None = None
) -> tuple[NDArray[np.float32], Cache]:
    """Run tokens of a prompt one by one, whose log-probabilities are wanted: the graph gives the last logits alone.

    Args:
        decoder: the graph.
        answer: whose prompt it is, and which keeps the log-probabilities.
        cache: of the tokens before.
        start: the first token to run.
        most: how many; None runs all.

    Returns:
        logits (1, vocabulary) float32 behind the last one, and the cache with them.
    """
    prompt = answer.prompt
    if start == 0:
        answer.note_prompt(prompt[0], None)
    stop = len(prompt) if most is None else min(len(prompt), start + most)
    logits = np.empty((1, 0), dtype=np.float32)
    for place in range(start, stop):
        logits, cache = decoder.run(np.array([[prompt[place]]], dtype=np.int64), cache)
        if place + 1 < len(prompt):
            answer.note_prompt(prompt[place + 1], logits[0])
    return logits.copy(), cache


def _common(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all sequences begin with, their last tokens left out: these must run, for the logits behind them."""
    common = sequences[0][: min(map(len, sequences)) - 1]
    for sequence in sequences[1:]:
        common = common[: common_tokens(common, sequence)]
    return common
