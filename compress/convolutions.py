"""Static int8 of a whole graph of convolutions, by ONNX Runtime's own quantizer.

Weights by output channel: depthwise convolutions have a range of their own in each, and one scale for all of them
destroyed MobileNetV2 (0.894 to 0.372 on sign digits), as scales taken at run time did (0.106). Written as QLinearConv
and its kin (QOperator), which is smaller than pairs of QuantizeLinear and as fast.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.compress.calibration import answers, distance
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    from onnx import GraphProto

    from edgetune.compress.material import Material
    from edgetune.tune.data.rows import Input

MOST_PICTURES, BATCH = 192, 8
# Of the weights' bytes, from which share on a graph is one of convolutions and not of products of matrices.
MOST_SHARE = 0.5


def convolution_share(graph: Path) -> float:
    """Share of the bytes of a graph's weights that convolutions hold, 0 to 1."""
    import onnx

    model = onnx.load(str(graph))
    sizes = {tensor.name: onnx.numpy_helper.to_array(tensor).nbytes for tensor in model.graph.initializer}
    held = {name for node in model.graph.node if node.op_type in ("Conv", "FusedConv") for name in node.input[1:]}
    return sum(sizes.get(name, 0) for name in held) / max(1, sum(sizes.values()))


@dataclass(frozen=True)
class Ranges:
    """A way to fix the ranges of activations: ONNX Runtime's name of it, words, and the pictures that it is given."""

    method: str
    words: str
    pictures: int


# On sign digits the second halved the distance of the logits (0.0080 to 0.0044), at twice the time; it holds all values
# of all pictures in memory. Entropy was between the two.
WAYS = (Ranges("MinMax", "min and max", 128), Ranges("Percentile", "the 99.999 percentile", 16))


def quantize_nearest(graph: Path, target: Path, material: Material) -> str:
    """Write `graph` in int8 into `target` by the way that stays nearest to its logits; returns a line that says how.

    Judged on training pictures that no range was measured on.

    Raises:
        CompressError: ONNX Runtime's quantizer refuses the graph by every way, or none gives finite logits.
    """
    encoder = material.encoder
    picked = encoder.probes(material.train.texts, MOST_PICTURES)
    held_back = picked[1::3] or picked
    measured = [picture for place, picture in enumerate(picked) if place % 3 != 1]
    feeds = list(_feeds(material, held_back))
    expected = answers(graph, feeds)
    best, line, refused = float("inf"), "", CompressError("static int8 gives logits that are not finite on pictures")
    for ranges in WAYS:
        trial = target.with_name("trial.onnx")
        try:
            made = quantize_convolutions(graph, trial, material, ranges=ranges, pictures=measured)
        except CompressError as failure:  # no histogram has bins for values that are all but the same
            refused = failure
            continue
        error = distance(expected, answers(trial, feeds))
        if error < best:
            best, line = error, f"{made}; squared logit distance {error:.2g} of their variance"
            trial.replace(target)
        trial.unlink(missing_ok=True)
    if not line:
        raise refused
    return line


def quantize_convolutions(
    graph: Path,
    target: Path,
    material: Material,
    *,
    ranges: Ranges = WAYS[0],
    pictures: Sequence[Input] | None = None,
    per_channel: bool = True,
) -> str:
    """Write `graph` in int8 into `target`, calibrated on training pictures; returns a line that says how.

    Args:
        ranges: how the ranges of activations are fixed.
        pictures: to measure them on; None picks some of the training part.
        per_channel: a scale for each output channel; one for a whole tensor is there to be measured against.

    Raises:
        CompressError: ONNX Runtime's quantizer refuses the graph.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    picked = material.encoder.probes(material.train.texts if pictures is None else pictures, ranges.pictures)
    stripped, prepared = target.with_name("stripped.onnx"), target.with_name("prepared.onnx")
    model = onnx.load(str(graph))
    del model.graph.value_info[:]  # the quantizer infers shapes again, and trips over those that the exporter left
    onnx.save(model, str(stripped))
    with _quiet():
        try:
            quant_pre_process(str(stripped), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(target),
                _Reader(_feeds(material, picked)),
                quant_format=QuantFormat.QOperator,
                per_channel=per_channel,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod[ranges.method],
                nodes_to_exclude=_of_unknown_inputs(onnx.load(str(prepared)).graph),
            )
        except (ValueError, RuntimeError, AttributeError, KeyError, IndexError) as error:
            raise CompressError(f"ONNX Runtime's static quantization failed on this graph: {error}") from error
        finally:
            for path in (stripped, prepared):
                path.unlink(missing_ok=True)
    scales = "channel" if per_channel else "tensor"
    return (
        f"onnxruntime.quantization.quantize_static: QOperator, a scale a {scales}, uint8 activations by {ranges.words} "
        f"of {len(picked)} training pictures"
    )


def _of_unknown_inputs(graph: GraphProto) -> list[str]:
    """The names of nodes with an input of unknown shape, as behind ONNX Runtime's own operators, which ONNX's inference
    does not know: the quantizer leaves such an input in float, and then fails on the node."""
    known = {value.name for value in (*graph.value_info, *graph.input, *graph.output, *graph.initializer)} | {""}
    return [node.name for node in graph.node if node.name and not known.issuperset(node.input)]


def _feeds(material: Material, pictures: Sequence[Input]) -> Iterator[dict[str, Any]]:
    """Batches of pictures as the graph takes them."""
    encoder = material.encoder
    for start in range(0, len(pictures), BATCH):
        yield {"pixel_values": encoder.pad(encoder.rows(pictures[start : start + BATCH]), "np")["pixel_values"]}


class _Reader:
    """Batches one by one, as ONNX Runtime's calibration asks for them."""

    def __init__(self, batches: Iterator[dict[str, Any]]) -> None:
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        """The next batch; None behind the last."""
        return next(self._batches, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's advice on preparations that have been made, and its account of each step."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        root.setLevel(level)
