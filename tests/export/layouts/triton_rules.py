"""Whether a folder is a model repository that Triton loads: its layout, and each config.pbtxt by Triton's rules.

Apart from the writer, so that neither leans on the other's mistakes. Sources: as in `export/layouts/triton.py`.
"""

from __future__ import annotations

from pathlib import Path

from edgetune.export.layouts.pbtxt import Message
from edgetune.export.layouts.triton import MODEL_CONFIG_NAME, WARMUP_FOLDER
from edgetune.serve.bundle import GRAPH_NAME
from tests.export.layouts.pbtxt_reader import Field, Schema, TextFormatError, from_text

_TYPE_NAMES = tuple(
    f"TYPE_{name}"
    for name in "BOOL UINT8 UINT16 UINT32 UINT64 INT8 INT16 INT32 INT64 FP16 FP32 FP64 STRING BF16".split()
)
_TYPE = Field("enum", names=_TYPE_NAMES)
_TEXT, _NUMBER, _DIMS = Field("string"), Field("int32"), Field("int64", repeated=True)

# The part of model_config.proto that this layout writes: whatever else stands in the file is a fault.
SCHEMA: Schema = {
    "ModelConfig": {
        "name": _TEXT,
        "platform": _TEXT,
        "backend": _TEXT,
        "max_batch_size": _NUMBER,
        "input": Field("ModelInput", repeated=True),
        "output": Field("ModelOutput", repeated=True),
        "dynamic_batching": Field("ModelDynamicBatching"),
        "instance_group": Field("ModelInstanceGroup", repeated=True),
        "parameters": Field("ParametersEntry", repeated=True),
        "model_warmup": Field("ModelWarmup", repeated=True),
    },
    "ModelInput": {"name": _TEXT, "data_type": _TYPE, "dims": _DIMS},
    "ModelOutput": {"name": _TEXT, "data_type": _TYPE, "dims": _DIMS, "label_filename": _TEXT},
    "ModelDynamicBatching": {
        "preferred_batch_size": Field("int32", repeated=True),
        "max_queue_delay_microseconds": Field("uint64"),
        "preserve_ordering": Field("bool"),
        "default_queue_policy": Field("ModelQueuePolicy"),
    },
    "ModelQueuePolicy": {
        "timeout_action": Field("enum", names=("REJECT", "DELAY")),
        "default_timeout_microseconds": Field("uint64"),
        "allow_timeout_override": Field("bool"),
        "max_queue_size": Field("uint32"),
    },
    "ModelInstanceGroup": {
        "name": _TEXT,
        "kind": Field("enum", names=("KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL")),
        "count": _NUMBER,
        "gpus": Field("int32", repeated=True),
    },
    "ParametersEntry": {"key": _TEXT, "value": Field("ModelParameter")},
    "ModelParameter": {"string_value": _TEXT},
    "ModelWarmup": {
        "name": _TEXT,
        "batch_size": Field("uint32"),
        "inputs": Field("InputsEntry", repeated=True),
        "count": Field("uint32"),
    },
    "InputsEntry": {"key": _TEXT, "value": Field("WarmupInput")},
    "WarmupInput": {
        "data_type": _TYPE,
        "dims": _DIMS,
        "zero_data": Field("bool"),
        "random_data": Field("bool"),
        "input_data_file": _TEXT,
    },
}


def repository_faults(folder: Path) -> list[str]:
    """The faults of a model repository: its layout, and each config.pbtxt by the rules that Triton loads it by."""
    models = sorted(path for path in folder.iterdir() if path.is_dir())
    if not models:
        return ["there is no model in the repository"]
    return [f"{model.name}: {fault}" for model in models for fault in _model_faults(model)]


def _model_faults(model: Path) -> list[str]:
    try:
        config = from_text((model / MODEL_CONFIG_NAME).read_text(encoding="utf-8"), SCHEMA, "ModelConfig")
    except (OSError, UnicodeDecodeError, TextFormatError) as error:
        return [f"{MODEL_CONFIG_NAME} cannot be read: {error}"]
    faults = _version_faults(model)
    if config.get("name", model.name) != model.name:
        faults.append(f"the name {config['name']!r} is not that of its directory")
    if (config.get("platform"), config.get("backend")) != ("onnxruntime_onnx", "onnxruntime"):
        faults.append("platform and backend are not ONNX Runtime's")
    for kind in ("input", "output"):
        faults += _tensor_faults(kind, _messages(config, kind))
    faults += _batching_faults(config)
    for output in _messages(config, "output"):
        faults += _label_faults(model, output)
    return faults + [
        fault for sample in _messages(config, "model_warmup") for fault in _warmup_faults(model, sample, config)
    ]


def _messages(message: Message, name: str) -> list[Message]:
    found = message.get(name, [])
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _integers(message: Message, name: str) -> list[int]:
    found = message.get(name, [])
    return [one for one in found if isinstance(one, int)] if isinstance(found, list) else []


def _integer(message: Message, name: str, default: int = 0) -> int:
    found = message.get(name, default)
    return found if isinstance(found, int) else default


def _version_faults(model: Path) -> list[str]:
    versions = [path for path in model.iterdir() if path.is_dir() and path.name.isdecimal() and path.name[0] != "0"]
    if not versions:
        return ["there is no version: a directory named by a number that does not begin with 0"]
    faults = []
    for version in versions:
        graph = version / GRAPH_NAME
        if graph.is_dir() and not (graph / GRAPH_NAME).is_file():
            faults.append(f"{version.name}/{GRAPH_NAME} is a directory without a {GRAPH_NAME}")
        elif not graph.exists():
            faults.append(f"{version.name}/{GRAPH_NAME} is missing")
        elif graph.is_file() and len(list(version.iterdir())) > 1:
            faults.append(f"{version.name} holds several files: they belong into a directory named {GRAPH_NAME}")
    return faults


def _tensor_faults(kind: str, tensors: list[Message]) -> list[str]:
    faults = [] if tensors else [f"no {kind} is configured"]
    names = [tensor.get("name", "") for tensor in tensors]
    faults += [f"an {kind} has no name" for name in names if not name]
    faults += [f"the {kind} {name!r} is configured twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    for tensor in tensors:
        if "data_type" not in tensor:
            faults.append(f"the {kind} {tensor.get('name')!r} has no data_type")
        dims = _integers(tensor, "dims")
        if not dims or any(size < 1 and size != -1 for size in dims):
            faults.append(f"the dims of {tensor.get('name')!r} are {dims}, not one or more of at least 1 or -1")
    return faults


def _batching_faults(config: Message) -> list[str]:
    most = _integer(config, "max_batch_size")
    faults = [] if most >= 1 else [f"max_batch_size is {most}: nothing would be batched"]
    batching = config.get("dynamic_batching", {})
    sizes = _integers(batching, "preferred_batch_size") if isinstance(batching, dict) else []
    faults += [f"the preferred batch size {size} is not 1 to {most}" for size in sizes if not 1 <= size <= most]
    groups = _messages(config, "instance_group")
    faults += [] if groups else ["no instance_group is configured"]
    for group in groups:
        if _integer(group, "count", 1) < 1:
            faults.append("an instance_group has a count below 1")
        if group.get("kind") == "KIND_CPU" and group.get("gpus"):
            faults.append("an instance_group on the CPU names GPUs")
    return faults


def _label_faults(model: Path, output: Message) -> list[str]:
    name = output.get("label_filename")
    if not isinstance(name, str):
        return []
    if not (model / name).is_file():
        return [f"the label file {name} is missing"]
    # As Triton reads it: std::getline, one label a line.
    lines = (model / name).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    dims = _integers(output, "dims")
    return [] if dims == [len(lines)] else [f"{name} has {len(lines)} lines for an output of {dims}"]


def _warmup_faults(model: Path, sample: Message, config: Message) -> list[str]:
    name, most = sample.get("name", ""), _integer(config, "max_batch_size")
    inputs = {entry.get("key"): entry.get("value") for entry in _messages(sample, "inputs")}
    wanted = {tensor.get("name"): tensor for tensor in _messages(config, "input")}
    faults = [] if name else ["a warm-up sample has no name"]
    if not 1 <= _integer(sample, "batch_size") <= most:
        faults.append(f"the warm-up {name!r} has a batch_size outside 1 to {most}")
    if inputs.keys() != wanted.keys():
        faults.append(f"the warm-up {name!r} gives {sorted(map(str, inputs))} for {sorted(map(str, wanted))}")
    for key, tensor in inputs.items():
        if key in wanted and isinstance(tensor, dict):
            faults += [f"the warm-up {name!r}, {key}: {fault}" for fault in _sample_faults(model, tensor, wanted[key])]
    return faults


def _sample_faults(model: Path, tensor: Message, configured: Message) -> list[str]:
    dims, allowed = _integers(tensor, "dims"), _integers(configured, "dims")
    faults = [] if tensor.get("data_type") == configured.get("data_type") else ["another data_type than the input's"]
    fits = len(dims) == len(allowed) and all(a in (-1, d) and d >= 1 for d, a in zip(dims, allowed, strict=False))
    if not fits:
        faults.append(f"the dims {dims} do not fit {allowed}")
    if sum(choice in tensor for choice in ("zero_data", "random_data", "input_data_file")) != 1:
        faults.append("not exactly one kind of data is named")
    file = tensor.get("input_data_file")
    if isinstance(file, str) and fits:
        path, wanted = model / WARMUP_FOLDER / file, 8  # bytes of an int64, the one type that a bundle's graph takes
        for size in dims:
            wanted *= size
        if not path.is_file() or path.stat().st_size < wanted:
            faults.append(f"{WARMUP_FOLDER}/{file} is missing or has fewer than {wanted} bytes")
    return faults
