"""Graphs in 16-bit floats for a GPU, with the nodes that do not stand it kept in fp32; found by runs, not by a list.

A node is kept where a run of the float graph on training texts shows a value beyond the format's range, or where a
run with every value rounded to the format shows it going astray. Both runs are on the CPU, so the file can be made
where there is no GPU; what a list does say is which operators the CUDA provider has no kernel for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.calibration import Feed, answers, calibration, distance, observe
from edgetune.compress.fusion.surgery import add_constant
from edgetune.compress.layers import tidy
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import onnx_ir

    from edgetune.compress.material import Material

_MOST_FEEDS = 24
_ROUNDS = 4
# From here on an error is none of rounding: so many steps of the format, relative to the value's own size.
_STEPS_ASTRAY = 32
# Of the largest number of a format, what may be used up: other inputs than those that were tried give larger values.
_HEADROOM = 0.5
_ABSENT = {
    # From ONNX Runtime's table of kernels (docs/OperatorKernels.md), its CUDA part.
    "float16": {"Range"},
    "bfloat16": {
        *("Range", "EmbedLayerNormalization", "RelativePositionBias", "GatedRelativePositionBias", "BiasSoftmax"),
        *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd", "ReduceLogSumExp"),
        *("ReduceSumSquare", "Reciprocal", "Cos", "Sin", "Round", "Pad", "Softplus", "Selu", "LeakyRelu", "PRelu"),
        *("Less", "LessOrEqual", "Log", "LogSoftmax", "OneHot", "NonZero"),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """A 16-bit float: its name in onnx and numpy's words, its largest number, its relative step."""

    name: str
    largest: float
    step: float

    @property
    def onnx_type(self) -> onnx_ir.DataType:
        """The type, as onnx_ir has it."""
        import onnx_ir

        return onnx_ir.DataType[self.name.upper()]

    def nearest(self, array: NDArray[np.float32]) -> NDArray[Any]:
        """The array in this format; what is beyond it becomes infinite."""
        with np.errstate(over="ignore"):
            return array.astype(self.onnx_type.numpy())


FORMATS = {"fp16": Format("float16", 65504.0, 2.0**-10), "bf16": Format("bfloat16", 3.3895e38, 2.0**-7)}


@dataclass
class _Seen:
    """What a run of the float graph showed.

    Attributes:
        largest: by value, its largest finite magnitude; float32 values alone.
    """

    largest: dict[str, float] = field(default_factory=dict)


def compress_half(graph: Path, target: Path, material: Material, format_name: str) -> str:
    """Write `graph` in a 16-bit format, inputs int64 and logits float32 as they were.

    Args:
        graph: a float graph.
        target: the file to write.
        material: its training texts show what overflows.
        format_name: "fp16" or "bf16".

    Raises:
        CompressError: the logits are not finite whatever is kept.
    """
    form = FORMATS[format_name]
    texts = calibration(material, graph)
    feeds = _spread(texts.texts)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        scratch = Path(folder)
        seen = _run_float(graph, feeds, scratch / "shown.onnx")
        beyond = _beyond(graph, seen, form)
        astray = _astray(graph, seen, form, feeds, beyond, scratch)
        kept = beyond | astray
        rounded = scratch / "rounded.onnx"
        write_half(graph, rounded, form, set(seen.largest), kept, simulated=True)
        away = distance(answers(graph, texts.held_back), answers(rounded, texts.held_back))
    if not np.isfinite(away):
        raise CompressError(f"the graph gives logits in {format_name} that are not finite on training texts")
    write_half(graph, target, form, set(seen.largest), kept, simulated=False)
    named = f": {', '.join(sorted(kept)[:6])}{', ...' if len(kept) > 6 else ''}" if kept else ""
    return (
        f"{format_name}, {len(kept)} nodes kept in fp32 ({len(beyond)} beyond its range or without a kernel, "
        f"{len(astray)} astray){named}; logit distance on held-back training texts, all values rounded: {away:.2g}"
    )


def _spread(feeds: Sequence[Feed]) -> list[Feed]:
    """Some of the feeds, from the shortest texts to the longest."""
    places = np.linspace(0, len(feeds) - 1, min(_MOST_FEEDS, len(feeds))).round().astype(int)
    return [feeds[place] for place in places]


def _run_float(graph: Path, feeds: Sequence[Feed], scratch: Path) -> _Seen:
    """Run the float graph with every value shown: which are float32, and how large they get."""
    import onnx_ir

    seen = _Seen()
    for values in observe(graph, _read_values(onnx_ir.load(graph)), feeds, scratch):
        for name, value in values.items():
            if getattr(value, "dtype", None) == np.float32:
                seen.largest[name] = max(seen.largest.get(name, 0.0), _largest(value))
    return seen


def _read_values(model: onnx_ir.Model) -> list[str]:
    """Names of what nodes make and something reads; an optional output that nothing reads may not exist at all."""
    outputs = [output for node in model.graph for output in node.outputs]
    return [output.name for output in outputs if output.uses() or output.is_graph_output()]


def _largest(value: NDArray[Any]) -> float:
    finite = value[np.isfinite(value)]
    return float(np.abs(finite).max()) if finite.size else 0.0


def _beyond(graph: Path, seen: _Seen, form: Format) -> set[str]:
    """Keys of nodes that read or make a number beyond half the format's range, or that CUDA has no kernel for in it."""
    import onnx_ir

    kept = set()
    for node in onnx_ir.load(graph).graph:
        values = [value for value in [*node.inputs, *node.outputs] if value is not None]
        largest = max((_magnitude(value, seen) for value in values), default=0.0)
        if largest > _HEADROOM * form.largest or node.op_type in _ABSENT[form.name]:
            kept.add(key_of(node))
    return kept


def _magnitude(value: Any, seen: _Seen) -> float:
    array = float_constant(value)
    return _largest(array) if array is not None else seen.largest.get(value.name, 0.0)


def key_of(node: onnx_ir.Node) -> str:
    """What a node is called here: the name of its first output."""
    return str(node.outputs[0].name)


def float_constant(value: onnx_ir.Value) -> NDArray[np.float32] | None:
    """The array of a float32 initializer, else None."""
    if value is None or not value.is_initializer() or value.const_value.dtype.name != "FLOAT":
        return None
    array: NDArray[np.float32] = value.const_value.numpy()
    return array


def _astray(
    graph: Path, seen: _Seen, form: Format, feeds: Sequence[Feed], beyond: Iterable[str], scratch: Path
) -> set[str]:
    """Keys of nodes whose result is far off, or not finite, though what they read is not; found round by round."""
    kept = set(beyond)
    for _ in range(_ROUNDS):
        errors = _errors(graph, seen, form, feeds, kept, scratch)
        culprits = _culprits(graph, errors, _STEPS_ASTRAY * form.step) - kept
        if not culprits:
            break
        kept |= culprits
    return kept - set(beyond)


def _errors(
    graph: Path, seen: _Seen, form: Format, feeds: Sequence[Feed], kept: set[str], scratch: Path
) -> dict[str, float]:
    """By value, the root mean square of what rounding changes over that of the value itself; infinite for NaN."""
    rounded = scratch / "rounded.onnx"
    write_half(graph, rounded, form, set(seen.largest), kept, simulated=True)
    exact = observe(graph, list(seen.largest), feeds, scratch / "shown.onnx")
    other = observe(rounded, list(seen.largest), feeds, scratch / "shown_rounded.onnx")
    off: dict[str, float] = dict.fromkeys(seen.largest, 0.0)
    size: dict[str, float] = dict.fromkeys(seen.largest, 0.0)
    for first, second in zip(exact, other, strict=True):
        for name, value in first.items():
            finite = np.isfinite(value)
            wide, narrow = value[finite].astype(np.float64), second[name][finite].astype(np.float64)
            off[name] += float(np.sum((wide - narrow) ** 2)) if np.isfinite(narrow).all() else float("inf")
            size[name] += float(np.sum(wide**2))
    return {name: float(np.sqrt(off[name] / size[name])) if size[name] else off[name] for name in off}


def _culprits(graph: Path, errors: dict[str, float], most: float) -> set[str]:
    """Keys of the nodes that turn inputs which are near into an output which is not."""
    import onnx_ir

    culprits = set()
    for node in onnx_ir.load(graph).graph:
        made = max((errors.get(output.name, 0.0) for output in node.outputs), default=0.0)
        read = max((errors.get(value.name, 0.0) for value in node.inputs if value is not None), default=0.0)
        if made > most and read < most / 2:
            # What it reads was rounded by who made it, which may be what it does not stand.
            makers = [value.producer() for value in node.inputs if value is not None and value.name in errors]
            culprits |= {key_of(node), *(key_of(maker) for maker in makers if maker is not None)}
    return culprits


def write_half(graph: Path, target: Path, form: Format, floats: set[str], kept: set[str], *, simulated: bool) -> None:
    """Write `graph` with all but the kept nodes in a 16-bit format.

    Args:
        graph: a float graph.
        target: the file to write.
        form: the format.
        floats: names of the values that are float32.
        kept: keys of the nodes that stay in fp32.
        simulated: leave the nodes in fp32 and round every value they read and make, which runs on any provider.
    """
    import onnx_ir

    model = onnx_ir.load(graph)
    writer = _Rounder(model, form, floats, kept) if simulated else _Halver(model, form, floats, kept)
    writer.write()
    tidy(model)
    onnx_ir.save(model, target)


class _Halver:
    """One pass over a graph in the order of its nodes: constants converted, casts put where the two types meet."""

    def __init__(self, model: onnx_ir.Model, form: Format, floats: set[str], kept: set[str]) -> None:
        self.model = model
        self.form = form
        self.floats = floats
        self.kept = kept
        self.halves: set[str] = set()
        self.casts: dict[tuple[str, bool], Any] = {}

    def write(self) -> None:
        for node in list(self.model.graph):
            half = key_of(node) not in self.kept
            for place, value in enumerate(node.inputs):
                new = None if value is None else self._input(node, value, half)
                if new is not None:
                    node.replace_input_with(place, new)
            if half:
                self._convert_attributes(node)
                self.halves |= {output.name for output in node.outputs if output.name in self.floats}
        self._restore_outputs()

    def _input(self, node: onnx_ir.Node, value: onnx_ir.Value, half: bool) -> onnx_ir.Value | None:
        """What the node reads in the place of `value`; None where it stays."""
        array = float_constant(value)
        if array is not None:
            return self._constant(value.name, array) if half else None
        if value.name not in self.floats or (value.name in self.halves) == half:
            return None
        return self._cast(node, value, half)

    def _constant(self, name: str, array: NDArray[np.float32]) -> onnx_ir.Value:
        return add_constant(self.model, f"{name}_{self.form.name}", self.form.nearest(array))

    def _cast(self, node: onnx_ir.Node, value: onnx_ir.Value, half: bool) -> onnx_ir.Value:
        import onnx_ir

        if (value.name, half) not in self.casts:
            to = self.form.onnx_type if half else onnx_ir.DataType.FLOAT
            cast = onnx_ir.node("Cast", [value], attributes={"to": to.value})
            cast.outputs[0].name = f"{value.name}_{self.form.name if half else 'float32'}"
            self.model.graph.insert_before(node, cast)
            self.casts[value.name, half] = cast.outputs[0]
        return self.casts[value.name, half]

    def _convert_attributes(self, node: onnx_ir.Node) -> None:
        """Constants within nodes, and the target of a Cast."""
        import onnx_ir

        if node.op_type == "Cast" and node.attributes.get_int("to", 0) == onnx_ir.DataType.FLOAT.value:
            node.attributes["to"] = onnx_ir.AttrInt64("to", self.form.onnx_type.value)
        value = node.attributes.get("value")
        if node.op_type in ("Constant", "ConstantOfShape") and value is not None:
            tensor = value.as_tensor()
            if tensor.dtype == onnx_ir.DataType.FLOAT:
                half = onnx_ir.tensor(self.form.nearest(tensor.numpy()))
                node.attributes["value"] = onnx_ir.AttrTensor("value", half)

    def _restore_outputs(self) -> None:
        """The graph's outputs are float32 under the names they had."""
        import onnx_ir

        for place, output in enumerate(self.model.graph.outputs):
            if output.name in self.halves:
                name = output.name
                output.name = f"{name}_{self.form.name}"
                cast = onnx_ir.node("Cast", [output], attributes={"to": onnx_ir.DataType.FLOAT.value})
                new = cast.outputs[0]
                new.name, new.type, new.shape = name, output.type, output.shape
                output.type = onnx_ir.TensorType(self.form.onnx_type)
                self.model.graph.append(cast)
                self.model.graph.outputs[place] = new
        for node in self.model.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.type, value.shape = None, None


class _Rounder(_Halver):
    """The same graph in fp32, its values rounded to the format and back behind every node that is not kept."""

    def write(self) -> None:
        for node in list(self.model.graph):
            if key_of(node) in self.kept:
                continue
            for place, value in enumerate(node.inputs):
                array = float_constant(value)
                if array is not None:
                    near = self.form.nearest(array).astype(np.float32)
                    node.replace_input_with(place, add_constant(self.model, f"{value.name}_rounded", near))
                elif value is not None and value.name in self.floats:
                    node.replace_input_with(place, self._rounded(node, value))

    def _rounded(self, node: onnx_ir.Node, value: onnx_ir.Value) -> onnx_ir.Value:
        import onnx_ir

        if (value.name, True) not in self.casts:
            there = onnx_ir.node("Cast", [value], attributes={"to": self.form.onnx_type.value})
            back = onnx_ir.node("Cast", there.outputs, attributes={"to": onnx_ir.DataType.FLOAT.value})
            there.outputs[0].name, back.outputs[0].name = f"{value.name}_half", f"{value.name}_rounded"
            self.model.graph.insert_before(node, [there, back])
            self.casts[value.name, True] = back.outputs[0]
        return self.casts[value.name, True]
