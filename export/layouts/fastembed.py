"""fastembed: a folder that its TextEmbedding opens as a custom model whose "embedding" is the graph's output.

Vectors are scaled to length one there. fastembed knows no classifiers. Its TextCrossEncoder keeps the first logit
alone; a TextEmbedding without pooling and without normalization hands on what the graph gives, row by row. Sources:
fastembed 0.9's add_custom_model, its preprocessor_utils.py (which files must say what) and onnx_text_model.py (which
inputs are fed).
"""

from __future__ import annotations

from pathlib import Path

from edgetune.export.layouts import copy_files, graph_files, model_name
from edgetune.export.layouts.embedded import read_json, read_source, write_json
from edgetune.serve.bundle import CONFIG_NAME, GRAPH_NAME, TOKENIZER_NAME, Bundle, Manifest
from edgetune.serve.heads import open_head

HELP = "fastembed: a folder for its TextEmbedding, opened as a custom model that gives vectors, or the logits."
RUN = "pip install fastembed && python FOLDER/classify.py 'some text'"

_TOKENIZER_CONFIG, _SPECIALS, _SCRIPT = "tokenizer_config.json", "special_tokens_map.json", "classify.py"

_CLASSIFY = '''\
"""Opens this folder with fastembed and prints SHOWN of each text given."""

import json
import sys
from pathlib import Path

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

FOLDER = Path(__file__).resolve().parent
MODEL = "MODEL_NAME"


def open_model():
    """The model: `embed(texts)` gives the logits of each text."""
    TextEmbedding.add_custom_model(
        model=MODEL,
        pooling=PoolingType.DISABLED,
        normalization=NORMALIZED,
        sources=ModelSource(hf=MODEL),  # must be said and is never asked: the folder is given below
        dim=LABEL_COUNT,
        model_file="model.onnx",
    )
    return TextEmbedding(MODEL, specific_model_path=str(FOLDER))


def classify(model, texts, batch_size=32):
ANSWERS

if __name__ == "__main__":
    for answer in classify(open_model(), sys.argv[1:]):
        print(*(f"{cell:.4f}" if isinstance(cell, float) else cell for cell in answer), sep="\\t")
'''
# By the head's kind: what is shown, and how it is made of the logits.
_ANSWERS = {
    "label": (
        "label and score",
        '''\
    """Label and probability of each text."""
    names = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["id2label"]
    for logits in model.embed(texts, batch_size=batch_size):
        shares = np.exp((logits - logits.max()) / TEMPERATURE)
        best = int(logits.argmax())
        yield names[str(best)], float(shares[best] / shares.sum())
''',
    ),
    "labels": (
        "the labels",
        '''\
    """The labels of each text, those whose probability reaches their threshold; may be none."""
    names = json.loads((FOLDER / "config.json").read_text(encoding="utf-8"))["id2label"]
    thresholds = THRESHOLDS
    for logits in model.embed(texts, batch_size=batch_size):
        given = 1 / (1 + np.exp(-logits.astype(float) / TEMPERATURE)) >= thresholds
        yield [names[str(place)] for place in np.flatnonzero(given)]
''',
    ),
    "embedding": (
        "the first numbers of the vector",
        '''\
    """The first numbers of the vector of each text; `model.embed(texts)` gives it whole, of length one."""
    for vector in model.embed(texts, batch_size=batch_size):
        yield [float(number) for number in vector[:4]]
''',
    ),
    "number": (
        "the number",
        '''\
    """The number of each text."""
    for logits in model.embed(texts, batch_size=batch_size):
        yield (float(logits[0]),)
''',
    ),
}


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder: the graph, the tokenizer with its three companions, and classify.py."""
    copy_files(bundle, [*graph_files(bundle), TOKENIZER_NAME, CONFIG_NAME], folder)
    companions = [name for name in (_TOKENIZER_CONFIG, _SPECIALS) if name in bundle.manifest.files]
    copy_files(bundle, companions, folder)
    if _TOKENIZER_CONFIG in companions:
        _say_limits(folder / _TOKENIZER_CONFIG, bundle.manifest)
    script = _CLASSIFY.replace("MODEL_NAME", f"edgetune/{model_name(bundle)}")
    head = open_head(bundle.manifest.answer_heads[0])
    shown, answers = _ANSWERS[head.spec.kind]
    answers = answers.replace("THRESHOLDS", str(head.spec.thresholds or 0.5))
    answers = answers.replace("TEMPERATURE", str(head.spec.temperature))
    script = script.replace("NORMALIZED", str(head.spec.kind == "embedding"))
    script = script.replace("SHOWN", shown).replace("ANSWERS", answers).replace("LABEL_COUNT", str(head.width))
    (folder / _SCRIPT).write_text(script, encoding="utf-8")


def _say_limits(path: Path, manifest: Manifest) -> None:
    """Where the texts are cut: fastembed takes it from here and not from the tokenizer."""
    config = read_json(path, [])
    limits = {"model_max_length": manifest.max_tokens, "max_length": manifest.max_tokens}
    write_json(path, {**config, **limits})


def check(folder: Path) -> list[str]:
    """The faults of a folder, by what fastembed reads of it when it opens one."""
    faults = [] if (folder / GRAPH_NAME).is_file() else [f"{GRAPH_NAME} is missing"]
    config = read_json(folder / CONFIG_NAME, faults)
    if config and not isinstance(config.get("pad_token_id", 0), int):
        faults.append(f"{CONFIG_NAME}: pad_token_id is {config['pad_token_id']!r}")
    tokenizer = read_json(folder / TOKENIZER_NAME, faults)
    if tokenizer.get("padding") is not None:
        faults.append(f"{TOKENIZER_NAME} pads by itself, which fastembed keeps: every text to that length")
    tokenizer_config = read_json(folder / _TOKENIZER_CONFIG, faults)
    if tokenizer_config:
        limits = [tokenizer_config[name] for name in ("model_max_length", "max_length") if name in tokenizer_config]
        if not limits or not all(isinstance(limit, int) and limit >= 1 for limit in limits):
            faults.append(f"{_TOKENIZER_CONFIG} says no model_max_length or max_length of at least 1")
        if not isinstance(tokenizer_config.get("pad_token"), str):
            faults.append(f"{_TOKENIZER_CONFIG} names no pad_token")
    read_json(folder / _SPECIALS, faults)
    read_source(folder / _SCRIPT, faults)
    return faults
