"""Opening a bundle for answering, as fast as the machine allows: what does not need the other runs beside it.

Digests are native code that lets Python go on, so of a large bundle a thread takes them while numpy and ONNX Runtime
are imported; no parser sees a file before they are found right. Then the codec opens beside the session. Must not
import numpy itself.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.asked import asked_codec
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import Codec

if TYPE_CHECKING:
    from edgetune.serve.predictor import Predictor

# Digests of so few bytes take less time than importing what a thread needs: 5 ms.
FEW_BYTES = 4 * 2**20


def load(
    path: str | Path,
    *,
    threads: int | None = None,
    provider: str = "auto",
    verify: bool = True,
    spinning: bool | None = None,
    variant: str = "auto",
    eager: bool = False,
    abstain_below: float | None = None,
    task: str = "",
) -> Predictor:
    """Open a bundle for answering.

    Args:
        path: the bundle's folder.
        threads: of one run; None takes what was measured as best for this bundle on a machine of this class, and
            elsewhere the cores that this process may use.
        provider: "auto" (the one it was built for, or of several the first that runs here), "cpu" or "cuda".
        verify: check sizes and digests of all files; nothing is returned before they are found right.
        spinning: whether threads wait awake for the next node; None as for threads, and elsewhere yes.
        variant: "auto" takes, where the bundle holds several graphs, the one that this machine runs best, and the
            predictor's `variant_reason` tells why; or the scheme of one of them.
        eager: of a cascade, open its graph now; else the first input that needs it waits for that.
        abstain_below: the probability below which an answer is unsure; None takes the bundle's own, which may have
            none, and 0 calls no answer unsure.
        task: of a bundle that answers several tasks, the one to answer alone; "" answers all in one pass.

    Raises:
        BundleError, BundleDamaged, BundleFormatError: the folder cannot be used.
        ProviderError, MissingDependency: nothing here can run it.
        InputError: the bundle has no such variant, its answers are never unsure, or a number is out of range.
    """
    bundle = Bundle.open(path, verify=False)
    manifest = bundle.manifest

    def opened(codec: Callable[[], Codec] | None = None) -> Predictor:
        from edgetune.serve.predictor import Predictor

        return Predictor(
            bundle,
            threads=threads,
            provider=provider,
            spinning=spinning,
            variant=variant,
            eager=eager,
            abstain_below=abstain_below,
            task=task,
            codec=codec,
        )

    if manifest.engine is not None and sum(entry.bytes for entry in manifest.files.values()) <= FEW_BYTES:
        if verify:
            bundle.check_files()
        return opened()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgetune-load") as pool:
        checked = pool.submit(bundle.check_files) if verify else None
        try:
            _import_ahead(graph=manifest.engine is None and (eager or manifest.cascade is None))
        finally:
            if checked is not None:
                checked.result()
        codec = pool.submit(asked_codec, bundle, task)
        return opened(codec.result)


def _import_ahead(*, graph: bool) -> None:
    """Import what answers need, ONNX Runtime too where a `graph` is opened at once."""
    importlib.import_module("edgetune.serve.predictor")
    if graph:
        from edgetune.serve.session import import_runtime

        import_runtime()
