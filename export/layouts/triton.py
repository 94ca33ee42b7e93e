"""NVIDIA Triton: a model repository for its ONNX Runtime backend, no Python backend in it.

The server takes token ids: tokenizing is the client's, and the README written beside the model says how. Sources: the
server's documents "Model Repository" and "Model Configuration", model_config.proto of its `common` repository, and the
checks in model_config_utils.cc and backend_model_instance.cc of its `core`.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from pathlib import Path

from edgetune.export.layouts import copy_files, graph_files, model_name
from edgetune.export.layouts.pbtxt import Message, Value, Word, to_text
from edgetune.serve.bundle import CONFIG_NAME, GRAPH_NAME, TOKENIZER_NAME, Bundle, Manifest, TensorSpec
from edgetune.serve.codecs import codec_parts
from edgetune.serve.errors import BundleError
from edgetune.serve.golden_cases import GoldenCase

HELP = "NVIDIA Triton: a model repository with batching, warm-up and labels; clients send token ids."
# Triton wants the absolute path.
RUN = "tritonserver --model-repository=$PWD/FOLDER"

MODEL_CONFIG_NAME, WARMUP_FOLDER = "config.pbtxt", "warmup"
MAX_BATCH = 32
_LABELS = "labels.txt"
_TYPES = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder: NAME/config.pbtxt, NAME/1/model.onnx, labels, warm-up tensors, tokenizer, README.md.

    Raises:
        BundleError: a label has several lines.
    """
    manifest, name = bundle.manifest, model_name(bundle)
    torn = [label for label in manifest.labels if "\n" in label]
    if torn:
        raise BundleError(
            f"The label {torn[0]!r} of {bundle.folder} has several lines.",
            expected="labels of one line: Triton reads one a line of its label file",
        )
    model, graph = folder / name, graph_files(bundle)
    # A graph of several files is a directory that is called like the file.
    copy_files(bundle, graph, model / "1" / GRAPH_NAME if len(graph) > 1 else model / "1")
    copy_files(bundle, [TOKENIZER_NAME], model)
    if manifest.labels:
        (model / _LABELS).write_text("".join(f"{label}\n" for label in manifest.labels), encoding="utf-8")
    config = {**_config(name, manifest), "model_warmup": _write_warmup(bundle, model / WARMUP_FOLDER)}
    (model / MODEL_CONFIG_NAME).write_text(to_text(config), encoding="utf-8")
    (folder / "README.md").write_text(_readme(bundle), encoding="utf-8")


def _config(name: str, manifest: Manifest) -> Message:
    threads = manifest.runtime.threads if manifest.runtime else 0
    inputs: list[Value] = [_tensor(spec) for spec in manifest.inputs]
    names: Message = {"label_filename": _LABELS} if manifest.labels else {}
    outputs: list[Value] = [{**_tensor(spec), **names} for spec in manifest.outputs]
    return {
        "name": name,
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "max_batch_size": MAX_BATCH,
        "input": inputs,
        "output": outputs,
        # What waits is joined; nothing waits for others to come.
        "dynamic_batching": {"max_queue_delay_microseconds": 0},
        "instance_group": [{"kind": Word("KIND_GPU" if manifest.provider == "cuda" else "KIND_CPU"), "count": 1}],
        # 0 is ONNX Runtime's own choice: the build's figure holds for the machine that it was measured on.
        "parameters": [{"key": "intra_op_thread_count", "value": {"string_value": str(threads)}}],
    }


def _tensor(spec: TensorSpec) -> Message:
    """Without its first dimension, which is the batch and Triton's own; -1 where a size is free."""
    dims: list[Value] = [size if isinstance(size, int) else -1 for size in spec.shape[1:]]
    return {"name": spec.name, "data_type": Word(_TYPES[spec.dtype]), "dims": dims}


def _write_warmup(bundle: Bundle, folder: Path) -> list[Value]:
    """Samples over the range of lengths, the longest also as a whole batch; real token ids: random ones have no row."""
    folder.mkdir(parents=True)
    cases = sorted(bundle.golden().cases, key=lambda case: len(case.input_ids))
    if not cases:
        return []
    shapes = dict.fromkeys((len(case.input_ids), batch) for case in (cases[0], cases[-1]) for batch in (1, MAX_BATCH))
    by_length = {len(case.input_ids): case for case in cases}
    return [_warmup_sample(bundle, by_length[length], batch, folder) for length, batch in shapes]


def _warmup_sample(bundle: Bundle, case: GoldenCase, batch: int, folder: Path) -> Message:
    tokens = len(case.input_ids)
    content = {
        "input_ids": case.input_ids,
        "attention_mask": [1] * tokens,
        "token_type_ids": case.type_ids or [0] * tokens,
    }
    inputs: list[Value] = []
    for spec in bundle.manifest.inputs:
        name = f"{spec.name}-{tokens}"
        (folder / name).write_bytes(_little_endian(content[spec.name]))
        tensor: Message = {"data_type": Word(_TYPES[spec.dtype]), "dims": [tokens], "input_data_file": name}
        inputs.append({"key": spec.name, "value": tensor})
    return {"name": f"{batch} of {tokens} tokens", "batch_size": batch, "inputs": inputs}


def _little_endian(numbers: list[int]) -> bytes:
    packed = array("q", numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def check(folder: Path) -> list[str]:
    """Whether the folder holds a model at all: what is in it follows from the bundle alone."""
    models = sorted(path.parent for path in folder.glob(f"*/{MODEL_CONFIG_NAME}"))
    return [] if models else ["there is no model in the repository"]


def _readme(bundle: Bundle) -> str:
    names = [spec.name for spec in bundle.manifest.inputs]
    head = bundle.manifest.answer_heads[0]
    answer, output = _ANSWERS[head.kind]
    fields = {
        "MODEL": model_name(bundle),
        "INPUTS": json.dumps(names),
        "TOKENS": str(bundle.manifest.max_tokens),
        "GIVEN": ", ".join(['"a text"', '"another"'][: len(codec_parts(bundle.manifest.codec))]),
        "ANSWER": answer.format(
            labels=", ".join(head.labels), thresholds=head.thresholds or 0.5, temperature=head.temperature
        ),
        "OUTPUT": output,
        "PAD": str(json.loads((bundle.folder / CONFIG_NAME).read_text(encoding="utf-8")).get("pad_token_id") or 0),
    }
    return re.sub("|".join(fields), lambda match: fields[match[0]], _README)


# What the client's lines say of the answer, and what they ask for.
_ANSWERS = {
    "label": (
        'class_count: the label file then makes each answer "logit:index:label", best first',
        '"logits", class_count=1',
    ),
    "labels": (
        "{labels}: each is given where the sigmoid of its logit divided by {temperature:g} reaches {thresholds}",
        '"logits"',
    ),
    "number": ("the logit is the number itself", '"logits"'),
    "embedding": ("a vector, to be scaled to length one before it is compared", '"logits"'),
}

_README = """\
# MODEL, for NVIDIA Triton

    tritonserver --model-repository=/absolute/path/of/this/folder

needs the ONNX Runtime backend and nothing else: no Python backend, no torch. A model of several files lies in a
directory that is itself named `model.onnx`; this is Triton's rule.

## Asking

The model takes token ids, INPUTS: each `(batch, tokens)` int64, at most TOKENS tokens, and gives `logits`. The client
tokenizes, with the `tokenizers` library and the `tokenizer.json` that lies beside `config.pbtxt`:

    from tokenizers import Tokenizer
    import numpy as np, tritonclient.http as triton

    tokenizer = Tokenizer.from_file("MODEL/tokenizer.json")   # truncates by itself
    encoding = tokenizer.encode(GIVEN)
    columns = {"input_ids": encoding.ids, "attention_mask": encoding.attention_mask}
    columns["token_type_ids"] = encoding.type_ids
    inputs = []
    for input_name in INPUTS:
        value = np.array([columns[input_name]], dtype=np.int64)
        inputs.append(triton.InferInput(input_name, value.shape, "INT64"))
        inputs[-1].set_data_from_numpy(value)
    # ANSWER
    outputs = [triton.InferRequestedOutput(OUTPUT)]
    print(triton.InferenceServerClient("localhost:8000").infer("MODEL", inputs, outputs=outputs).as_numpy("logits"))

The dynamic batcher joins requests of the same number of tokens only. Clients that pad to a few lengths (ids with PAD,
the mask with 0) let it join more; with int8 weights and dynamic activations the answers then depend, in the last
digits, on what they were joined with.

## As an ensemble

Whoever wants text in and logits out on the server puts a tokenizer model of their own (a C++ backend, or the ONNX
Runtime extensions' tokenizer graph) beside this one and joins the two, still without a Python backend:

    name: "MODEL-text"
    platform: "ensemble"
    max_batch_size: 0
    input [ { name: "text" data_type: TYPE_STRING dims: [ -1 ] } ]
    output [ { name: "logits" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
    ensemble_scheduling { step [
      { model_name: "tokenizer" model_version: -1
        input_map { key: "text" value: "text" }
        output_map { key: "input_ids" value: "ids" }
        output_map { key: "attention_mask" value: "mask" } },
      { model_name: "MODEL" model_version: -1
        input_map { key: "input_ids" value: "ids" }
        input_map { key: "attention_mask" value: "mask" }
        output_map { key: "logits" value: "logits" } } ] }

An ensemble's directory needs an empty version directory `1/`. Neither the server nor this ensemble was run when this
folder was written: its files were checked against the rules of Triton's documents.
"""
