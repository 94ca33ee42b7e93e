"""A graph in ONNX Runtime: the session of one of a bundle's graphs, opened again in a forked child."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.bundle import Bundle, Manifest
from edgetune.serve.errors import BundleDamaged, EdgetuneError, RunError
from edgetune.serve.forks import never_free, watch_forks
from edgetune.serve.heads import PER_TOKEN
from edgetune.serve.identity import identity_of, same_bundle
from edgetune.serve.session import run_error, session_errors
from edgetune.serve.variants import open_variant

if TYPE_CHECKING:
    from pathlib import Path

    import onnxruntime
    from numpy.typing import NDArray

    from edgetune.serve.heads import Head

_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class GraphEngine:
    """Runs one graph of a bundle.

    Attributes:
        session: of ONNX Runtime; None when closed.
        variant: the scheme of the graph.
        reason: why this graph, in a sentence.
        golden: the file of its golden answers.
        threads: of one run.
    """

    def __init__(
        self, bundle: Bundle, head: Head, *, threads: int | None, provider: str, spinning: bool | None, variant: str
    ) -> None:
        """Open the graph; arguments as for `load`.

        Raises:
            BundleDamaged, ProviderError, MissingDependency, InputError: as `load` does.
        """
        opened = open_variant(bundle, variant=variant, provider=provider, threads=threads, spinning=spinning)
        self.session: onnxruntime.InferenceSession | None = opened.session
        self.variant, self.reason, self.golden = opened.variant.scheme, opened.reason, opened.variant.golden
        self.threads = opened.threads
        self._heads = [head] if head.spec.output else list(head.heads.values())  # type: ignore[attr-defined]
        self._outputs = [one.spec.output for one in self._heads]
        for one in self._heads:
            _check_graph(opened.session, bundle.manifest, one, bundle.folder)
        self._bundle, self._head = bundle, head
        self._folder = bundle.folder.absolute()  # wherever the process goes
        self._asked = (threads, provider, spinning)
        self._first_input = bundle.manifest.inputs[0].name
        self._lock, self._forked = threading.Lock(), False
        watch_forks(self)

    @property
    def providers(self) -> list[str]:
        """The execution providers of the session, as ONNX Runtime names them; none when closed."""
        return list(self.session.get_providers()) if self.session is not None else []

    def run(self, feed: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """One call of the graph: inputs (batch, tokens) int64 by name, outputs (batch, width) float32, of a head on
        each token (batch, tokens, width); those of several tasks joined, as `TasksHead.joined` has them.

        Raises:
            EdgetuneError: it is closed.
            RunError: the graph failed.
        """
        session = self._opened_again() if self._forked else self.session  # a run keeps it, whoever closes
        if session is None:
            raise EdgetuneError(f"The graph of {self._bundle.folder} is closed.", action="open the bundle again")
        try:
            outputs: list[NDArray[np.float32]] = session.run(self._outputs, feed)
        except session_errors() as error:
            raise run_error(str(self._bundle.folder), error) from error
        rows = feed[self._first_input].shape
        for head, logits in zip(self._heads, outputs, strict=True):
            expected = (*rows, head.width) if head.spec.kind in PER_TOKEN else (rows[0], head.width)
            if logits.shape != expected:
                raise RunError(
                    f"The graph of {self._bundle.folder} gave {head.spec.output} of the shape {logits.shape}.",
                    expected=f"{expected}: a row for each input",
                    action="build the bundle again",
                )
        return outputs[0] if self._head.spec.output else self._head.joined(outputs)  # type: ignore[attr-defined]

    def close(self) -> None:
        """Free the graph."""
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
                same = same_bundle(self._folder, identity_of(self._bundle))
                threads, provider, spinning = self._asked
                opened = open_variant(same, variant=self.variant, provider=provider, threads=threads, spinning=spinning)
                self.session, self._forked = opened.session, False
            return self.session


def _check_graph(session: onnxruntime.InferenceSession, manifest: Manifest, head: Head, folder: Path) -> None:
    """Refuse a manifest that tells of another graph: neither digests nor ONNX Runtime would notice."""
    output, width = head.spec.output, head.width
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
