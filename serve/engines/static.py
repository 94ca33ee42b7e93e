"""A static model: rows of tokens and of neighbouring pairs, summed, and a linear head. numpy alone, no graph.

One short text takes five microseconds, so look-ups are those of Python's own lists and dicts, and the rows of a text
meet in one product; a batch is its texts one by one, which takes no longer than joining them would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.engines.spec import EngineSpec
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.engines.tensors import read_tensors
from edgetune.serve.errors import BundleDamaged, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetune.serve.codecs.text import EncodedText

# The tensors by name in the manifest. Without `head` the rows are as wide as the outputs, and their sum is the product.
_DTYPES = {
    "rows": "int8",
    "scales": "float32",
    "token_rows": "int32",
    "pair_keys": "int64",
    "pair_rows": "int32",
    "head": "float32",
    "bias": "float32",
}


class StaticEngine:
    """Answers with `StaticTables`, whose text has the formula."""

    def __init__(self, spec: EngineSpec, folder: Path, width: int) -> None:
        """Read the tables.

        Raises:
            BundleDamaged: as `open_engine` says.
        """
        tables = read_tables(spec, folder)
        if len(tables.bias) != width:
            raise _damaged(spec, folder, f"they give {len(tables.bias)} outputs, the head takes {width}")
        self._prepare(tables)

    @classmethod
    def of(cls, tables: StaticTables) -> StaticEngine:
        """An engine on tables in memory."""
        engine = cls.__new__(cls)
        engine._prepare(tables)
        return engine

    def _prepare(self, tables: StaticTables) -> None:
        self._rows, self._scales, self._bias = tables.rows, tables.scales, tables.bias
        self._head = None if is_identity(tables.head) else tables.head
        self._tokens: list[int] = tables.token_rows.tolist()
        self._pairs: dict[int, int] = dict(zip(tables.pair_keys.tolist(), tables.pair_rows.tolist(), strict=True))

    def logits(self, rows: Sequence[EncodedText]) -> NDArray[np.float32]:
        """Outputs of encoded inputs: (rows, width) float32.

        Raises:
            RunError: an id is none of the vocabulary's.
        """
        if len(rows) == 1:
            return self._outputs(rows[0].ids)[None]
        return np.stack([self._outputs(row.ids) for row in rows])

    def known_tokens(self, row: EncodedText) -> int:
        """How many tokens of an input have a row."""
        tokens = self._tokens
        return sum([1 for token in row.ids if tokens[token]])

    def contributions(self, row: EncodedText) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What each token adds to the outputs, (tokens, width) float32, and each pair of neighbours, one row less.

        Both and the bias sum to the outputs.
        """
        tokens = [self._tokens[token] for token in row.ids]
        pairs = [self._pairs.get(first << 32 | second, 0) for first, second in pairwise(row.ids)]
        count = max(sum(map(bool, tokens)) + sum(map(bool, pairs)), 1)
        return self._added(tokens, count), self._added(pairs, count)

    def _added(self, places: Sequence[int], count: int) -> NDArray[np.float32]:
        index = np.array(places, dtype=np.int64)
        rows = self._rows[index] * (self._scales[index] * np.float32(count**-0.5))[:, None]
        return np.asarray(rows if self._head is None else rows @ self._head, dtype=np.float32)

    def run(self, feed: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """The same of input_ids and attention_mask, each (rows, tokens) int64; what is masked is not there.

        Raises:
            RunError: an id is none of the vocabulary's.
        """
        rows = zip(feed["input_ids"], feed["attention_mask"], strict=True)
        return np.stack([self._outputs(ids[mask != 0].tolist()) for ids, mask in rows])

    def _outputs(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """(width,) float32."""
        tokens, pair = self._tokens, self._pairs.get
        try:
            places = [place for token in ids if (place := tokens[token])]
        except IndexError:
            raise RunError(
                f"An input has the token {max(ids)}.",
                expected=f"0 to {len(tokens) - 1}, the vocabulary of the static model",
                action="copy the bundle again from where it was built: its tokenizer is another one's",
            ) from None
        places += [place for first, second in pairwise(ids) if (place := pair(first << 32 | second, 0))]
        if not places:
            return self._bias.copy()
        index = np.array(places)
        # `take` and `dot` take half the time of brackets and @ here.
        total = self._scales.take(index).dot(self._rows.take(index, 0).astype(np.float32))
        total *= len(places) ** -0.5
        outputs: NDArray[np.float32] = (total if self._head is None else total.dot(self._head)) + self._bias
        return outputs


def read_tables(spec: EngineSpec, folder: Path) -> StaticTables:
    """The tables that a manifest places in a file of the bundle.

    Raises:
        BundleDamaged: they are not there, or do not fit each other.
    """
    named = {name: place.dtype for name, place in spec.tensors.items()}
    if {"head": _DTYPES["head"], **named} != _DTYPES:
        raise _damaged(spec, folder, f"it names {', '.join(f'{name} {dtype}' for name, dtype in named.items())}")
    tensors = read_tensors(folder / spec.file, spec.tensors)
    if "head" not in tensors:
        tensors["head"] = np.eye(len(tensors["bias"]), dtype=np.float32)
    tables = StaticTables(**tensors)
    if fault := _fault(tables):
        raise _damaged(spec, folder, fault)
    return tables


def is_identity(head: NDArray[np.float32]) -> bool:
    """Whether a head (width, outputs) changes nothing."""
    return head.shape[0] == head.shape[1] and np.array_equal(head, np.eye(len(head)))


def _fault(tables: StaticTables) -> str:
    """What does not fit in tables, as the end of a sentence; empty where all does."""
    dimensions = {name: getattr(tables, name).ndim for name in _DTYPES}
    if dimensions != {name: 2 if name in ("rows", "head") else 1 for name in _DTYPES}:
        return f"the tensors have the dimensions {dimensions}"
    count, width = tables.rows.shape
    if count == 0 or len(tables.scales) != count:
        return f"{count:,} rows have {len(tables.scales):,} scales"
    if tables.head.shape != (width, len(tables.bias)):
        return f"rows of {width} meet a head of {tables.head.shape} and a bias of {len(tables.bias)}"
    if len(tables.pair_keys) != len(tables.pair_rows):
        return f"{len(tables.pair_keys):,} pairs have {len(tables.pair_rows):,} rows"
    for name in ("token_rows", "pair_rows"):
        numbers = getattr(tables, name)
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < count):
            return f"{name} has {numbers.min()} to {numbers.max()}, there are {count:,} rows"
    return ""


def _damaged(spec: EngineSpec, folder: Path, fault: str) -> BundleDamaged:
    return BundleDamaged(
        f"The static model in {folder / spec.file} cannot be read: {fault}.",
        expected=f"{', '.join(f'{name} {dtype}' for name, dtype in _DTYPES.items())}, packed together",
        action="copy the bundle again from where it was built, or build it again",
    )
