"""Answering with any bundle: `edgetune.load` and `edgetune.predict`. Needs numpy, onnxruntime and tokenizers only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import Input
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.predictor import Predictor
    from edgetune.serve.stepwise.generator import Generator, Prompt
    from edgetune.serve.stepwise.sampling import Sampling


def load(
    bundle: str | Path, *, threads: int | None = None, provider: str = "auto", verify: bool = True
) -> Predictor | Generator:
    """Open a bundle of any task for answering; `predict`, `close` and `with` are the same for all.

    Args:
        bundle: the bundle's folder.
        threads: of one run; None takes what was measured as best for this bundle, else the cores that this process
            may use.
        provider: "auto" (the one that the bundle was built for), "cpu" or "cuda".
        verify: check sizes and digests of all files first.

    Returns:
        A `Generator` for a bundle that generates text, a `Predictor` for any other.

    Raises:
        BundleError: the folder is no bundle, it is damaged, or it is of a format that cannot be read.
        ProviderError, MissingDependency: nothing here can run it.
    """
    if Bundle.open(bundle, verify=False).manifest.generation is not None:
        from edgetune.serve.stepwise.generator import Generator

        return Generator.open(bundle, threads=threads, provider=provider, verify=verify)
    from edgetune.serve.loading import load as load_predictor

    return load_predictor(bundle, threads=threads, provider=provider, verify=verify)


def predict(
    bundle: str | Path,
    inputs: Iterable[Input | Prompt],
    *,
    threads: int | None = None,
    provider: str = "auto",
    sampling: Sampling | None = None,
) -> list[Any]:
    """Open a bundle, answer all inputs, in order, and close it; who answers more than once loads it instead.

    Args:
        bundle: the bundle's folder.
        inputs: what the bundle answers: texts, pairs of texts, or prompts. A prompt is a text, which is continued as
            it stands, or a chat as a list of messages.
        threads: as for `load`.
        provider: as for `load`.
        sampling: how a language model draws tokens, and how many; greedily where it is None.

    Returns:
        One answer an input: a `Prediction`, `LabelsPrediction`, `NumberPrediction`, `EmbeddingPrediction` or
        `Generation`, by the bundle.

    Raises:
        BundleError, ProviderError, MissingDependency: as `load` does.
        InputError: there is no input, one cannot be answered, or `sampling` would have no effect.
    """
    with load(bundle, threads=threads, provider=provider) as model:
        if sampling is None:
            return model.predict(inputs)  # type: ignore[arg-type]  # each checks its inputs itself
        from edgetune.serve.stepwise.generator import Generator

        if not isinstance(model, Generator):
            raise InputError(
                f"sampling would have no effect: {bundle} generates no text.", expected="sampling=None for this bundle"
            )
        return model.predict(inputs, sampling)  # type: ignore[arg-type]
