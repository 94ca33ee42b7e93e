"""Vectors of `edgetune predict`: what stands before texts, and a file of one row a text."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgetune.commands.answers import CHUNK, Texts, is_broken
from edgetune.serve.errors import InputError, WorkError

if TYPE_CHECKING:
    from edgetune.serve.heads import Head
    from edgetune.serve.heads.embedding import EmbeddingHead
    from edgetune.serve.predictor import Predictor


def prompted(head: Head, inputs: Iterable[Texts], prompt: str | None) -> Iterator[Texts]:
    """The inputs with the named prompt before each text; blank ones stay blank.

    Raises:
        InputError: the bundle has no such prompt.
    """
    vectors = cast("EmbeddingHead", head)
    vectors.prompted([], prompt)
    for (text,) in inputs:
        yield (vectors.prompted([text], prompt)[0] if text.strip() else text,)


def write_vectors(predictor: Predictor, inputs: Iterable[Texts], path: Path) -> None:
    """Write the vectors of all inputs as one array, (texts, width) float32, row by row in their order.

    Raises:
        InputError: a text is blank or broken, named by its number: a row of nothing would be found by every search.
        WorkError: the file cannot be written.
    """
    import numpy as np

    source, rows = iter(inputs), []
    for start in itertools.count(0, CHUNK):
        chunk = [text for (text,) in itertools.islice(source, CHUNK)]
        if not chunk:
            break
        wrong = [start + place for place, text in enumerate(chunk) if not text.strip() or is_broken(text)]
        if wrong:
            raise InputError(
                f"Text {wrong[0] + 1} is blank or broken, and {len(wrong) - 1} more of these {len(chunk)}.",
                expected="a text in every row: the rows of the file are those of the input",
                action="take these rows out, or use --jsonl, which keeps their place without a vector",
            )
        rows.append(predictor.embed(chunk))
    vectors = np.concatenate(rows)
    if not np.isfinite(vectors).all():
        raise InputError("The model gives no numbers (NaN or infinity).", action="prove it with edgetune verify")
    try:
        with path.open("wb") as stream:
            np.save(stream, vectors, allow_pickle=False)
    except OSError as error:
        raise WorkError(
            f"{path} cannot be written: {error.strerror or error}.", action="choose another --output"
        ) from error
    click.echo(f"{len(vectors):,} vectors of {vectors.shape[1]:,} numbers, float32, in {path}.", err=True)
