"""What a decoder loses by each of its matrices in few bits, measured: the table that the scheme `mixed` is chosen from.

One matrix at a time is replaced by what its levels stand for, in the float graph, and the next-token distributions are
held against those of the graph as it is: small losses of single matrices nearly add up. Of a deep model some of the
matrices of each kind are measured; what lies between two of them, and the other settings of a matrix, follow by the
squared error, weighed by the Hessian, since a small loss is quadratic in the error (as in OBQ, Frantar and Alistarh
2022, arXiv 2208.11580). Must not import onnx_ir at module level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgetune.compress.gptq.graph_file import open_graph, write_graph
from edgetune.compress.gptq.head import write_all_positions
from edgetune.compress.gptq.hessians import Calibration, hessians
from edgetune.compress.gptq.matrices import FloatArray, Matrix, find_matrices
from edgetune.compress.gptq.prefill import prefill_feed, starting_past, usable_sequences
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.rounding import nearest
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnxruntime

# Tokens that one matrix is measured on, of texts cut to so many: every measured matrix is a pass over them.
MEASURED_TOKENS, TEXT_TOKENS = 256, 64
# Matrices that are measured; of more those between two of a kind get a loss from both.
MOST_MEASURED = 64
# Tokens for the Hessians, and rows of a matrix that its errors are taken from: to compare settings few are enough.
HESSIAN_TOKENS, ERROR_ROWS = 4096, 512
WIDE_BLOCKS = (64, 128)
# Below this a loss is rounding in the products, and no matrix is taken to lose nothing at all.
LEAST_NATS = 1e-7
# Of a matrix of whole numbers, which 4 bits hold as they are.
LEAST_ERROR = 1e-30


class Setting(msgspec.Struct, frozen=True):
    """One way to store a matrix: bits, weights to a scale, the bytes it then takes, and its measured loss.

    `nats` is the mean KL divergence of a token from the float graph with this matrix alone changed.
    """

    bits: int
    block: int
    stored_bytes: int
    nats: float


class Sensitivities(msgspec.Struct, frozen=True):
    """The settings of each matrix that can be quantized, by its name."""

    matrices: dict[str, list[Setting]]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def open(cls, path: Path) -> Sensitivities:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def measure_sensitivities(
    graph: Path, texts: Sequence[Sequence[int]], spec: GenerationSpec, *, block: int, threads: int | None = None
) -> Sensitivities:
    """What each matrix of a float decoder graph loses in 4 and 8 bits, in blocks of `block`, 64 and 128.

    Args:
        graph: the decoder graph in fp32.
        texts: token ids; some are measured on, and GPTQ is calibrated on the others.
        spec: how the graph is fed.
        block: weights that share a scale in the narrower settings.
        threads: of a run; None takes the cores that this process may use.

    Raises:
        CompressError: there are no texts, nothing can be quantized, or GPTQ failed on a matrix.
    """
    measured, calibrating = _split(usable_sequences(texts, spec))
    matrices = {one.name: one for one in find_matrices(open_graph(graph)) if not one.why_left and one.block_for(block)}
    if not matrices:
        raise CompressError("no weight matrix of this graph can be quantized", action="take the scheme fp32")
    measured_names = _to_measure(list(matrices.values()))
    errors: dict[str, list[Setting]] = {}
    nats: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=graph.parent, prefix=".sensitivity-") as scratch:
        probe = Probe(graph, Path(scratch, "probe.onnx"), measured_names, measured, spec, threads)
        for name, hessian in _with_hessians(graph, matrices, Calibration(calibrating, spec, threads)):
            matrix = matrices[name]
            errors[name] = _errors(matrix, hessian, block)
            if name in measured_names:
                narrowest = Choice(errors[name][0].bits, errors[name][0].block, "gptq")
                restored = narrowest.blocks(matrix.rows(), hessian).restored()
                nats[name] = max(probe.nats(matrix, restored), LEAST_NATS)
    factors = _factors(list(matrices.values()), {name: loss / errors[name][0].nats for name, loss in nats.items()})
    return Sensitivities({name: _losses(errors[name], factors[name]) for name in matrices})


def _split(texts: tuple[tuple[int, ...], ...]) -> tuple[list[tuple[int, ...]], tuple[tuple[int, ...], ...]]:
    """Texts to measure on, spread over all, and those to calibrate on; of a single text both are that text."""
    count = min(MEASURED_TOKENS // TEXT_TOKENS, max(1, len(texts) // 2))
    places = {int(place) for place in np.linspace(0, len(texts) - 1, count)}
    measured = [texts[place][:TEXT_TOKENS] for place in sorted(places)]
    others = [ids for place, ids in enumerate(texts) if place not in places] or list(texts)
    tokens = sum(map(len, others))
    return measured, tuple(others[:: -(-tokens // HESSIAN_TOKENS)])


def _with_hessians(
    graph: Path, matrices: dict[str, Matrix], calibration: Calibration
) -> Iterator[tuple[str, FloatArray | None]]:
    """Every matrix's name, with the Hessian of what multiplies by it; None of what is only looked up."""
    multiplied = [name for name, matrix in matrices.items() if matrix.products]
    yield from hessians(graph, multiplied, calibration)
    yield from ((name, None) for name in matrices if name not in multiplied)


def _kinds(matrices: Sequence[Matrix]) -> list[list[str]]:
    """The names of matrices that do the same in other layers, in their order: of one shape, and read alike."""
    kinds: dict[object, list[str]] = {}
    for matrix in matrices:
        after = {use.node.op_type for product in matrix.products for use in product.tail.outputs[0].uses()}
        shape = tuple(matrix.value.const_value.shape.numpy())
        kinds.setdefault((shape, len(matrix.lookups), *sorted(after)), []).append(matrix.name)
    return list(kinds.values())


def _to_measure(matrices: Sequence[Matrix]) -> list[str]:
    """The names of those that are measured: all of few; of many some of each kind, its ends among them."""
    if len(matrices) <= MOST_MEASURED:
        return [matrix.name for matrix in matrices]
    names = []
    for kind in _kinds(matrices):
        count = min(len(kind), max(2, round(MOST_MEASURED * len(kind) / len(matrices))))
        names += [kind[int(place)] for place in sorted(set(np.linspace(0, len(kind) - 1, count).round()))]
    return names


def _factors(matrices: Sequence[Matrix], measured: dict[str, float]) -> dict[str, float]:
    """Nats for a unit of squared error of every matrix; between two measured ones of a kind by their logarithms."""
    factors: dict[str, float] = {}
    for kind in _kinds(matrices):
        places = [place for place, name in enumerate(kind) if name in measured]
        logarithms = np.log([measured[kind[place]] for place in places])
        factors.update(zip(kind, np.exp(np.interp(range(len(kind)), places, logarithms)).tolist(), strict=True))
    return factors


def _errors(matrix: Matrix, hessian: FloatArray | None, block: int) -> list[Setting]:
    """The settings of a matrix from the narrowest on, each with its squared error in the place of `nats`.

    Rounded to nearest: GPTQ takes several times as long and loses less by about the same factor in each.
    """
    weight = matrix.rows()
    step = -(-len(weight) // ERROR_ROWS)
    sample = weight[::step]
    fitting = {matrix.block_for(size) for size in (block, *WIDE_BLOCKS)}
    settings = []
    for bits in (4, 8):
        for size in sorted(size for size in fitting if size):
            levels = nearest(sample, bits, size)
            error = _squared_error(levels.restored() - sample, hessian) * len(weight) / len(sample)
            stored = levels.stored_bytes // len(sample) * len(weight)
            settings.append(Setting(bits, size, stored, max(error, LEAST_ERROR)))
    return settings


def _losses(errors: Sequence[Setting], factor: float) -> list[Setting]:
    return [msgspec.structs.replace(setting, nats=setting.nats * factor) for setting in errors]


def _squared_error(error: FloatArray, hessian: FloatArray | None) -> float:
    """The mean square of what an error (outputs, inputs) adds to a product, up to a factor: tr(E H E^T)."""
    weighed = error if hessian is None else error @ hessian
    return float(np.einsum("oi,oi->", weighed, error, dtype=np.float64))


class Probe:
    """The float graph with the logits of all positions, in which one matrix at a time can be another."""

    def __init__(
        self,
        graph: Path,
        scratch: Path,
        names: Sequence[str],
        texts: Sequence[Sequence[int]],
        spec: GenerationSpec,
        threads: int | None,
    ) -> None:
        """Open it: `names` are its matrices, `scratch` a file to write, `texts` what it is run on."""
        write_all_positions(graph, scratch)
        model = open_graph(scratch)
        # A graph's input that is an initializer too can be fed, and holds the initializer where it is not.
        model.graph.inputs.extend(model.graph.initializers[name] for name in names)
        opened = scratch.with_name(f"open-{scratch.name}")
        write_graph(model, opened)
        self._session: onnxruntime.InferenceSession = open_session(
            opened, provider="cpu", threads=threads, spinning=False
        )
        past = starting_past(graph, spec)
        self._feeds = [prefill_feed(self._session, ids, spec, past) for ids in texts]
        self._reference = [_log_probabilities(self._logits(feed)) for feed in self._feeds]
        self._probabilities = [np.exp(one) for one in self._reference]

    def nats(self, matrix: Matrix, rows: FloatArray) -> float:
        """The mean KL divergence of a token with `rows` (outputs, inputs) float32 in the place of a matrix."""
        weight = np.ascontiguousarray(rows.T) if matrix.is_transposed else rows
        total, tokens = 0.0, 0
        for feed, expected, shares in zip(self._feeds, self._reference, self._probabilities, strict=True):
            changed = _log_probabilities(self._logits({**feed, matrix.name: weight}))
            total += float((shares * (expected - changed)).sum(dtype=np.float64))
            tokens += len(expected)
        if not np.isfinite(total):
            raise CompressError(f"the logits are not finite with {matrix.name} in few bits")
        return total / tokens

    def _logits(self, feed: dict[str, Any]) -> FloatArray:
        logits: FloatArray = self._session.run(["logits"], feed)[0][0]
        return logits


def _log_probabilities(logits: FloatArray) -> FloatArray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted
