"""From inputs or ids to logits, for every route: the checks that all share, encoding, and the batcher.

Small requests are encoded on the event loop, since handing one to a thread costs more than its tokens do; large
ones in a thread, so that they delay nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import CONFIG_NAME
from edgetune.serve.cascade import Outputs
from edgetune.serve.codecs import Codec, Input, takes_files
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.drift import best_scores
from edgetune.serve.errors import BundleDamaged, Overloaded
from edgetune.serve.http.errors import invalid, unanswerable
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.predictor import Predictor
from edgetune.serve.stepwise.spec import Tokens

if TYPE_CHECKING:
    from edgetune.serve.http.feedback import Recorder
    from edgetune.serve.http.repository import Repository
    from edgetune.serve.http.served import Served

INLINE_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Answers:
    """Outputs of inputs, of each input whether only its beginning was read, and the tokens of all that were read."""

    outputs: Outputs
    truncated: list[bool]
    tokens: int = 0


@dataclass(frozen=True)
class IdRows:
    """What the graph takes, from a client that tokenizes by itself: each (rows, tokens) int64."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None


class _IdRanges(msgspec.Struct):
    """The sizes of a model's embedding tables, as its config.json tells them."""

    vocab_size: Tokens | None = None
    type_vocab_size: Tokens | None = None


class Answering:
    """Answers for the routes, from one repository."""

    def __init__(
        self, repository: Repository, settings: ServerSettings, metrics: Metrics, recorder: Recorder | None = None
    ) -> None:
        self.repository = repository
        self.settings = settings
        self.metrics = metrics
        self.recorder = recorder
        self._rows_waiting = 0
        self._ranges: weakref.WeakKeyDictionary[Predictor, _IdRanges] = weakref.WeakKeyDictionary()

    async def inputs(self, served: Served, inputs: Sequence[Input]) -> Answers:
        """Answer inputs, in order.

        Raises:
            Refused: 422; too many, or one with a text that is empty, or too long (where truncation is off).
            InputError: one that is not what the model takes.
            Overloaded: they do not fit into the queue.
        """
        codec = served.predictor.codec
        if takes_files(served.bundle.manifest.codec):
            _check_count(len(inputs), self.settings.max_texts, "pictures")
            characters = INLINE_CHARACTERS + 1  # a picture takes a millisecond and more, whatever its bytes
        else:
            characters = check_inputs(inputs, codec, self.settings.max_texts)
        begun = time.perf_counter()
        if characters <= INLINE_CHARACTERS:
            encoded = codec.encode(inputs)
        else:
            loop = asyncio.get_running_loop()
            encoded = await loop.run_in_executor(served.classifier.threads, codec.encode_beginnings, inputs)
        self.metrics.observe_stage(served.name, "tokenize", time.perf_counter() - begun)
        truncated = [row.truncated for row in encoded]
        if not self.settings.truncate and any(truncated):
            most = served.predictor.bundle.manifest.max_tokens
            raise unanswerable(
                f"Text {truncated.index(True)} is longer than {most} tokens.",
                expected=f"at most {most} tokens a text",
                action="shorten it, or start the server so that it truncates",
            )
        outputs = await served.predictor.outputs_async(encoded, served.batcher.logits)
        if served.classifier.drift is not None:
            served.classifier.drift.observe(encoded, best_scores(served.predictor.head, outputs.logits))
        return Answers(outputs, truncated, sum(row.size for row in encoded))

    async def ids(self, served: Served, rows: IdRows) -> Answers:
        """Answer rows of ids.

        Raises:
            Refused: 400 or 422; the graph cannot take them.
            Overloaded: they do not fit into the queue.
        """
        self._check_rows(served, rows)
        lengths = rows.attention_mask.sum(axis=1)
        width = rows.input_ids.shape[1]
        truncated = [False] * len(lengths)
        if ((np.arange(width) < lengths[:, None]) != rows.attention_mask).any():
            by = [served.predictor.variant] * len(lengths) if served.predictor.small is not None else None
            return Answers(Outputs(await self._alone(served, rows), by), truncated)
        types = rows.token_type_ids if rows.token_type_ids is not None else np.zeros_like(rows.input_ids)
        encoded = [
            EncodedText(ids[:length].tolist(), kinds[:length].tolist(), False)
            for ids, kinds, length in zip(rows.input_ids, types, lengths.tolist(), strict=True)
        ]
        return Answers(await served.predictor.outputs_async(encoded, served.batcher.logits), truncated)

    async def _alone(self, served: Served, rows: IdRows) -> NDArray[np.float32]:
        """Rows masked elsewhere than at their end, which the batcher's padding cannot express: a run of the graph."""
        count = len(rows.input_ids)
        if self._rows_waiting + count > self.settings.max_waiting:
            raise Overloaded(f"{self._rows_waiting} rows are waiting already.", action="ask again a little later")
        self._rows_waiting += count
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                served.classifier.lone_thread, _run, served.predictor, rows, self.settings.max_batch
            )
        finally:
            self._rows_waiting -= count

    def _check_rows(self, served: Served, rows: IdRows) -> None:
        count, width = rows.input_ids.shape
        _check_count(count, self.settings.max_texts, "rows")
        manifest = served.predictor.bundle.manifest
        if width > manifest.max_tokens:
            raise unanswerable(
                f"The rows have {width} tokens.", expected=f"at most {manifest.max_tokens}, padding included"
            )
        ranges = self._ranges_of(served.predictor)
        if ranges.vocab_size is None:
            raise invalid("This bundle does not tell the size of its vocabulary.", action="send text instead of ids")
        _check_range(rows.input_ids, ranges.vocab_size, "input_ids")
        _check_range(rows.attention_mask, 2, "attention_mask")
        takes_types = any(spec.name == "token_type_ids" for spec in manifest.inputs)
        if rows.token_type_ids is None and takes_types and len(served.predictor.codec.parts) > 1:
            raise invalid("token_type_ids is missing.", expected="the type ids, which tell the texts of a row apart")
        if rows.token_type_ids is not None:
            if not takes_types:
                raise invalid("This model takes no token_type_ids.", action="leave them out")
            _check_range(rows.token_type_ids, ranges.type_vocab_size or 1, "token_type_ids")
        empty = np.flatnonzero(rows.attention_mask.sum(axis=1) == 0)
        if empty.size:
            raise unanswerable(f"Row {empty[0]} has no token: its attention_mask is all zeros.")

    def _ranges_of(self, predictor: Predictor) -> _IdRanges:
        ranges = self._ranges.get(predictor)
        if ranges is None:
            ranges = _IdRanges()
            with contextlib.suppress(BundleDamaged):
                ranges = predictor.bundle.read(CONFIG_NAME, _IdRanges)
            self._ranges[predictor] = ranges
        return ranges


def check_inputs(inputs: Sequence[Input], codec: Codec, most: int) -> int:
    """Refuse inputs that no model can answer, naming the first; the characters of all their texts.

    Raises:
        Refused: 422.
        InputError: one is not what the codec takes.
    """
    _check_count(len(inputs), most, "texts")
    texts, parts, characters = codec.texts(inputs), codec.parts, 0
    for place, text in enumerate(texts):
        if not text or text.isspace():
            raise unanswerable(f"{_named(place, parts)} is empty.", expected="at least one character that is no space")
        if "\0" in text:
            raise unanswerable(
                f"{_named(place, parts)} holds a NUL character.",
                action="decode it as what it is (UTF-16?), or take the NULs out",
            )
        characters += len(text)
    return characters


def _named(place: int, parts: Sequence[str]) -> str:
    """A text by its input's number, and by its part where an input has several."""
    index, part = divmod(place, len(parts))
    return f"Text {index}" if len(parts) == 1 else f"The {parts[part]} of input {index}"


def _check_count(count: int, most: int, noun: str) -> None:
    if not count:
        raise unanswerable(f"There are no {noun}.", expected="at least one")
    if count > most:
        raise unanswerable(f"There are {count:,} {noun}.", expected=f"at most {most:,}", action="send several requests")


def _check_range(values: NDArray[np.int64], size: int, name: str) -> None:
    outside = np.argwhere((values < 0) | (values >= size))
    if outside.size:
        row, column = outside[0].tolist()
        raise invalid(f"{name} holds {values[row, column]} in row {row}, column {column}.", expected=f"0 to {size - 1}")


def _run(predictor: Predictor, rows: IdRows, max_batch: int) -> NDArray[np.float32]:
    feeds = {"input_ids": rows.input_ids, "attention_mask": rows.attention_mask}
    names = {spec.name for spec in predictor.bundle.manifest.inputs}
    if "token_type_ids" in names:
        given = rows.token_type_ids
        feeds["token_type_ids"] = given if given is not None else np.zeros_like(rows.input_ids)
    starts = range(0, len(rows.input_ids), max_batch)
    return np.concatenate(
        [predictor.run({name: feed[start : start + max_batch] for name, feed in feeds.items()}) for start in starts]
    )
