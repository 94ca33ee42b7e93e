"""What a command answers with a bundle: texts, rows of a file by the bundle's own columns, pictures. Floor only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.commands.picture_names import beside, with_folders
from edgetune.commands.text_columns import ColumnRequest
from edgetune.commands.texts import Source
from edgetune.serve.codecs import codec_parts, takes_files
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.bundle import Manifest

# Columns of prompts, first of all for a language model: beside them stand answers, which are longer.
PROMPT_NAMES = ("prompt", "instruction", "question", "text")


def bundle_inputs(manifest: Manifest, source: Source) -> Iterable[tuple[str, ...]]:
    """The inputs that are asked for; pictures as files, those of a folder one by one, and of a table beside it.

    Raises:
        InputError: there is none.
    """
    in_files = manifest.generation is None and takes_files(manifest.codec)
    if in_files:
        source = replace(source, arguments=tuple(with_folders(source.arguments)))
    stream = source.inputs()
    if in_files and source.file not in (None, "-"):
        stream = beside(Path(str(source.file)), stream)
    first = next(stream, None)
    if first is None:
        raise InputError("There is no text to answer.", expected="a TEXT, --input FILE, or lines on standard input")
    return itertools.chain([first], stream)


def column_request(manifest: Manifest, columns: tuple[str, ...]) -> ColumnRequest:
    """What is asked of a file's columns: those that the manifest names, where it names one for each part."""
    parts = codec_parts(manifest.codec)
    trained = tuple(manifest.columns) if len(manifest.columns) == len(parts) else ()
    preferred = PROMPT_NAMES if manifest.generation is not None else ()
    return ColumnRequest(parts=parts, named=columns, trained=trained, preferred=preferred)
