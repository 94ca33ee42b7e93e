"""Answering rows in a process of its own, which an emulator of another processor may run: the packed runtime, whole.

`python -m edgetune.serve.answer_rows BUNDLE FOLDER SECONDS` reads `FOLDER/inputs.json`, inputs as data sets have them,
and writes their outputs and what the golden answers gave. Stands on the floor, since nothing else is there on Arm.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgetune.serve.errors import BundleDamaged, EdgetuneError
from edgetune.serve.targets import target_here
from edgetune.serve.token_outputs import empty

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUTS_NAME, OUTPUTS_NAME, RESULT_NAME = "inputs.json", "outputs.npy", "result.json"


class RowsResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the process found beside the outputs.

    `target` is the class of processor that it took itself to be on; `scheme` that of the graph that answered there;
    `golden` the largest difference of a golden logit; `fault` says which golden answers differ by more than allowed,
    or, without a scheme, why nothing was answered.
    """

    target: str
    scheme: str
    golden: float = 0.0
    fault: str = ""


def answer_rows(bundle: Path, folder: Path, seconds: float) -> RowsResult:
    """Answer the inputs in `folder` one a run, until so many seconds of processor time have gone, one row at least.

    Writes the outputs of the first rows, (rows, width) float32, of a head on each token (rows, tokens, 2 + width).
    """
    from edgetune.serve.codecs import codec_inputs
    from edgetune.serve.golden import replay_all
    from edgetune.serve.loading import load

    predictor = load(bundle, threads=1, spinning=False, verify=False, eager=True)
    inputs: list[Any] = msgspec.json.decode((folder / INPUTS_NAME).read_bytes())
    rows = predictor.encode(codec_inputs(predictor.bundle.manifest.codec, inputs))
    outputs, until = [], time.process_time() + seconds
    for row in rows:
        outputs.append(predictor.logits([row], batch_size=1))
        if time.process_time() > until:
            break
    np.save(folder / OUTPUTS_NAME, joined(outputs))
    result = RowsResult(target=target_here(), scheme=predictor.variant)
    try:
        golden = replay_all(predictor)[predictor.variant].max_abs_diff
    except BundleDamaged as error:
        return msgspec.structs.replace(result, fault=error.found)
    return msgspec.structs.replace(result, golden=golden)


def joined(outputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Outputs of single rows, each (1, ...) float32, as those of all rows; of tokens, with the longest row's tokens."""
    if outputs[0].ndim == 2:
        return np.concatenate(outputs)
    together = empty(len(outputs), max(one.shape[1] for one in outputs), outputs[0].shape[2] - 2)
    for place, one in enumerate(outputs):
        together[place, : one.shape[1]] = one[0]
    return together


def main() -> None:
    """The process: arguments as the module says."""
    bundle, folder, seconds = sys.argv[1:]
    try:
        result = answer_rows(Path(bundle), Path(folder), float(seconds))
    except EdgetuneError as error:
        result = RowsResult(target=target_here(), scheme="", fault=error.found)
    (Path(folder) / RESULT_NAME).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
