"""A trial of the base before it is tuned: what a build would find out after the training is found out in seconds.

A few rows go the whole way: encoded as at run time and as in training, through the model padded and alone, and, where
the architecture is not one that the tests build, through a graph of its first layers in ONNX Runtime.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgetune.export.once.encoding import check_encoding
from edgetune.export.once.graph import write_graph
from edgetune.export.once.parity import check_graph, padding_allowed, padding_fault, row_differences
from edgetune.serve.errors import BundleDamaged, ExportError, ModelError
from edgetune.tune.data.rows import Input, each_text, filling, length, shortened
from edgetune.tune.methods.freeze import layer_list
from edgetune.tune.models.base import first_words
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.forward import seen_by_head

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from edgetune.tune.models.opening import Opened
    from edgetune.tune.models.types import Model

# Of these the tests build whole bundles (tests/export/test_architectures.py); a trial graph would cost 4 s of a
# processor and say what is known, unless the config changes more than sizes, rates and ids.
BUILT_IN_TESTS = {
    *("mobilenet_v2", "resnet", "vit", "deit", "convnext"),
    *("bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "mpnet", "deberta-v2", "modernbert"),
}
_SIZES = re.compile(
    r".*(_size|_sizes|_layers|_heads|_dropout|_dropout_prob|_positions|_position_embeddings|_range|_eps|_token_id|_buckets)"
    r"|dim|hidden_dim|depths|depth_multiplier|embed_dim|dropout|local_attention|id2label|label2id|architectures|problem_type|transformers_version|dtype"
    r"|use_cache|edgetune_pooling|_name_or_path|layer_types|rope_parameters"
)
# What a model raises that takes other inputs, or whose configuration does not fit it.
_NOT_RUN = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
_TRIAL_LAYERS, _TRIAL_ROWS, _TRIAL_TOKENS = 2, 6, 48


def try_base(opened: Opened, base_id: str, inputs: Sequence[Input]) -> None:
    """Take a few rows the whole way that a build goes; the model is left as it was, on the CPU.

    Args:
        opened: the base with a head, on the CPU.
        base_id: what the user calls it.
        inputs: of the task; a few of them are taken.

    Raises:
        ParityError: the runtime would feed other ids than training, the graph answers otherwise than the model, or a
            row answers otherwise beside longer ones than alone.
        ExportError: there is no graph of it.
        ModelError: it does not run on texts alone.
    """
    rows = _spread(inputs) if opened.encoder.reads_text else opened.encoder.probes(inputs, _TRIAL_ROWS)
    opened.model.eval()
    with tempfile.TemporaryDirectory() as folder:
        opened.encoder.save(Path(folder))
        opened.model.config.save_pretrained(folder)
        check_encoding(Path(folder), opened.encoder, rows)
        _check_padding(opened, rows)
        if not _is_built_in_tests(opened.model.config):
            with _shallow(opened.model, opened.encoder.batch(rows[:1])), _random_head(opened.model):
                path = write_graph(opened.model, opened.encoder.example(rows), Path(folder), base_id, fusions=None)
                try:
                    check_graph(path, opened.model, opened.encoder, rows, "cpu")
                except BundleDamaged as error:  # ONNX Runtime does not open it
                    raise ExportError(
                        f"The graph of {base_id}, a {opened.model.config.model_type!r} model, does not run: "
                        f"{error.found.splitlines()[0]}",
                        action="choose another --base; docs/tuning.md has a table of architectures",
                    ) from error


def _spread(inputs: Sequence[Input]) -> list[Input]:
    """Short and long rows in turns, and one that is surely longer."""
    by_length = sorted(inputs, key=length)
    places = np.linspace(0, len(by_length) - 1, min(_TRIAL_ROWS, len(by_length))).round().astype(int)
    rows = [by_length[place] for place in dict.fromkeys(places.tolist())]
    longer = filling(by_length[::-1] * (1 + _TRIAL_TOKENS // len(by_length)), _TRIAL_TOKENS)
    return [*rows[: len(rows) // 2], each_text(lambda text: f"{text} and more", longer), *rows[len(rows) // 2 :]]


def _check_padding(opened: Opened, rows: Sequence[Input]) -> None:
    """Compare what the head sees of each row beside the others and alone: of a fresh head the logits are all zero."""
    try:
        encoded = opened.encoder.rows(rows)
        padded = seen_by_head(opened.model, opened.encoder, encoded, bf16=False, batch_size=len(rows))
        alone = seen_by_head(opened.model, opened.encoder, encoded, bf16=False, batch_size=1)
    except _NOT_RUN as error:
        noun, takes = ("texts", "token ids and an attention mask")
        if not opened.encoder.reads_text:
            noun, takes = ("pictures", "pixels of the size that its preprocessor_config.json makes them")
        raise ModelError(
            f"A {opened.model.config.model_type!r} model does not run on {noun} alone: "
            f"{type(error).__name__}: {first_words(error)}",
            expected=f"a model that takes {takes}, with a configuration that fits its weights",
            action="choose another --base",
        ) from error
    differences, allowed = row_differences(padded, alone), padding_allowed(alone)
    if not bool((differences <= allowed).all()):
        worst = int(differences.argmax())
        model_type = opened.model.config.model_type
        raise padding_fault(model_type, shortened(rows[worst]), float(differences[worst]), allowed)


def _is_built_in_tests(config: PreTrainedConfig) -> bool:
    usual = type(config)().to_dict()
    changed = [name for name, value in config.to_dict().items() if name in usual and usual[name] != value]
    return config.model_type in BUILT_IN_TESTS and all(_SIZES.fullmatch(name) for name in changed)


@contextmanager
def _shallow(model: Model, batch: Any) -> Iterator[None]:
    """The model with its first layers alone, where it runs so: tracing takes time by the layer."""
    layers = layer_list(model)
    every = dict(layers._modules) if layers is not None else {}
    if layers is None or len(every) <= _TRIAL_LAYERS:
        yield
        return
    layers._modules = dict(list(every.items())[:_TRIAL_LAYERS])
    try:
        try:
            with torch.inference_mode():
                model(**batch)
        except _NOT_RUN:
            layers._modules = every  # the architecture counts on all of them
        yield
    finally:
        layers._modules = every


@contextmanager
def _random_head(model: Model) -> Iterator[None]:
    """The model with a head that tells rows apart: a fresh one may give zero for all."""
    _, linear = head_linear(model)
    before = linear.weight.detach().clone()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        nn.init.normal_(linear.weight, std=before.shape[1] ** -0.5)
    try:
        yield
    finally:
        with torch.no_grad():
            linear.weight.copy_(before)
