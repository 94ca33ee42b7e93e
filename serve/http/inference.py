"""POST /v2/models/{name}/infer, the Open Inference Protocol's question: text or ids in, tensors out.

Source: the Open Inference Protocol, version 2, over REST. Reading is apart from answering, so that any bytes can be
tried on it without a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.heads.label import softmax
from edgetune.serve.http import binary
from edgetune.serve.http.access import Visit, header, visit_of
from edgetune.serve.http.answering import Answering, Answers, IdRows
from edgetune.serve.http.errors import invalid
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.tensors import InputTensor, read_matrix, read_texts

ID_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUTS = {"label": "BYTES", "score": "FP32", "scores": "FP32", "truncated": "BOOL", "logits": "FP32"}
TEXT_OUTPUTS = ("label", "score")
ID_OUTPUTS = ("logits",)
MOST_INPUTS = 8


class RequestedOutput(msgspec.Struct):
    """One output that the client names."""

    name: str
    parameters: dict[str, Any] | None = None


class InferenceRequest(msgspec.Struct):
    """The JSON of a question; members that it does not name are left aside, as the protocol wants."""

    inputs: Annotated[list[InputTensor], msgspec.Meta(min_length=1, max_length=MOST_INPUTS)]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestedOutput] | None = None


@dataclass(frozen=True)
class Question:
    """What a client wants answered: texts or rows of ids, and which outputs, True for those in binary.

    `content_type` is given back with outputs of type BYTES where the client named one.
    """

    texts: list[str] | None
    rows: IdRows | None
    outputs: dict[str, bool]
    id: str | None = None
    content_type: str | None = None

    @property
    def count(self) -> int:
        return len(self.texts) if self.texts is not None else len(self.rows.input_ids) if self.rows else 0


_DECODER = msgspec.json.Decoder(InferenceRequest)


def read_question(body: bytes, header_length: int | None) -> Question:
    """Understand a request's body; `header_length` is its JSON part's bytes where tensors stand behind it.

    Raises:
        Refused: 400; it is not what the protocol allows, or not what a text classifier takes.
    """
    if header_length == 0:
        return Question([_raw_text(body)], None, dict.fromkeys(TEXT_OUTPUTS, False))
    end = len(body) if header_length is None else header_length
    try:
        request = _DECODER.decode(memoryview(body)[:end])
    except NOT_JSON as error:
        raise invalid(
            f"The body is no inference request: {error}.", expected="inputs with name, shape, datatype, data"
        ) from error
    parameters = request.parameters or {}
    blob = binary.Blob(memoryview(body)[end:])
    texts, rows = _inputs(request.inputs, blob, parameters.get("content_type"))
    blob.finish()
    return Question(
        texts=texts,
        rows=rows,
        outputs=_outputs(request, TEXT_OUTPUTS if rows is None else ID_OUTPUTS),
        id=request.id,
        content_type="str" if "str" in (parameters.get("content_type"), request.inputs[0].content_type) else None,
    )


def _raw_text(body: bytes) -> str:
    """Triton's raw request: no JSON at all, the whole body is the one element of the one input."""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(f"The body is not UTF-8 at byte {error.start}.", expected="one text") from error


def _inputs(tensors: list[InputTensor], blob: binary.Blob, told: object) -> tuple[list[str] | None, IdRows | None]:
    """The texts of a single BYTES tensor, whatever it is called, or the rows of ids."""
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise invalid("Two inputs have the same name.", expected="each input once")
    if tensors[0].is_text and len(tensors) == 1:
        content_type = tensors[0].content_type
        return read_texts(tensors[0], blob, told if content_type is None else content_type), None
    strangers = [name[:80] for name in names if name not in ID_INPUTS]
    missing = [name for name in ID_INPUTS[:2] if name not in names]
    if strangers or missing:
        found = f"There is no input {', '.join(strangers)}" if strangers else f"{' and '.join(missing)} is missing"
        raise invalid(
            found + ".", expected="one BYTES tensor of texts, or input_ids and attention_mask [and token_type_ids]"
        )
    matrices = {tensor.name: read_matrix(tensor, blob) for tensor in tensors}
    if len({matrix.shape for matrix in matrices.values()}) > 1:
        shapes = ", ".join(f"{name} {list(matrix.shape)}" for name, matrix in matrices.items())
        raise invalid(f"The inputs differ in shape: {shapes}.", expected="one shape for all")
    return None, IdRows(matrices["input_ids"], matrices["attention_mask"], matrices.get("token_type_ids"))


def _outputs(request: InferenceRequest, default: tuple[str, ...]) -> dict[str, bool]:
    """The outputs by name, and whether each is wanted in binary: the server's choice where the client names none."""
    everywhere = _flag(request.parameters, "binary_data_output", default=False)
    wanted: dict[str, bool] = {}
    for output in request.outputs or ():
        if output.name not in OUTPUTS:
            raise invalid(f"There is no output {output.name[:80]}.", expected=" or ".join(OUTPUTS))
        if output.name in wanted:
            raise invalid(f"The output {output.name} is asked for twice.", expected="each output once")
        wanted[output.name] = _flag(output.parameters, "binary_data", default=everywhere)
    return wanted or dict.fromkeys(default, everywhere)


def _flag(parameters: dict[str, Any] | None, name: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"The parameter {name} is {value!r:.40}.", expected="true or false")
    return value


_Tensor = list[str] | NDArray[Any]


def write_answer(question: Question, answers: Answers, labels: tuple[str, ...], model: str, version: str) -> Reply:
    """The tensors that were asked for, as the protocol's JSON, with raw bytes behind it where they were wanted."""
    tensors = _tensors(question.outputs, answers, labels)
    outputs, blobs = [], []
    for name, in_binary in question.outputs.items():
        tensor = tensors[name]()
        parameters: dict[str, str | int] = {}
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [len(tensor)]
        output: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": shape}
        if question.content_type and OUTPUTS[name] == "BYTES":
            parameters["content_type"] = question.content_type
        if in_binary:
            blobs.append(_raw(tensor))
            parameters["binary_data_size"] = len(blobs[-1])
        else:
            output["data"] = tensor.ravel().tolist() if isinstance(tensor, np.ndarray) else tensor
        if parameters:
            output["parameters"] = parameters
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": outputs}
    if question.id is not None:
        answer["id"] = question.id
    if not blobs:
        return json_reply(answer)
    body, head = binary.join(answer, blobs)
    return Reply(body, content_type=binary.CONTENT_TYPE, headers=((binary.HEADER_NAME, str(head).encode()),))


def _tensors(wanted: dict[str, bool], answers: Answers, labels: tuple[str, ...]) -> dict[str, Callable[[], _Tensor]]:
    logits = np.ascontiguousarray(answers.logits, dtype=np.float32)
    scores = softmax(logits) if wanted.keys() - {"logits", "truncated"} else logits
    return {
        "label": lambda: [labels[place] for place in scores.argmax(axis=1).tolist()],
        "score": lambda: scores.max(axis=1),
        "scores": lambda: scores,
        "truncated": lambda: np.array(answers.truncated, dtype=bool),
        "logits": lambda: logits,
    }


def _raw(tensor: _Tensor) -> bytes:
    if isinstance(tensor, list):
        return binary.write_elements(tensor)
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()


def _header_length(scope: Scope, body: bytes) -> int | None:
    length = binary.header_length(header(scope, binary.HEADER_NAME), len(body))
    if length == 0 and (header(scope, b"content-type") or "").lower().startswith("application/json"):
        raise invalid(
            "Inference-Header-Content-Length is 0, and the body is told to be JSON.",
            expected="Content-Type: application/octet-stream where the whole body is one raw text",
        )
    return length


class InferRoute:
    """The route, as a bare ASGI application: what Starlette's Request and Response add is not needed here."""

    def __init__(self, answering: Answering, limits: Limits) -> None:
        self._answering = answering
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = "infer"
        reply = await self._limits.attend(scope, receive, partial(self._answer, scope, visit))
        await reply.send(send)

    async def _answer(self, scope: Scope, visit: Visit, body: bytes) -> Reply:
        path: dict[str, str] = scope["path_params"]
        with self._answering.repository.lease(path["name"], path.get("version")) as served:
            visit.model = served.name
            begun = time.perf_counter()
            question = read_question(body, _header_length(scope, body))
            self._answering.metrics.observe_stage(served.name, "parse", time.perf_counter() - begun)
            visit.texts = question.count
            if question.rows is not None:
                answers = await self._answering.ids(served, question.rows)
            else:
                answers = await self._answering.texts(served, question.texts or [])
            return write_answer(question, answers, served.predictor.labels, served.name, served.version)
