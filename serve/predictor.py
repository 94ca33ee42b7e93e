"""A bundle that answers: inputs in, predictions out. Thread-safe; needs numpy and tokenizers, and ONNX Runtime only
where a graph answers.

It goes along into other processes: a forked child opens the graph again before its first run there, and a pickled
predictor is its folder and how it was opened.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from edgetune.serve.asked import asked_codec, asked_heads, check_asked, may_wait
from edgetune.serve.bundle import GOLDEN_NAME, Bundle
from edgetune.serve.cascade import Outputs, SmallModel
from edgetune.serve.codecs import Codec, Input, list_inputs, takes_files
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.engines import Engine, open_engine
from edgetune.serve.errors import EdgetuneError, InputError
from edgetune.serve.forks import watch_forks
from edgetune.serve.golden_cases import Golden
from edgetune.serve.heads import PER_TOKEN, TASKS_ON_TOKENS, Answer
from edgetune.serve.heads.tasks import open_heads
from edgetune.serve.identity import identity_of, same_bundle
from edgetune.serve.session import require_runtime
from edgetune.serve.token_outputs import as_tokens, assemble, windows_of, with_first_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetune.serve.batcher import Batcher
    from edgetune.serve.codecs.tokens import EncodedTokens
    from edgetune.serve.engines.graph import GraphEngine
    from edgetune.serve.explain import Explanation

T = TypeVar("T")

# Of the async forms: texts that may wait, all calls together; texts of one call that wait at once, the others behind
# them; and characters from which encoding is left to a thread, since it would hold the event loop for milliseconds.
WAITING_TEXTS = 16_384
CALL_TEXTS = 256
LONG_CHARACTERS = 20_000
# Texts that tables answer at once on the event loop: a millisecond or two. More of them are left to a thread.
INLINE_TEXTS = 64


class Asked(NamedTuple):
    """How a predictor was opened, as `load` takes it."""

    threads: int | None
    provider: str
    spinning: bool | None
    variant: str
    eager: bool
    abstain_below: float | None
    task: str


class Predictor:
    """Answers inputs (texts, or pairs of texts) with one bundle. Its methods may be called from any thread at any time.

    The async forms join concurrent calls into runs of up to 32 texts (batcher.py has how), which a loop of `predict`
    in threads does not. A predictor is a context manager; `close` ends its threads and frees the graph. It can be
    pickled, for Spark, multiprocessing and Ray: there it is opened again from its folder, which must hold the same
    bundle. In a forked child the graph is opened again too, with the child's first run.

    Where a cascade answers, the graph is opened for the first input that its small model leaves to it.

    Attributes:
        bundle: what is being answered with.
        codec: how inputs become rows of the graph.
        head: how the graph's outputs become answers.
        labels: the answers there are, in the order of the logits; none where answers are no labels.
        small: the small model of a cascade, which answers first; None where there is one model.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: str = "auto",
        spinning: bool | None = None,
        variant: str = "auto",
        eager: bool = False,
        abstain_below: float | None = None,
        task: str = "",
        codec: Callable[[], Codec] | None = None,
    ) -> None:
        """Open the graph; arguments as for `load`, and `codec` where it is already being opened elsewhere."""
        manifest = bundle.manifest
        self.bundle = bundle
        self.heads = asked_heads(bundle, task, abstain_below)  # as they are told
        self.head = open_heads(self.heads)
        self.labels = self.head.labels
        self._per_token = self.head.spec.kind in PER_TOKEN
        self._folder = bundle.folder.absolute()  # wherever the process goes
        self._asked = Asked(threads, provider, spinning, variant, eager, abstain_below, task)
        self._tables: Engine | None = None
        self._graph: GraphEngine | None = None
        self._batcher: Batcher | None = None
        self._lock, self._closed = threading.Lock(), False
        self.small = SmallModel(bundle, self.head.width) if manifest.cascade is not None else None
        if manifest.engine is not None:
            check_asked(manifest, threads, provider, variant)
            self._tables = open_engine(manifest.engine, bundle.folder, self.head.width)
        elif eager or self.small is None or not may_wait(manifest, threads, provider, variant):
            self._graph = self._open_graph(bundle)
        else:
            require_runtime()
        watch_forks(self)
        self.codec = codec() if codec else asked_codec(bundle, task)
        self._inputs = tuple(spec.name for spec in manifest.inputs)

    @property
    def graph(self) -> GraphEngine | None:
        """The graph that answers, opened now where a cascade has not needed it yet; None where tables answer.

        Raises:
            EdgetuneError: the predictor is closed.
            BundleDamaged: the folder holds another bundle by now, or as `load` says.
        """
        if self._graph is not None or self._tables is not None:
            return self._graph
        with self._lock:
            if self._closed:
                raise self._is_closed()
            if self._graph is None:
                self._graph = self._open_graph(same_bundle(self._folder, identity_of(self.bundle)))
            return self._graph

    def _open_graph(self, bundle: Bundle) -> GraphEngine:
        from edgetune.serve.engines.graph import GraphEngine

        threads, provider, spinning, variant, *_ = self._asked
        return GraphEngine(bundle, self.head, threads=threads, provider=provider, spinning=spinning, variant=variant)

    @property
    def variant(self) -> str:
        """The scheme of the graph that answers, or of the tables."""
        return self.bundle.manifest.scheme if self.graph is None else self.graph.variant

    @property
    def variant_reason(self) -> str:
        """Why this graph, in a sentence."""
        if self.graph is None:
            return f"{self.bundle.manifest.scheme}: its tables are all that the bundle answers with."
        return self.graph.reason

    @property
    def threads(self) -> int:
        """Threads of one run; tables are looked up in one."""
        return 1 if self.graph is None else self.graph.threads

    @property
    def providers(self) -> list[str]:
        """The execution providers of the session, as ONNX Runtime names them, "numpy" for tables; none when closed."""
        if self._closed:
            return []
        return ["numpy"] if self.graph is None else self.graph.providers

    def predict(self, texts: Iterable[Input], *, batch_size: int = 32) -> list[Answer]:
        """Answer each text, in order.

        Raises:
            InputError: no text at all; a string, frame or dict instead of a list; or something that is no text.
        """
        encoded = self.encode(texts)
        outputs = self.outputs(encoded, batch_size=batch_size)
        return self.answer(outputs, [text.truncated for text in encoded])

    def predict_one(self, text: Input) -> Answer:
        """Answer one text."""
        encoded = self.codec.encode([text])
        return self.answer(self.outputs(encoded), [encoded[0].truncated])[0]

    def scores(self, texts: Iterable[Input], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities: (texts, labels) float32, columns in the order of `labels`.

        Raises:
            InputError: as `predict` does; or the bundle's answers have no probabilities.
        """
        return self.head.scores(self.logits(self.encode(texts), batch_size=batch_size))

    def embed(
        self,
        texts: Iterable[Input],
        *,
        dimensions: int | None = None,
        prompt: str | None = None,
        precision: str = "float32",
        batch_size: int = 32,
    ) -> NDArray[Any]:
        """The vector of each text, of length one: (texts, dimensions) float32.

        Args:
            texts: as for `predict`.
            dimensions: how many numbers of each vector, of those that it was trained to be cut at; None for all.
            prompt: name of what stands before each text, such as "query"; None takes the texts as they are.
            precision: "float32", "int8" (the same shape), or "binary": (texts, dimensions / 8 rounded up) uint8.
            batch_size: texts a run.

        Raises:
            InputError: as `predict` does; or the bundle gives no vectors, or none of these dimensions.
        """
        from edgetune.serve.heads.embedding import EmbeddingHead, in_precision

        head = self.head
        if not isinstance(head, EmbeddingHead):
            raise InputError(f"This bundle answers the task {self.bundle.manifest.task}.", action="use predict()")
        listed = self.codec.texts(list_inputs(texts))
        rows = self.encode(head.prompted(listed, prompt))
        vectors = head.shortened(head.decide(self.logits(rows, batch_size=batch_size)), dimensions)
        return in_precision(vectors, precision)

    async def predict_async(self, texts: Iterable[Input]) -> list[Answer]:
        """As `predict`, joined with the calls of other tasks and threads.

        Raises:
            InputError: as `predict` does.
            Overloaded: more than WAITING_TEXTS texts wait already.
        """
        encoded = await self._encode_async(texts)
        return self.answer(await self.outputs_async(encoded), [text.truncated for text in encoded])

    async def predict_one_async(self, text: Input) -> Answer:
        """As `predict_one`, joined with the calls of other tasks and threads."""
        return (await self.predict_async([text]))[0]

    async def scores_async(self, texts: Iterable[Input]) -> NDArray[np.float32]:
        """As `scores`, joined with the calls of other tasks: (texts, width) float32."""
        return self.head.scores((await self.outputs_async(await self._encode_async(texts))).logits)

    def answer(self, outputs: Outputs, truncated: Sequence[bool]) -> list[Answer]:
        """Predictions for outputs; `truncated` says of each text whether it was cut."""
        answers = self.head.answer(outputs.logits, truncated)
        if outputs.texts is not None:
            answers = self.head.with_texts(answers, outputs.texts)
        if outputs.answered_by is None:
            return answers
        return [answer.answered(by) for answer, by in zip(answers, outputs.answered_by, strict=True)]

    def encode(self, texts: Iterable[Input]) -> list[EncodedText]:
        """Each input as a row of the graph.

        Raises:
            InputError: as `predict` does.
        """
        return self.codec.encode(list_inputs(texts))

    def logits(self, texts: Sequence[EncodedText], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Raw scores (texts, width) float32. Batches are sorted by length and padded to their own longest."""
        return self.outputs(texts, batch_size=batch_size).logits

    def outputs(self, texts: Sequence[EncodedText], *, batch_size: int = 32) -> Outputs:
        """As `logits`, with the scheme that answered each text where a cascade does.

        Raises:
            InputError: the batch size is below 1.
            EdgetuneError, RunError: as `run`.
        """
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}.", expected="1 or more texts a batch")
        if self._closed:
            raise self._is_closed()
        if self._tables is not None:
            return Outputs(self._tables.logits(texts))
        if self._per_token:
            return self._assembled(texts, self._window_logits(windows_of(texts), batch_size))
        if self.small is None:
            return Outputs(self.graph_logits(texts, batch_size))
        first = self.small.answer(texts)
        if first.left:
            first.logits[first.left] = self.graph_logits([texts[row] for row in first.left], batch_size)
        return Outputs(first.logits, self._answered_by(len(texts), first.left))

    def graph_logits(self, texts: Sequence[EncodedText], batch_size: int = 32) -> NDArray[np.float32]:
        """As `logits`, also of a cascade by its graph alone."""
        logits = np.empty((len(texts), self.head.width), dtype=np.float32)
        for rows in _batches(texts, batch_size):
            logits[rows] = self.run(self.feed([texts[row] for row in rows]))
        return logits

    def _window_logits(self, windows: Sequence[EncodedTokens], batch_size: int) -> list[NDArray[np.float32]]:
        """The logits of each window, (tokens or more, width) float32."""
        logits: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(windows)
        for rows in _batches(windows, batch_size):
            for row, values in zip(rows, self.run(self.feed([windows[row] for row in rows])), strict=True):
                logits[row] = values
        return logits

    def _assembled(self, texts: Sequence[EncodedText], windows: Iterable[NDArray[np.float32]]) -> Outputs:
        """Outputs of texts by the logits of their windows in order, each (tokens or more, width) float32."""
        encoded = as_tokens(texts)
        texts_of = [text.text for text in encoded]
        if self.head.spec.kind == TASKS_ON_TOKENS:
            rows = list(windows)
            return Outputs(with_first_rows(encoded, rows, assemble(encoded, rows, self.head.width)), texts=texts_of)
        return Outputs(assemble(encoded, windows, self.head.width), texts=texts_of)

    def _answered_by(self, texts: int, left: Sequence[int]) -> list[str]:
        """The scheme that answered each text: the small model's, and the graph's of those left to it."""
        assert self.small is not None
        answered_by = [self.small.scheme] * texts
        if left:
            graph = self.variant
            for row in left:
                answered_by[row] = graph
        return answered_by

    def tables_for(self, text: EncodedText) -> Engine | None:
        """The tables that answer a text; None where the graph does."""
        if self._tables is not None or self.small is None:
            return self._tables
        return None if self.small.answer([text]).left else self.small.engine

    def explain(self, text: Input, target: str | None = None) -> Explanation:
        """What each word of a text adds to its answer, or to the label `target`; `edgetune.serve.explain` has how.

        Raises:
            InputError: the text is none, or the bundle has no such label.
        """
        from edgetune.serve.explain import explain

        return explain(self, text, target)

    def feed(self, texts: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
        """What `run` takes, of texts padded to the longest of them: (texts, tokens) int64 by input's name."""
        padded = self.codec.pad(texts)
        return {name: padded[name] for name in self._inputs}

    def run(self, feed: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """One call of the graph, also of a cascade: inputs (batch, tokens) int64 by name, (batch, width) float32 out,
        or of a head on each token (batch, tokens, width).

        Raises:
            EdgetuneError: the predictor is closed.
            RunError: the graph failed.
        """
        engine = self._tables or self.graph
        if engine is None or self._closed:
            raise self._is_closed()
        return engine.run(feed)

    def golden(self) -> Golden:
        """The golden answers that were packed with the graph that answers, or with the tables.

        Raises:
            BundleDamaged: the file cannot be read.
        """
        return self.bundle.golden(GOLDEN_NAME if self.graph is None else self.graph.golden)

    def with_threads(self, threads: int | None) -> Predictor:
        """The same graph on the CPU in a session of its own, with other threads; the codec is shared.

        Args:
            threads: as for `load`.

        Raises:
            BundleDamaged: the file is no graph any more.
        """
        return Predictor(
            self.bundle,
            threads=threads,
            provider="cpu",
            variant=self.variant,
            abstain_below=self._asked.abstain_below,
            task=self._asked.task,
            codec=lambda: self.codec,
        )

    def close(self) -> None:
        """Finish what waits, end the threads and free the graph; answering afterwards raises EdgetuneError."""
        with self._lock:
            self._closed, batcher, self._batcher = True, self._batcher, None
        if batcher is not None:
            batcher.close()
        if self._graph is not None:
            self._graph.close()

    def after_fork(self) -> None:
        """In a forked child: another thread of the parent may have held the lock."""
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., Predictor], tuple[object, ...]]:
        """The folder, how it was opened, and which bundle it held.

        Raises:
            EdgetuneError: the predictor is closed.
        """
        if self._closed:
            raise self._is_closed()
        return _open_pickled, (str(self._folder), identity_of(self.bundle), self._asked)

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_closed(self) -> EdgetuneError:
        return EdgetuneError(f"The predictor of {self.bundle.folder} is closed.", action="open the bundle again")

    async def _encode_async(self, texts: Iterable[Input]) -> list[EncodedText]:
        listed = list_inputs(texts)
        decodes = takes_files(self.bundle.manifest.codec)  # a picture takes a millisecond and more
        if not decodes and sum(map(len, self.codec.texts(listed))) < LONG_CHARACTERS:
            return self.codec.encode(listed)
        import asyncio

        return await asyncio.to_thread(self.codec.encode, listed)

    async def outputs_async(
        self,
        texts: Sequence[EncodedText],
        ask: Callable[[Sequence[EncodedText]], Awaitable[NDArray[np.float32]]] | None = None,
    ) -> Outputs:
        """As `outputs`, joined with the calls of other tasks; texts of tables, or of a small model, wait for nobody.

        Args:
            texts: encoded.
            ask: gives the graph's outputs, (texts, width) float32; None takes the predictor's own batcher.
        """
        ask = ask or self._logits_async
        if self._per_token:
            windows = windows_of(texts)
            chunks = [windows[start : start + CALL_TEXTS] for start in range(0, len(windows), CALL_TEXTS)]
            return self._assembled(texts, [row for chunk in chunks for row in await ask(chunk)])
        if self._tables is None and self.small is None:
            return Outputs(await ask(texts))
        if self._closed:
            raise self._is_closed()
        if self.small is None:
            return Outputs(await _beside(self._tables.logits, texts))  # type: ignore[union-attr]  # one of both is there
        first = await _beside(self.small.answer, texts)
        if first.left:
            if self._graph is None:
                import asyncio

                await asyncio.to_thread(lambda: self.graph)
            first.logits[first.left] = await ask([texts[row] for row in first.left])
        return Outputs(first.logits, self._answered_by(len(texts), first.left))

    async def _logits_async(self, texts: Sequence[EncodedText]) -> NDArray[np.float32]:
        batcher = self._joined()
        if len(texts) <= CALL_TEXTS:
            return await batcher.logits(texts)
        logits = np.empty((len(texts), self.head.width), dtype=np.float32)
        for rows in _batches(texts, CALL_TEXTS):
            logits[rows] = await batcher.logits([texts[row] for row in rows])
        return logits

    def _joined(self) -> Batcher:
        """The batcher of all async calls, made with the first of them: a cold start does without it."""
        if (batcher := self._batcher) is not None:
            return batcher
        with self._lock:
            if self._closed:
                raise self._is_closed()
            if self._batcher is None:
                from edgetune.serve.batcher import Batcher

                self._batcher = Batcher(self, max_waiting=WAITING_TEXTS)
            return self._batcher


async def _beside(answer: Callable[[Sequence[EncodedText]], T], texts: Sequence[EncodedText]) -> T:
    """What tables answer: here where that takes a moment, else in a thread, which holds up nobody."""
    if len(texts) <= INLINE_TEXTS:
        return answer(texts)
    import asyncio

    return await asyncio.to_thread(answer, texts)


def _open_pickled(folder: str, identity: str, asked: Asked) -> Predictor:
    """What a pickled predictor is there; arguments as for `load`, and raises as it does.

    Raises:
        BundleDamaged: as `load` does, or the folder holds another bundle than that which was pickled.
    """
    bundle = same_bundle(Path(folder), identity)
    bundle.check_files()
    return Predictor(bundle, **asked._asdict())


def _batches(texts: Sequence[EncodedText], batch_size: int) -> Iterator[list[int]]:
    by_length = sorted(range(len(texts)), key=lambda row: texts[row].size)
    for start in range(0, len(by_length), batch_size):
        yield by_length[start : start + batch_size]
