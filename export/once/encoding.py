"""How inputs are encoded, as the runtime reads it from a bundle, and the proof that it is what training was fed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgetune.export.once.tokenizer import check_tokenizer, write_tokenizer
from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.codecs import codec_inputs, open_codec, takes_files
from edgetune.serve.codecs.picture_file import read_picture
from edgetune.serve.codecs.picture_spec import PICTURE_NAME
from edgetune.serve.errors import ParityError
from edgetune.tune.data.pictures import name_of, source_of
from edgetune.tune.data.rows import Input
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.picture_encoder import PictureEncoder
from edgetune.tune.models.picture_settings import TOLERANCE, steps_differ

PREPROCESSOR_NAME = "preprocessor_config.json"
_PROVEN_PICTURES = 32


def write_encoding(source: Path, folder: Path, codec: str, max_tokens: int) -> None:
    """Write into `folder` what says how inputs are encoded, of a model folder."""
    if takes_files(codec):
        for name in (PICTURE_NAME, PREPROCESSOR_NAME):
            shutil.copyfile(source / name, folder / name)
    else:
        write_tokenizer(source, folder, max_tokens)


def check_encoding(folder: Path, encoder: Encoder, inputs: Sequence[Input]) -> str:
    """Compare what the runtime feeds the graph with what training fed the model; a sentence that says what was proven.

    Args:
        folder: of a model, as tuning writes it.
        encoder: as it was trained with.
        inputs: of the task.

    Raises:
        ParityError: naming the first inputs that differ.
    """
    if not isinstance(encoder, PictureEncoder):
        check_tokenizer(folder / TOKENIZER_NAME, encoder, inputs)
        return f"tokenizer: the same ids at run time on all {len(inputs):,} test texts"
    picked = encoder.probes(inputs, _PROVEN_PICTURES)
    runtime = open_codec(encoder.task.codec, folder, encoder.max_tokens)
    served = runtime.pad(runtime.encode(codec_inputs(encoder.task.codec, picked)))["pixel_values"]
    trained = np.asarray(encoder.pad(encoder.rows(picked), "np")["pixel_values"])
    faults = [name_of(str(picked[row])) for row in np.flatnonzero((served != trained).any(axis=(1, 2, 3)))]
    difference = 0.0
    for value in picked:
        picture = read_picture(source_of(str(value)), name_of(str(value)), encoder.spec)
        difference = max(difference, steps_differ(encoder.tokenizer, encoder.spec, [picture]))
        if not difference <= TOLERANCE:
            faults.append(name_of(str(value)))
    if faults:
        raise ParityError(
            f"The runtime's preprocessing gives other numbers than transformers' for {len(faults)} of {len(picked)} "
            f"pictures, such as {faults[0]}.",
            expected=f"the same within {TOLERANCE:g}",
            action="report this with the base model's name; nothing was written to the output",
        )
    return f"preprocessing: as transformers' within {difference:.1g} at run time on {len(picked)} test pictures"
