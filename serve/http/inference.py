"""POST /v2/models/{name}/infer, the Open Inference Protocol's question: texts or ids in, tensors out.

Source: the Open Inference Protocol, version 2, over REST. Reading is apart from answering, so that any bytes can be
tried on it without a model.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.codecs import Input
from edgetune.serve.heads import PER_TOKEN, Head, OutputTensor
from edgetune.serve.http import binary
from edgetune.serve.http.access import Visit, header, visit_of
from edgetune.serve.http.answering import Answering, Answers, IdRows
from edgetune.serve.http.errors import invalid
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.tensors import InputTensor, read_matrix, read_texts

ID_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
ID_OUTPUTS = ("logits",)
MOST_INPUTS = 8
# What the extensions of Triton that are not here say of an output: unheeded, a client would read something else.
_EXTENSIONS = ("classification", "shared_memory_region")


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
    """What a client wants answered: inputs or rows of ids, and which outputs, True for those in binary.

    `content_type` is given back with outputs of type BYTES where the client named one.
    """

    inputs: Sequence[Input] | None
    rows: IdRows | None
    outputs: dict[str, bool]
    id: str | None = None
    content_type: str | None = None

    @property
    def count(self) -> int:
        return len(self.inputs) if self.inputs is not None else len(self.rows.input_ids) if self.rows else 0


_DECODER = msgspec.json.Decoder(InferenceRequest)


def output_tensors(head: Head, *, cascade: bool = False) -> dict[str, OutputTensor]:
    """All outputs that a model has by name: its head's, the logits, and of a cascade which model answered.

    Of a head on each token the logits are none of them: they are nothing without the places of the tokens. `truncated`
    and `answered_by` are no functions of the logits: of rows of ids nothing is truncated, and the graph
    answers those that no text could give.
    """
    logits = OutputTensor("FP32", head.width, lambda logits: logits)
    truncated = OutputTensor("BOOL", None, lambda logits: np.zeros(len(logits), dtype=bool))
    answered_by = OutputTensor("BYTES", None, lambda logits: [""] * len(logits))
    of_cascade = {"answered_by": answered_by} if cascade else {}
    per_token = head.spec.kind in PER_TOKEN
    return {**head.tensors, "truncated": truncated, **of_cascade, **({} if per_token else {"logits": logits})}


def read_question(
    body: bytes, header_length: int | None, parts: Sequence[str], head: Head, *, cascade: bool = False
) -> Question:
    """Understand a request's body.

    Args:
        body: of the request.
        header_length: its JSON part's bytes where tensors stand behind it.
        parts: names of the texts that the model's inputs are made of.
        head: what the model answers with.
        cascade: whether one of two models does.

    Raises:
        Refused: 400; it is not what the protocol allows, or not what the model takes.
    """
    if header_length == 0:
        return Question(_raw_text(body, parts), None, dict.fromkeys(head.default_tensors, False))
    end = len(body) if header_length is None else header_length
    try:
        request = _DECODER.decode(memoryview(body)[:end])
    except NOT_JSON as error:
        raise invalid(
            f"The body is no inference request: {error}.", expected="inputs with name, shape, datatype, data"
        ) from error
    parameters = request.parameters or {}
    blob = binary.Blob(memoryview(body)[end:])
    inputs, rows = _inputs(request.inputs, blob, parameters.get("content_type"), parts)
    blob.finish()
    if rows is not None and head.spec.kind in PER_TOKEN:
        raise invalid("Token ids do not tell where entities stand in a text.", expected="one BYTES tensor of texts")
    return Question(
        inputs=inputs,
        rows=rows,
        outputs=_outputs(
            request, head.default_tensors if rows is None else ID_OUTPUTS, output_tensors(head, cascade=cascade)
        ),
        id=request.id,
        content_type="str" if "str" in (parameters.get("content_type"), request.inputs[0].content_type) else None,
    )


def _raw_text(body: bytes, parts: Sequence[str]) -> list[str]:
    """Triton's raw request: no JSON at all, the whole body is the one element of the one input."""
    if len(parts) > 1:
        raise invalid("One raw text was sent.", expected=f"the tensors {' and '.join(parts)}")
    try:
        return [body.decode("utf-8")]
    except UnicodeDecodeError as error:
        raise invalid(f"The body is not UTF-8 at byte {error.start}.", expected="one text") from error


def _inputs(
    tensors: list[InputTensor], blob: binary.Blob, content_type: object, parts: Sequence[str]
) -> tuple[Sequence[Input] | None, IdRows | None]:
    """The inputs of a BYTES tensor for each part (a single one may have any name), or the rows of ids."""
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        raise invalid("Two inputs have the same name.", expected="each input once")
    texts = "one BYTES tensor of texts" if len(parts) == 1 else f"BYTES tensors {' and '.join(parts)}"
    if tensors[0].is_text and (len(tensors) == 1 or len(parts) > 1):
        columns = {tensor.name: _texts(tensor, blob, content_type) for tensor in tensors}
        if len(parts) == 1:
            return columns[names[0]], None
        return _pairs(columns, parts, texts), None
    strangers = [name[:80] for name in names if name not in ID_INPUTS]
    missing = [name for name in ID_INPUTS[:2] if name not in names]
    if strangers or missing:
        problem = f"There is no input {', '.join(strangers)}" if strangers else f"{' and '.join(missing)} is missing"
        raise invalid(problem + ".", expected=f"{texts}, or input_ids and attention_mask [and token_type_ids]")
    matrices = {tensor.name: read_matrix(tensor, blob) for tensor in tensors}
    if len({matrix.shape for matrix in matrices.values()}) > 1:
        shapes = ", ".join(f"{name} {list(matrix.shape)}" for name, matrix in matrices.items())
        raise invalid(f"The inputs differ in shape: {shapes}.", expected="one shape for all")
    return None, IdRows(matrices["input_ids"], matrices["attention_mask"], matrices.get("token_type_ids"))


def _texts(tensor: InputTensor, blob: binary.Blob, content_type: object) -> list[str]:
    if not tensor.is_text:
        raise invalid(f"{tensor.name[:80]} is of datatype {tensor.datatype[:40]}.", expected="BYTES, as its fellow is")
    return read_texts(tensor, blob, content_type if tensor.content_type is None else tensor.content_type)


def _pairs(columns: dict[str, list[str]], parts: Sequence[str], texts: str) -> Sequence[Input]:
    """One input of each row of the parts' tensors."""
    strangers = [name[:80] for name in columns if name not in parts]
    if strangers:
        raise invalid(f"There is no input {', '.join(strangers)}.", expected=texts)
    missing = [part for part in parts if part not in columns]
    if missing:
        raise invalid(f"{' and '.join(missing)} is missing.", expected=texts)
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        shown = " and ".join(f"{count} in {name}" for name, count in counts.items())
        raise invalid(f"The texts differ in number: {shown}.", expected="as many of each part")
    return list(zip(*(columns[name] for name in parts), strict=True))


def _outputs(request: InferenceRequest, default: tuple[str, ...], known: Mapping[str, OutputTensor]) -> dict[str, bool]:
    """The outputs by name, and whether each is wanted in binary: the server's choice where the client names none."""
    everywhere = _flag(request.parameters, "binary_data_output", default=False)
    requested: dict[str, bool] = {}
    for output in request.outputs or ():
        if output.name not in known:
            raise invalid(f"There is no output {output.name[:80]}.", expected=" or ".join(known))
        if output.name in requested:
            raise invalid(f"The output {output.name} is asked for twice.", expected="each output once")
        if strange := [name for name in _EXTENSIONS if name in (output.parameters or {})]:
            raise invalid(
                f"The output {output.name} is asked for with the parameter {strange[0]}, an extension that this server "
                "does not have.",
                expected="one of the extensions that /v2 names",
            )
        requested[output.name] = _flag(output.parameters, "binary_data", default=everywhere)
    return requested or dict.fromkeys(default, everywhere)


def _flag(parameters: dict[str, Any] | None, name: str, *, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"The parameter {name} is {value!r:.40}.", expected="true or false")
    return value


_Tensor = list[str] | NDArray[Any]


def write_answer(question: Question, answers: Answers, head: Head, model: str, version: str) -> Reply:
    """The tensors that were asked for, as the protocol's JSON, with raw bytes behind it where they were wanted."""
    logits = np.ascontiguousarray(answers.outputs.logits, dtype=np.float32)
    answered_by = answers.outputs.answered_by
    known = output_tensors(head, cascade=answered_by is not None)
    outputs, blobs = [], []
    for name, in_binary in question.outputs.items():
        datatype = known[name].datatype
        tensor: _Tensor = np.array(answers.truncated) if name == "truncated" else known[name].values(logits)
        if name == "answered_by" and answered_by is not None:
            tensor = answered_by
        parameters: dict[str, str | int] = {}
        shape = list(tensor.shape) if isinstance(tensor, np.ndarray) else [len(tensor)]
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if question.content_type and datatype == "BYTES":
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
    body, json_bytes = binary.join(answer, blobs)
    return Reply(body, content_type=binary.CONTENT_TYPE, headers=((binary.HEADER_NAME, str(json_bytes).encode()),))


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
        with self._answering.repository.lease(visit.asked(path["name"]) or "", path.get("version")) as served:
            visit.model = served.name
            begun = time.perf_counter()
            predictor = served.predictor
            cascade = predictor.small is not None
            question = read_question(
                body, _header_length(scope, body), predictor.codec.parts, predictor.head, cascade=cascade
            )
            self._answering.metrics.observe_stage(served.name, "parse", time.perf_counter() - begun)
            visit.texts = question.count
            if question.rows is not None:
                answers = await self._answering.ids(served, question.rows)
            else:
                answers = await self._answering.inputs(served, question.inputs or [])
            if self._answering.recorder is not None and question.inputs is not None:
                given = predictor.answer(answers.outputs, answers.truncated)
                predictions = [predictor.head.as_json(each, None) for each in given]
                self._answering.recorder.keep_predictions(visit, served, question.inputs, predictions)
            return write_answer(question, answers, predictor.head, served.name, served.version)
