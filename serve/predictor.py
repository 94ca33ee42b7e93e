"""A bundle that answers: inputs in, predictions out. Thread-safe; needs numpy, onnxruntime and tokenizers only.

It goes along into other processes: a forked child opens the graph again before its first run there, and a pickled
predictor is its folder and how it was opened.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import Bundle, Golden, HeadSpec, Manifest
from edgetune.serve.codecs import Codec, Input, list_inputs, open_codec
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.errors import BundleDamaged, BundleFormatError, EdgetuneError, InputError, RunError
from edgetune.serve.forks import never_free, watch_forks
from edgetune.serve.heads import Answer, abstaining, open_head
from edgetune.serve.session import run_error, session_errors
from edgetune.serve.variants import open_variant

if TYPE_CHECKING:
    import onnxruntime

    from edgetune.serve.batcher import Batcher

# Of the async forms: texts that may wait, all calls together; texts of one call that wait at once, the others behind
# them; and characters from which encoding is left to a thread, since it would hold the event loop for milliseconds.
WAITING_TEXTS = 16_384
CALL_TEXTS = 256
LONG_CHARACTERS = 20_000

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class Predictor:
    """Answers inputs (texts, or pairs of texts) with one bundle. Its methods may be called from any thread at any time.

    The async forms join concurrent calls into runs of up to 32 texts (batcher.py has how), which a loop of `predict`
    in threads does not. A predictor is a context manager; `close` ends its threads and frees the graph. It can be
    pickled, for Spark, multiprocessing and Ray: there it is opened again from its folder, which must hold the same
    bundle. In a forked child the graph is opened again too, with the child's first run.

    Attributes:
        bundle: what is being answered with.
        codec: how inputs become rows of the graph.
        head: how the graph's outputs become answers.
        labels: the answers there are, in the order of the logits; none where answers are no labels.
        variant: the scheme of the graph that answers.
        variant_reason: why this graph, in a sentence.
        threads: of one run.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: str = "auto",
        spinning: bool | None = None,
        variant: str = "auto",
        abstain_below: float | None = None,
        codec: Callable[[], Codec] | None = None,
    ) -> None:
        """Open the graph; arguments as for `load`, and `codec` where it is already being opened elsewhere."""
        manifest = bundle.manifest
        self.bundle = bundle
        self.head = open_head(abstaining(_only_head(bundle), abstain_below))
        self.labels = self.head.labels
        self._folder = bundle.folder.absolute()  # wherever the process goes
        self._asked = (threads, provider, spinning, variant, abstain_below)
        opened = open_variant(bundle, variant=variant, provider=provider, threads=threads, spinning=spinning)
        self.session = opened.session
        self.variant, self.variant_reason, self.threads = opened.variant.scheme, opened.reason, opened.threads
        self._golden_name = opened.variant.golden
        self._outputs = [self.head.spec.output]
        _check_graph(self.session, manifest, self.head.spec.output, self.head.width, bundle.folder)
        self._batcher: Batcher | None = None
        self._lock, self._closed, self._forked = threading.Lock(), False, False
        watch_forks(self)
        self.codec = codec() if codec else open_codec(manifest.codec, bundle.folder, manifest.max_tokens)
        self._inputs = tuple(spec.name for spec in manifest.inputs)

    def predict(self, texts: Iterable[Input], *, batch_size: int = 32) -> list[Answer]:
        """Answer each text, in order.

        Raises:
            InputError: no text at all; a string, frame or dict instead of a list; or something that is no text.
        """
        encoded = self.encode(texts)
        return self.answer(self.logits(encoded, batch_size=batch_size), [text.truncated for text in encoded])

    def predict_one(self, text: Input) -> Answer:
        """Answer one text."""
        return self.predict([text])[0]

    def scores(self, texts: Iterable[Input], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities: (texts, labels) float32, columns in the order of `labels`.

        Raises:
            InputError: as `predict` does; or the bundle's answers have no probabilities.
        """
        return self.head.scores(self.logits(self.encode(texts), batch_size=batch_size))

    async def predict_async(self, texts: Iterable[Input]) -> list[Answer]:
        """As `predict`, joined with the calls of other tasks and threads.

        Raises:
            InputError: as `predict` does.
            Overloaded: more than WAITING_TEXTS texts wait already.
        """
        encoded = await self._encode_async(texts)
        return self.answer(await self._logits_async(encoded), [text.truncated for text in encoded])

    async def predict_one_async(self, text: Input) -> Answer:
        """As `predict_one`, joined with the calls of other tasks and threads."""
        return (await self.predict_async([text]))[0]

    async def scores_async(self, texts: Iterable[Input]) -> NDArray[np.float32]:
        """As `scores`, joined with the calls of other tasks: (texts, width) float32."""
        return self.head.scores(await self._logits_async(await self._encode_async(texts)))

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[Answer]:
        """Predictions for logits (texts, width) float32; `truncated` says of each text whether it was cut."""
        return self.head.answer(logits, truncated)

    def encode(self, texts: Iterable[Input]) -> list[EncodedText]:
        """Each input as a row of the graph.

        Raises:
            InputError: as `predict` does.
        """
        return self.codec.encode(list_inputs(texts))

    def logits(self, texts: Sequence[EncodedText], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Raw scores (texts, width) float32. Batches are sorted by length and padded to their own longest."""
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}.", expected="1 or more texts a batch")
        logits = np.empty((len(texts), self.head.width), dtype=np.float32)
        for rows in _batches(texts, batch_size):
            logits[rows] = self.run(self.feed([texts[row] for row in rows]))
        return logits

    def feed(self, texts: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
        """What `run` takes, of texts padded to the longest of them: (texts, tokens) int64 by input's name."""
        padded = self.codec.pad(texts)
        return {name: padded[name] for name in self._inputs}

    def run(self, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """One call of the graph: inputs (batch, tokens) int64 by name, logits (batch, width) float32 out.

        Raises:
            EdgetuneError: the predictor is closed.
            RunError: the graph failed.
        """
        session = self._opened_again() if self._forked else self.session  # a run keeps it, whoever closes
        if session is None:
            raise self._is_closed()
        try:
            logits: NDArray[np.float32] = session.run(self._outputs, feed)[0]
        except session_errors() as error:
            raise run_error(str(self.bundle.folder), error) from error
        expected = (len(feed[self._inputs[0]]), self.head.width)
        if logits.shape != expected:
            raise RunError(
                f"The graph of {self.bundle.folder} gave {self.head.spec.output} of the shape {logits.shape}.",
                expected=f"{expected}: a row for each input",
                action="build the bundle again",
            )
        return logits

    def golden(self) -> Golden:
        """The golden answers that were packed with the graph that answers.

        Raises:
            BundleDamaged: the file cannot be read.
        """
        return self.bundle.golden(self._golden_name)

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
            abstain_below=self._asked[-1],
            codec=lambda: self.codec,
        )

    @property
    def providers(self) -> list[str]:
        """The execution providers of the session, as ONNX Runtime names them; none when closed."""
        return list(self.session.get_providers()) if self.session is not None else []

    def close(self) -> None:
        """Finish what waits, end the threads and free the graph; answering afterwards raises EdgetuneError."""
        with self._lock:
            self._closed, batcher, self._batcher = True, self._batcher, None
        if batcher is not None:
            batcher.close()
        self.session = None

    def after_fork(self) -> None:
        """In a forked child: the graph's threads are the parent's, and a run of the parent may hold its locks."""
        self._lock = threading.Lock()
        if self.session is not None:
            never_free(self.session)
            self._forked = True

    def _opened_again(self) -> onnxruntime.InferenceSession | None:
        """The session of a forked child; None when closed.

        Raises:
            BundleDamaged: the folder holds another bundle by now.
            ProviderError: the provider does not run in a forked child, as CUDA does not.
        """
        with self._lock:
            if self._forked and self.session is not None:
                same = _same_bundle(self._folder, _identity(self.bundle))
                threads, provider, spinning, *_ = self._asked
                opened = open_variant(same, variant=self.variant, provider=provider, threads=threads, spinning=spinning)
                self.session, self._forked = opened.session, False
            return self.session

    def __reduce__(self) -> tuple[Callable[..., Predictor], tuple[object, ...]]:
        """The folder, how it was opened, and which bundle it held.

        Raises:
            EdgetuneError: the predictor is closed.
        """
        if self._closed:
            raise self._is_closed()
        return _open_pickled, (str(self._folder), _identity(self.bundle), *self._asked)

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
        if sum(map(len, self.codec.texts(listed))) < LONG_CHARACTERS:
            return self.codec.encode(listed)
        import asyncio

        return await asyncio.to_thread(self.codec.encode, listed)

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


def _identity(bundle: Bundle) -> str:
    """What tells one bundle from another: a digest of its manifest, which has those of all files."""
    return hashlib.sha256(msgspec.json.encode(bundle.manifest)).hexdigest()


def _same_bundle(folder: Path, identity: str) -> Bundle:
    """The bundle in a folder.

    Raises:
        BundleError: there is none.
        BundleDamaged: it is another than that of the identity.
    """
    bundle = Bundle.open(folder, verify=False)
    if _identity(bundle) != identity:
        raise BundleDamaged(
            f"{folder} holds another bundle than the predictor that was pickled or forked answers with.",
            expected="the same bundle wherever a predictor goes",
            action="open the new one with load(), and pickle or fork that",
        )
    return bundle


def _open_pickled(
    folder: str,
    identity: str,
    threads: int | None,
    provider: str,
    spinning: bool | None,
    variant: str,
    abstain_below: float | None,
) -> Predictor:
    """What a pickled predictor is there; arguments as for `load`, and raises as it does.

    Raises:
        BundleDamaged: as `load` does, or the folder holds another bundle than that which was pickled.
    """
    bundle = _same_bundle(Path(folder), identity)
    bundle.check_files()
    return Predictor(
        bundle,
        threads=threads,
        provider=provider,
        spinning=spinning,
        variant=variant,
        abstain_below=abstain_below,
    )


def _batches(texts: Sequence[EncodedText], batch_size: int) -> Iterator[list[int]]:
    by_length = sorted(range(len(texts)), key=lambda row: texts[row].size)
    for start in range(0, len(by_length), batch_size):
        yield by_length[start : start + batch_size]


def _only_head(bundle: Bundle) -> HeadSpec:
    """The head that answers.

    Raises:
        BundleFormatError: the bundle generates text, or has several heads.
    """
    heads = bundle.manifest.answer_heads
    if bundle.manifest.generation is not None:
        raise BundleFormatError(
            f"{bundle.folder} is for the task {bundle.manifest.task!r}.",
            action="open it with edgetune.serve.Generator.open",
        )
    if len(heads) != 1:
        raise BundleFormatError(
            f"{bundle.folder} has {len(heads)} heads: {', '.join(f'{head.kind} on {head.output}' for head in heads)}.",
            expected="one head, which is all that this edgetune answers with",
            action="install a newer edgetune",
        )
    return heads[0]


def _check_graph(
    session: onnxruntime.InferenceSession, manifest: Manifest, output: str, width: int, folder: Path
) -> None:
    """Refuse a manifest that tells of another graph: neither digests nor ONNX Runtime would notice."""
    inputs = {value.name for value in session.get_inputs()}
    listed = {spec.name for spec in manifest.inputs}
    outputs = {value.name: value for value in session.get_outputs() if value.type in _FLOATS and value.shape}
    columns = outputs[output].shape[-1] if output in outputs else None
    # A name, or nothing, instead of a number is a size that the graph leaves open.
    is_open = output in outputs and not isinstance(columns, int)
    if inputs != listed or not (is_open or columns == width):
        raise BundleDamaged(
            f"The graph of {folder} takes {', '.join(sorted(inputs))} and gives {columns} {output}, its manifest "
            f"lists {', '.join(sorted(listed))} and answers with {width}.",
            expected="a manifest and a graph that were packed together",
            action="copy the bundle again from where it was built, or build it again",
        )
