"""One side of the GPU benchmark in a fresh process: token ids on the host in, logits on the host out.

Run as `python -m benchmarks.lab.gpu_contestant --side SETTINGS`, where SETTINGS is one JSON document; then one
JSON command a line on stdin, one answer a line on stdout. A side in ONNX Runtime imports no torch, so that the memory
it takes is that of a server without torch. Every forward ends with its logits on the host, which waits for the GPU.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import ProviderError
from edgetune.serve.session import PROVIDERS, open_session

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
# input_ids and attention_mask, (batch, tokens) int64 both, to logits (batch, labels) float32; all on the host.
Forward = Callable[[Ids, Ids], Logits]
WARM_CALLS, WARM_MS = 3, 50


def torch_forward(model_folder: Path, dtype: str, device: str) -> Forward:
    """The tuned model in PyTorch, eager, all its weights in `dtype`, a type's name in torch."""
    import torch
    from transformers.utils import logging

    from edgetune.tune.models.model import open_model

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Converted before it is moved: the peak on the device is then that of this type, not of fp32.
    model = open_model(model_folder).to(getattr(torch, dtype)).to(device)

    def forward(ids: Ids, mask: Ids) -> Logits:
        with torch.inference_mode():
            inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            logits = model(**{name: value.to(device) for name, value in inputs.items()}).logits
            found: Logits = logits.float().cpu().numpy()
        return found

    return forward


def session_forward(graph: Path, provider: str) -> Forward:
    """A graph in ONNX Runtime as a bundle runs it: numpy in, numpy out.

    Raises:
        ProviderError: the provider does not run here, or would leave nodes to the CPU.
    """
    session = open_session(graph, provider=provider)
    names = [value.name for value in session.get_inputs()]

    def forward(ids: Ids, mask: Ids) -> Logits:
        (logits,) = session.run(None, _feed(names, ids, mask))
        found: Logits = logits
        return found

    return forward


class BoundForward:
    """A graph whose inputs and outputs lie in buffers made once a shape, so that CUDA graphs can be captured.

    ONNX Runtime captures at the first calls of a shape and replays from then on; each shape has a `gpu_graph_id` of its
    own, since a captured graph is replayed whatever shape is bound (onnxruntime.ai, CUDA execution provider, "Using
    CUDA Graphs"). On the CPU provider the same buffers are used and nothing is captured.

    Args:
        graph: the ONNX file.
        provider: "cpu" or "cuda".
        labels: width of the logits.
    """

    def __init__(self, graph: Path, provider: str, labels: int) -> None:
        import onnxruntime

        self._runtime: Any = onnxruntime
        self._provider = provider
        self._labels = labels
        self._session = (
            _capturing_session(onnxruntime, graph) if provider == "cuda" else open_session(graph, provider="cpu")
        )
        self._names = [value.name for value in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._bound: dict[tuple[int, ...], tuple[Any, Any, dict[str, Any], Any]] = {}

    def __call__(self, ids: Ids, mask: Ids) -> Logits:
        feed = _feed(self._names, ids, mask)
        if ids.shape not in self._bound:
            self._bound[ids.shape] = self._bind(feed, len(ids))
        binding, options, inputs, output = self._bound[ids.shape]
        for name, value in feed.items():
            inputs[name].update_inplace(value)
        self._session.run_with_iobinding(binding, options)
        # A copy: on the CPU the array is the buffer itself, which the next call overwrites.
        return np.array(output.numpy(), dtype=np.float32)

    @property
    def shapes(self) -> int:
        """How many shapes have buffers."""
        return len(self._bound)

    def _bind(self, feed: dict[str, Ids], batch: int) -> tuple[Any, Any, dict[str, Any], Any]:
        make = self._runtime.OrtValue.ortvalue_from_numpy
        binding, options = self._session.io_binding(), self._runtime.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._bound) + 1))  # 0 is ONNX Runtime's own
        inputs = {name: make(value.copy(), self._provider, 0) for name, value in feed.items()}
        output = make(np.zeros((batch, self._labels), dtype=np.float32), self._provider, 0)
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_ortvalue_output(self._output, output)
        return binding, options, inputs, output


def _capturing_session(runtime: Any, graph: Path) -> Any:
    """A session that captures CUDA graphs; it may leave arithmetic on shapes to the CPU, which capturing allows."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()
    wanted = PROVIDERS["cuda"]
    session = runtime.InferenceSession(str(graph), options, providers=[(wanted, {"enable_cuda_graph": "1"})])
    if session.get_providers()[0] != wanted:
        raise ProviderError(f"With CUDA graphs the session fell back to {session.get_providers()[0]}.")
    return session


def _feed(names: Sequence[str], ids: Ids, mask: Ids) -> dict[str, Ids]:
    """What a graph reads, by name; single texts have token type 0 throughout."""
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: known[name] for name in names}


def filled(rows: Sequence[Sequence[int]], batch: int, tokens: int) -> tuple[Ids, Ids]:
    """Ids of real texts laid end to end until every place of the shape is taken, and a mask of ones."""
    run = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows])
    return np.resize(run, (batch, tokens)), np.ones((batch, tokens), dtype=np.int64)


def answer(
    forward: Forward, rows: Sequence[Sequence[int]], shapes: Sequence[tuple[int, int]], pad: int
) -> list[list[float]]:
    """Logits of all rows, in their order, in the very shapes that are timed: sorted by length, padded up to a shape."""
    batch, lengths = max(batch for batch, _ in shapes), sorted({tokens for _, tokens in shapes})
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    logits: list[list[float]] = [[] for _ in rows]
    for start in range(0, len(order), batch):
        picked = order[start : start + batch]
        tokens = next(tokens for tokens in lengths if tokens >= len(rows[picked[-1]]))
        ids = np.full((batch, tokens), pad, dtype=np.int64)
        mask = np.zeros((batch, tokens), dtype=np.int64)
        # The last batch is filled up with its last row: a row of padding alone has no answer.
        for place, row in enumerate([*picked, *[picked[-1]] * (batch - len(picked))]):
            ids[place, : len(rows[row])] = rows[row]
            mask[place, : len(rows[row])] = 1
        for row, values in zip(picked, forward(ids, mask), strict=False):
            logits[row] = [float(value) for value in values]
    return logits


def time_calls(forward: Forward, ids: Ids, mask: Ids, calls: int) -> list[float]:
    """Milliseconds of each of `calls` forwards, behind some that are not counted."""
    warm_until, warmed = time.perf_counter() + WARM_MS / 1000, 0
    while warmed < WARM_CALLS or time.perf_counter() < warm_until:
        forward(ids, mask)
        warmed += 1
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        forward(ids, mask)
        times.append(1000 * (time.perf_counter() - start))
    return times


def open_forward(settings: dict[str, Any]) -> Forward:
    """The side that the settings name."""
    device = settings["device"]
    if settings["runtime"] == "torch":
        return torch_forward(Path(settings["model"]), settings["dtype"], device)
    if settings["captured"]:
        return BoundForward(Path(settings["graph"]), device, settings["labels"])
    return session_forward(Path(settings["graph"]), device)


def torch_peak_bytes() -> int | None:
    """The most that torch's allocator held on the GPU; None in a side without torch, whose memory it does not see."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def main() -> None:
    """Open one side, answer once in the smallest shape, say so, then serve commands until stdin ends."""
    settings = json.loads(sys.argv[sys.argv.index("--side") + 1])
    rows = json.loads(Path(settings["rows"]).read_text(encoding="utf-8"))
    shapes = [(batch, tokens) for batch, tokens in settings["shapes"]]
    forward = open_forward(settings)
    forward(*filled(rows, *shapes[0]))
    _say({"opened": settings["side"]})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "time":
            inputs = filled(rows, command["batch"], command["tokens"])
            _say({"ms": time_calls(forward, *inputs, command["calls"])})
        elif command["do"] == "answer":
            _say({"logits": answer(forward, rows, shapes, settings["pad"])})
        else:
            _say({"torch_peak_bytes": torch_peak_bytes()})


def _say(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
