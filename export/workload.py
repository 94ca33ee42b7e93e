"""Drawing a bundle's workload: inputs as long as the data's, which say nothing that only a few rows said.

A text is a chain of tokens: each follows the one before it in `SHARED_ROWS` rows or more, so that no word, name or
number and no two neighbours that fewer rows share get into the bundle. Of the rows that are stood in for, a drawn text
has the length, and where a cascade answers its small model answers it too if it answered the row.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import numpy as np
from tokenizers import Tokenizer

from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.codecs.picture_file import open_picture
from edgetune.serve.codecs.picture_spec import MOST_PIXELS
from edgetune.serve.codecs.text import SAMPLE
from edgetune.serve.drift import Figure, Reference, best_scores, figures_of
from edgetune.serve.predictor import Predictor
from edgetune.serve.tokenizing import read_tokenizer
from edgetune.serve.workload import PictureFormat, PictureSize, Workload, WorkloadRow
from edgetune.tune.data.pictures import name_of, source_of
from edgetune.tune.data.rows import Input

ROWS, PICTURES = 256, 64
# Of the test part, for the distributions that a server holds its inputs against.
DRIFT_ROWS = 1_000
# Tokens of all rows together: about 250 kB of text.
MOST_TOKENS = 50_000
# Rows that tokens and their neighbours are counted on, and in how many a token has to follow another to be drawn.
COUNTED_ROWS, SHARED_ROWS = 5_000, 5
TRIES = 40
_START = -1

T = TypeVar("T")

DRAWN = "inputs as long as {n:,} of the data's, drawn from words that many of its rows share"
AS_THEY_ARE = "{n:,} inputs of the data's test part, as they are (benchmark.workload: texts)"
SIZES = "pictures as large as {n:,} of the data's, made of the golden ones"
PROMPTS = "prompts as long as {n:,} of the data's"


def picture_workload(inputs: Sequence[Input], seed: int) -> Workload:
    """Sizes and formats of a random few of a data set's pictures."""
    sizes = []
    for value in _some(inputs, PICTURES, seed):
        picture = open_picture(source_of(str(value)), name_of(str(value)), MOST_PIXELS)
        sizes.append(PictureSize(*picture.size, msgspec.convert(picture.format, PictureFormat)))
    return Workload(SIZES.format(n=len(sizes)), pictures=sizes)


def prompt_workload(tokens: Sequence[int], seed: int) -> Workload:
    """Token counts of a random few of a language model's prompts."""
    rows = [WorkloadRow(int(count)) for count in _some(tokens, ROWS, seed)]
    return Workload(PROMPTS.format(n=len(rows)), rows)


def text_workload(
    predictor: Predictor, inputs: Sequence[Input], counted: Sequence[Input], seed: int, *, drawn: bool
) -> Workload:
    """Texts for a bundle.

    Args:
        predictor: of the bundle's draft.
        inputs: a data set's test part, of which a random few are stood in for.
        counted: its training part, in which tokens and their neighbours are counted.
        seed: of all that is drawn.
        drawn: whether texts are drawn; False takes them as they are.
    """
    rows = [_parts(value) for value in _some(inputs, ROWS, seed)]
    sizes = [row.size for row in predictor.encode([_as_input(parts) for parts in rows])]
    count = max(1, int(np.searchsorted(np.cumsum(sizes), MOST_TOKENS)))
    rows = rows[:count]
    drift = drift_reference(predictor, _some(inputs, DRIFT_ROWS, seed))
    if not drawn:
        return Workload(
            AS_THEY_ARE.format(n=len(rows)),
            [WorkloadRow(size, list(parts)) for size, parts in zip(sizes, rows, strict=False)],
            drift=drift,
        )
    tokenizer = read_tokenizer(predictor.bundle.folder / TOKENIZER_NAME)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    texts = [part for value in _some(counted, COUNTED_ROWS, seed) for part in _parts(value)]
    chain = Chain.of(_ids(tokenizer, texts), _ids(tokenizer, [SAMPLE])[0], seed)
    draw = _Draw(predictor, tokenizer, chain)
    return Workload(DRAWN.format(n=len(rows)), [draw.like(parts) for parts in rows], drift=drift)


def drift_reference(predictor: Predictor, inputs: Sequence[Input]) -> Reference:
    """How scores, lengths and unknown tokens of inputs are distributed: what a server holds its inputs against."""
    rows = predictor.encode([_as_input(_parts(value)) for value in inputs])
    unknown = unknown_id(read_tokenizer(predictor.bundle.folder / TOKENIZER_NAME))
    scores = best_scores(predictor.head, predictor.logits(rows))
    figures = figures_of(rows, unknown, scores)
    return Reference({name: Figure.of(values) for name, values in figures.items()}, unknown)


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token that stands for what the vocabulary does not have; None where every byte has one."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    place = model.get("unk_id")
    if place is not None:
        return int(place)
    token = model.get("unk_token")
    return None if token is None else tokenizer.token_to_id(token)


@dataclass
class Chain:
    """Tokens by the one before them, each as often as it followed it in rows; `_START` stands before a text.

    Attributes:
        followers: of each token, those that followed it in `SHARED_ROWS` rows or more, with how many rows.
        random: what draws.
    """

    followers: dict[int, tuple[list[int], list[float]]]
    random: np.random.Generator

    @classmethod
    def of(cls, rows: Iterable[Sequence[int]], stand_in: Sequence[int], seed: int) -> Chain:
        """Count pairs of neighbours, each once a row; without any that are shared, `stand_in` is what there is."""
        counts: dict[int, Counter[int]] = {}
        for ids in rows:
            for before, token in {*itertools.pairwise([_START, *ids]), *((_START, token) for token in ids)}:
                counts.setdefault(before, Counter())[token] += 1
        followers = {before: _shares(counter) for before, counter in counts.items()}
        shared = {before: pair for before, pair in followers.items() if pair[0]}
        if _START not in shared:
            shared = {_START: _shares(Counter(stand_in), least=1)}
        return cls(shared, np.random.default_rng(seed))

    def draw(self, tokens: int) -> list[int]:
        """So many ids; where nothing follows a token often enough, the text begins anew."""
        ids: list[int] = []
        before = _START
        while len(ids) < tokens:
            names, shares = self.followers.get(before) or self.followers[_START]
            before = int(self.random.choice(names, p=shares))
            ids.append(before)
        return ids


def _shares(counter: Counter[int], least: int = SHARED_ROWS) -> tuple[list[int], list[float]]:
    common = [(token, rows) for token, rows in sorted(counter.items()) if rows >= least]
    total = sum(rows for _, rows in common)
    return [token for token, _ in common], [rows / total for _, rows in common]


@dataclass(frozen=True)
class _Draw:
    """Draws texts like rows, through the tokenizer and the small model that answer them."""

    predictor: Predictor
    tokenizer: Tokenizer
    chain: Chain

    def like(self, parts: tuple[str, ...]) -> WorkloadRow:
        """A row as long as this one, that goes the same way where there is a cascade; the nearest of `TRIES`."""
        lengths = [len(ids) for ids in _ids(self.tokenizer, parts)]
        ask = [max(1, length) for length in lengths]
        route = self._route(parts)
        best: tuple[tuple[int, int], tuple[str, ...]] | None = None
        for _ in range(TRIES):
            texts = tuple(self._text(count) for count in ask)
            given = [len(ids) for ids in _ids(self.tokenizer, texts)]
            off = sum(abs(mine - theirs) for mine, theirs in zip(given, lengths, strict=True))
            rank = (int(self._route(texts) != route), off)
            if best is None or rank < best[0]:
                best = (rank, texts)
            if rank[0] == 0 and off <= sum(lengths) // 20:
                break
            # Pieces that are put together may be read as fewer tokens, or as more.
            ask = [max(1, count + length - seen) for count, length, seen in zip(ask, lengths, given, strict=True)]
        assert best is not None
        (row,) = self.predictor.encode([_as_input(best[1])])
        return WorkloadRow(len(row.all_ids), list(best[1]))

    def _text(self, tokens: int) -> str:
        text = str(self.tokenizer.decode(self.chain.draw(tokens), skip_special_tokens=True)).strip()
        return text or SAMPLE.split()[0]

    def _route(self, parts: tuple[str, ...]) -> bool:
        """Whether a cascade's small model answers; of anything else False."""
        small = self.predictor.small
        return small is not None and not small.answer(self.predictor.encode([_as_input(parts)])).left


def _ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _parts(value: Input) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _as_input(parts: tuple[str, ...]) -> Input:
    return parts[0] if len(parts) == 1 else parts


def _some(values: Sequence[T], most: int, seed: int) -> list[T]:
    chosen = np.random.default_rng(seed).permutation(len(values))[:most]
    return [values[place] for place in chosen]
