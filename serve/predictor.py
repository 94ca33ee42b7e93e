"""A bundle that answers: texts in, predictions out. Thread-safe; needs numpy, onnxruntime and tokenizers only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.batches import pad_batch
from edgetune.serve.bundle import (
    CONFIG_NAME,
    GRAPH_NAME,
    NOT_JSON,
    Bundle,
    Manifest,
    RuntimeSettings,
)
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError
from edgetune.serve.processor import cpu_name
from edgetune.serve.session import open_session
from edgetune.serve.tasks import ANSWERS
from edgetune.serve.tasks.text_classification import Prediction, softmax
from edgetune.serve.tokenization import TextTokenizer, TokenizedText, open_tokenizer


class Predictor:
    """Answers texts with one bundle.

    Attributes:
        bundle: what is being answered with.
        labels: the answers there are, in the order of the logits.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int | None = None,
        provider: str = "auto",
        spinning: bool | None = None,
        tokenizer: Callable[[], TextTokenizer] | None = None,
    ) -> None:
        """Open the graph; arguments as for `load`, and `tokenizer` where it is already being opened elsewhere."""
        manifest = bundle.manifest
        if manifest.task not in ANSWERS:
            raise BundleFormatError(
                f"{bundle.folder} is for the task {manifest.task!r}.", action="install a newer edgetune"
            )
        self.bundle = bundle
        self.labels = tuple(manifest.labels)
        measured = _measured_settings(manifest)
        self.session = open_session(
            bundle.folder / GRAPH_NAME,
            provider=manifest.provider if provider == "auto" else provider,
            threads=threads if threads is not None else (measured.threads if measured else None),
            spinning=spinning if spinning is not None else (measured.spinning if measured else True),
        )
        self._answer = ANSWERS[manifest.task]
        _check_graph(self.session, manifest, bundle.folder)
        self._tokenizer = tokenizer() if tokenizer else open_tokenizer(bundle)
        self._pad_id = _pad_id(bundle.folder / CONFIG_NAME)
        self._inputs = tuple(spec.name for spec in manifest.inputs)

    def predict(self, texts: Iterable[str], *, batch_size: int = 32) -> list[Prediction]:
        """Answer each text, in order.

        Raises:
            InputError: no text at all, a bare string instead of a list, or something that is no text.
        """
        tokenized = self.tokenize(texts)
        return self._answer(
            self.logits(tokenized, batch_size=batch_size), self.labels, [text.truncated for text in tokenized]
        )

    def predict_one(self, text: str) -> Prediction:
        """Answer one text."""
        return self.predict([text])[0]

    def scores(self, texts: Iterable[str], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Probabilities: (texts, labels) float32, columns in the order of `labels`."""
        return softmax(self.logits(self.tokenize(texts), batch_size=batch_size))

    def tokenize(self, texts: Iterable[str]) -> list[TokenizedText]:
        """Token ids of each text as the graph takes them.

        Raises:
            InputError: as `predict` does.
        """
        if isinstance(texts, str):
            raise InputError("One string was given.", expected="a list of texts", action="use predict_one()")
        listed = list(texts)  # a generator can be read once only, and an array has no truth
        if not listed:
            raise InputError("There is no text to answer.", expected="at least one text")
        return self._tokenizer.tokenize(listed)

    def logits(self, texts: Sequence[TokenizedText], *, batch_size: int = 32) -> NDArray[np.float32]:
        """Raw scores (texts, labels) float32. Batches are sorted by length and padded to their own longest."""
        if batch_size < 1:
            raise InputError(f"The batch size is {batch_size}.", expected="1 or more texts a batch")
        logits = np.empty((len(texts), len(self.labels)), dtype=np.float32)
        for rows in _batches(texts, batch_size):
            padded = pad_batch([texts[row] for row in rows], self._pad_id)
            logits[rows] = self.run({name: padded[name] for name in self._inputs})
        return logits

    def run(self, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """One call of the graph: inputs (batch, tokens) int64 by name, logits (batch, labels) float32 out."""
        logits: NDArray[np.float32] = self.session.run(["logits"], feed)[0]
        return logits


def _measured_settings(manifest: Manifest) -> RuntimeSettings | None:
    """The settings that the bundle brings, if they were measured on a machine of this class."""
    found = manifest.runtime
    return found if found and (found.cpu, found.cores) == (cpu_name(), usable_cores()) else None


def _batches(texts: Sequence[TokenizedText], batch_size: int) -> Iterator[list[int]]:
    by_length = sorted(range(len(texts)), key=lambda row: len(texts[row].ids))
    for start in range(0, len(by_length), batch_size):
        yield by_length[start : start + batch_size]


def _check_graph(session: Any, manifest: Manifest, folder: Path) -> None:
    """Refuse a manifest that tells of another graph: neither digests nor ONNX Runtime would notice."""
    taken = {value.name for value in session.get_inputs()}
    told = {spec.name for spec in manifest.inputs}
    labels = {value.name: value.shape[-1] for value in session.get_outputs()}.get("logits")
    # A name instead of a number is a size that the graph leaves open.
    if taken != told or not (isinstance(labels, str) or labels == len(manifest.labels)):
        raise BundleDamaged(
            f"The graph of {folder} takes {', '.join(sorted(taken))} and gives {labels} logits, its manifest tells of "
            f"{', '.join(sorted(told))} and {len(manifest.labels)} labels.",
            expected="a manifest and a graph that were packed together",
            action="copy the bundle again from where it was built, or build it again",
        )


def _pad_id(config: Path) -> int:
    try:
        value = msgspec.json.decode(config.read_bytes(), type=dict[str, object]).get("pad_token_id")
    except (OSError, *NOT_JSON) as error:
        raise BundleDamaged(f"{config} cannot be read: {error}") from error
    return value if isinstance(value, int) else 0
