"""What a bundle is timed on where its data is not: inputs as long as the data's, in `workload.json`.

Nobody's text is in it unless the recipe allows that: export/workload.py draws its texts from runs of tokens that many
rows share. Here the file is read, and what stands in for it in a bundle that has none.
"""

from __future__ import annotations

import base64
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetune.benchmarks.measure.measurement import InputsUsed
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import takes_files
from edgetune.serve.codecs.picture_file import require_pillow
from edgetune.serve.errors import InputError
from edgetune.serve.workload import WORKLOAD_NAME, PictureSize, Workload
from edgetune.tune.data.rows import Input

MOST_PIXELS = 64_000_000


@dataclass(frozen=True)
class MeasuredInputs:
    """Inputs in the order in which they are answered, as JSON has them, and where they come from."""

    inputs: list[Input]
    used: InputsUsed


@dataclass(frozen=True)
class MeasuredPrompts:
    """Token counts of prompts, each once, shortest first, and where they come from."""

    tokens: list[int]
    used: InputsUsed


def bundle_inputs(bundle: Bundle, given: list[Input] | None, pictures: Path) -> MeasuredInputs:
    """What to answer: what was given, else the bundle's workload, else its golden inputs.

    Args:
        bundle: of any task that answers by one run.
        given: inputs of the user's own.
        pictures: an empty folder, for pictures of the workload's sizes.

    Raises:
        BundleDamaged: the workload or the golden answers cannot be read.
        InputError: there is nothing to answer.
    """
    if given is not None:
        return MeasuredInputs(
            given, InputsUsed(source="file", n=len(given), remark="inputs of the file that was named")
        )
    golden: list[Input] = [case.input for case in bundle.golden().cases]
    if WORKLOAD_NAME not in bundle.manifest.files:
        if not golden:
            raise InputError(f"{bundle.folder} has neither a workload nor golden answers.", action="name --texts FILE")
        remark = (
            f"the {len(golden)} golden inputs, spread from the shortest to the longest: the bundle was built before "
            "bundles carried the lengths of their data. Name --texts FILE for times on your own inputs"
        )
        return MeasuredInputs(_shuffled(golden), InputsUsed(source="golden", n=len(golden), remark=remark))
    workload = bundle.read(WORKLOAD_NAME, Workload)
    if takes_files(bundle.manifest.codec):
        inputs: list[Input] = list(_pictures(workload.pictures, golden, pictures))
    else:
        inputs = [row.input for row in workload.rows]
    if not inputs:
        raise InputError(f"{bundle.folder / WORKLOAD_NAME} holds no inputs.", action="name --texts FILE")
    return MeasuredInputs(inputs, InputsUsed(source="bundle", n=len(inputs), remark=workload.remark))


def bundle_prompts(bundle: Bundle, golden_tokens: list[int], given: list[int] | None) -> MeasuredPrompts:
    """Prompt lengths of a language model: the 10th, 50th and 90th percentile of what `bundle_inputs` would take."""
    if given is not None:
        source, tokens, remark = "file", given, "prompts as long as those of the file that was named"
    elif WORKLOAD_NAME in bundle.manifest.files:
        workload = bundle.read(WORKLOAD_NAME, Workload)
        source, tokens, remark = "bundle", [row.tokens for row in workload.rows], workload.remark
    else:
        source, tokens = "golden", golden_tokens
        remark = f"prompts as long as the {len(tokens)} golden ones: the bundle carries no lengths of its data"
    if not tokens:
        raise InputError(f"{bundle.folder} has no prompts to measure.", action="name --texts FILE")
    lengths = np.percentile(np.asarray(tokens), [10, 50, 90]).round().astype(int).tolist()
    fitting = [min(max(1, length), bundle.manifest.max_tokens - 1) for length in lengths]
    return MeasuredPrompts(sorted(set(fitting)), InputsUsed(source=source, n=len(tokens), remark=remark))


def _shuffled(inputs: list[Input]) -> list[Input]:
    order = np.random.default_rng(0).permutation(len(inputs))
    return [inputs[place] for place in order]


def _pictures(sizes: list[PictureSize], golden: list[Input], folder: Path) -> list[str]:
    """Files of these sizes and formats, made of the bundle's own small golden pictures in turn."""
    require_pillow()
    from PIL import Image

    sources = itertools.cycle([_decoded(str(value)) for value in golden])
    paths: dict[PictureSize, str] = {}
    for size in sizes:
        if size.width * size.height > MOST_PIXELS:
            raise InputError(f"The workload has a picture of {size.width} by {size.height} pixels.")
        if size in paths:
            continue
        path = folder / f"{len(paths)}.{size.format.lower()}"
        with Image.open(io.BytesIO(next(sources))) as source:
            picture = source.convert("RGB").resize((size.width, size.height), Image.Resampling.BICUBIC)
            picture.save(path, format=size.format)
        paths[size] = str(path)
    return [paths[size] for size in sizes]


def _decoded(data_url: str) -> bytes:
    return base64.b64decode(data_url.partition(",")[2])
