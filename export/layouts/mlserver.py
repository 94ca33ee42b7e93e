"""MLServer, and KServe through it: a model repository whose runtime module embeds edgetune's predictor.

Sources: MLServer's documents "Model Settings", "MLServer Settings" and "Custom Inference Runtimes" with its settings.py
and repository.py, and KServe's ClusterServingRuntime for MLServer.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from edgetune import __version__
from edgetune.export.layouts import model_name
from edgetune.export.layouts.embedded import (
    BUNDLE_FOLDER,
    bundle_faults,
    copy_bundle,
    floor_requirement,
    input_parts,
    read_json,
    read_source,
    requirement_lines,
    write_json,
)
from edgetune.serve.bundle import Bundle
from edgetune.serve.heads import Head, open_head

HELP = "MLServer, and KServe through it: texts in, answers out, by the version 2 protocol."
# MLServer listens on every address unless it is told otherwise.
RUN = "pip install -r FOLDER/requirements.txt && MLSERVER_HOST=127.0.0.1 mlserver start FOLDER"

MODULE, CLASS = "edgetune_runtime", "TextClassifier"
REQUIREMENT = "mlserver==1.7.1"

# Of the version 2 protocol.
_DATATYPES = set("BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 BYTES".split())

_RUNTIME = '''\
"""A bundle in MLServer: BYTES texts in; the outputs OUTPUTS of each text out."""

import json
from pathlib import Path

from edgetune.serve import EdgetuneError, load
from edgetune.serve.errors import Overloaded
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InferenceError, MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput, ResponseOutput
from mlserver.utils import get_model_uri


class TextClassifier(MLModel):
    """Answers with edgetune's predictor, which joins concurrent requests into runs of the graph."""

    async def load(self) -> bool:
        self._predictor = load(Path(await get_model_uri(self.settings)))
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        try:
            answers = await self._predictor.predict_async(self._inputs(payload.inputs))
        except Overloaded as error:
            raise MLServerError(str(error), 503) from error
        except EdgetuneError as error:
            raise InferenceError(str(error)) from error
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[
                _output(name, [getattr(answer, name) for answer in answers])
                for name in self._predictor.head.default_tensors
            ],
        )

    def _inputs(self, given: list[RequestInput]) -> list:
        parts = self._predictor.codec.parts
        if len(given) != len(parts):
            raise InferenceError(f"{len(given)} inputs were given; expected {len(parts)}, of BYTES texts.")
        if len(parts) == 1:
            return self._texts(given[0])
        columns = {one.name: self._texts(one) for one in given}
        if columns.keys() != set(parts) or len({len(column) for column in columns.values()}) != 1:
            raise InferenceError(f"The inputs are not as many texts of each of {', '.join(parts)}.")
        return list(zip(*(columns[part] for part in parts)))

    def _texts(self, given: RequestInput) -> list[str]:
        datatype = getattr(given.datatype, "value", given.datatype)
        if datatype != "BYTES":
            raise InferenceError(f"{given.name} is of datatype {datatype}; expected BYTES.")
        try:
            found = self.decode(given, default_codec=StringCodec)
            return [one.decode("utf-8") if isinstance(one, bytes) else one for one in found]
        except UnicodeDecodeError as error:
            raise InferenceError(f"{given.name} holds a text that is not UTF-8.") from error

    async def unload(self) -> bool:
        self._predictor.close()
        return True


def _json(value) -> str:
    return json.dumps(value, ensure_ascii=False, default=lambda entity: entity.as_json())


def _output(name: str, values: list) -> ResponseOutput:
    """One output: texts, lists as JSON, or numbers and scores by label as rows of FP32."""
    if isinstance(values[0], (str, list)):
        texts = [value if isinstance(value, str) else _json(value) for value in values]
        return StringCodec.encode_output(name, texts)
    rows = [list(value.values()) if isinstance(value, dict) else [value] for value in values]
    data = [number for row in rows for number in row]
    return ResponseOutput(name=name, datatype="FP32", shape=[len(rows), len(rows[0])], data=data)
'''

_KSERVE = """\
# KServe runs MLServer with edgetune in it. IMAGE is one that you build: `pip install -r requirements.txt` of this
# folder on a Python image. STORAGE is where this whole folder was uploaded (s3://, gs://, pvc://, ...); KServe puts it
# to /mnt/models. Not applied to a cluster when it was written: it follows KServe's own runtime for MLServer.
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: edgetune-mlserver
spec:
  supportedModelFormats:
    - name: edgetune
      version: "1"
      autoSelect: true
  protocolVersions:
    - v2
  containers:
    - name: kserve-container
      image: IMAGE
      command: ["mlserver", "start", "/mnt/models"]
      env:
        - name: MLSERVER_HTTP_PORT
          value: "8080"
        - name: MLSERVER_GRPC_PORT
          value: "9000"
      ports:
        - containerPort: 8080
          protocol: TCP
      securityContext:
        allowPrivilegeEscalation: false
        privileged: false
        runAsNonRoot: true
        capabilities:
          drop: ["ALL"]
---
# Ask it by the model's own name: POST /v2/models/MODEL/infer
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: SERVICE
spec:
  predictor:
    model:
      modelFormat:
        name: edgetune
      protocolVersion: v2
      runtime: edgetune-mlserver
      storageUri: STORAGE
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder: settings.json, requirements.txt, kserve.yaml; NAME/ with settings, runtime and bundle."""
    name = model_name(bundle)
    model = folder / name
    copy_bundle(bundle, model)
    head = open_head(bundle.manifest.answer_heads[0])
    runtime = _RUNTIME.replace("OUTPUTS", " and ".join(head.default_tensors))
    (model / f"{MODULE}.py").write_text(runtime, encoding="utf-8")
    write_json(model / "model-settings.json", _model_settings(name, input_parts(bundle), head))
    # No worker process: the graph runs in threads of its own, and one process holds the weights once.
    write_json(folder / "settings.json", {"debug": False, "parallel_workers": 0})
    requirements = f"{floor_requirement(bundle)}\n{REQUIREMENT}\n"
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    service = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-")[:63] or "model"  # as Kubernetes names things
    kserve = _KSERVE.replace("SERVICE", service).replace("MODEL", name)
    (folder / "kserve.yaml").write_text(kserve, encoding="utf-8")


def _model_settings(name: str, parts: tuple[str, ...], head: Head) -> dict[str, object]:
    text = {"datatype": "BYTES", "shape": [-1], "parameters": {"content_type": "str"}}
    outputs: list[dict[str, object]] = []
    for output in head.default_tensors:
        tensor = head.tensors[output]
        shape = [-1] if tensor.columns is None else [-1, tensor.columns]
        numbers = {"datatype": tensor.datatype, "shape": shape}
        outputs.append({"name": output, **(text if tensor.datatype == "BYTES" else numbers)})
    return {
        "name": name,
        "implementation": f"{MODULE}.{CLASS}",
        "platform": "edgetune",
        "versions": [f"edgetune/{__version__}"],
        "inputs": [{"name": part, **text} for part in parts],
        "outputs": outputs,
        "parameters": {"uri": f"./{BUNDLE_FOLDER}"},
    }


def check(folder: Path) -> list[str]:
    """The faults of a folder: settings that MLServer reads, a runtime for each model, pinned packages, whole bundle."""
    faults: list[str] = []
    settings = read_json(folder / "settings.json", faults)
    workers = settings.get("parallel_workers", 0)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        faults.append(f"settings.json: parallel_workers is {workers!r}")
    lines = requirement_lines(folder / "requirements.txt", faults)
    for package in ("mlserver", "edgetune"):
        if not any(re.match(rf"{package}(\[[\w,]+\])?==", line) for line in lines):
            faults.append(f"requirements.txt does not bring {package}")
    # MLServer takes every folder below its own that holds a model-settings.json.
    models = sorted(path.parent for path in folder.rglob("model-settings.json"))
    if not models:
        faults.append("no folder holds a model-settings.json")
    names = [model.name for model in models]
    faults += [f"two models are called {name}" for name in dict.fromkeys(names) if names.count(name) > 1]
    return faults + [f"{model.name}: {fault}" for model in models for fault in _model_faults(model)]


def _model_faults(model: Path) -> list[str]:
    faults: list[str] = []
    settings = read_json(model / "model-settings.json", faults)
    if settings.get("name", model.name) != model.name:
        faults.append(f"the name {settings['name']!r} is not that of its folder")
    module, _, name = str(settings.get("implementation", "")).rpartition(".")
    if not (module and name):
        faults.append("model-settings.json names no implementation as module.Class")
    else:
        faults += _runtime_faults(read_source(model / f"{module}.py", faults), name)
    for kind in ("inputs", "outputs"):
        faults += _tensor_faults(kind, settings.get(kind))
    parameters = settings.get("parameters")
    uri = parameters.get("uri") if isinstance(parameters, dict) else None
    if uri != f"./{BUNDLE_FOLDER}":
        return [*faults, f"parameters.uri is {uri!r} and not the folder of the bundle, ./{BUNDLE_FOLDER}"]
    return faults + bundle_faults(model)


def _runtime_faults(source: ast.Module, name: str) -> list[str]:
    classes = {node.name: node for node in source.body if isinstance(node, ast.ClassDef)}
    if name not in classes:
        return [f"the runtime's module defines no class {name}"]
    runtime = classes[name]
    faults = []
    if not any(ast.unparse(base).rpartition(".")[2] == "MLModel" for base in runtime.bases):
        faults.append(f"{name} does not derive from MLModel")
    awaited = {node.name: len(node.args.args) for node in runtime.body if isinstance(node, ast.AsyncFunctionDef)}
    parameters = {"load": 1, "predict": 2}
    faults += [
        f"{name} has no `async def {method}`" for method in parameters if awaited.get(method) != parameters[method]
    ]
    return faults


def _tensor_faults(kind: str, tensors: object) -> list[str]:
    if not isinstance(tensors, list) or not tensors:
        return [f"model-settings.json lists no {kind}"]
    faults = []
    for tensor in tensors:
        fields = tensor if isinstance(tensor, dict) else {}
        shape = fields.get("shape")
        if not isinstance(fields.get("name"), str) or fields.get("datatype") not in _DATATYPES:
            faults.append(f"one of the {kind} has no name or no datatype of the version 2 protocol")
        if not isinstance(shape, list) or not all(isinstance(size, int) for size in shape):
            faults.append(f"one of the {kind} has the shape {shape!r} instead of a list of integers")
    return faults
