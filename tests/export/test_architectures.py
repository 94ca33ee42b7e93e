"""Every architecture all the way: tuned, merged, exported, quantized, packed, and answering without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from edgetune.compress.candidate import Candidate
from edgetune.compress.material import Material
from edgetune.compress.schemes import SCHEMES
from edgetune.compress.structure import (
    feed_forward,
    read_shape,
    spread_layers,
    with_columns,
    with_layers,
    write_cut,
)
from edgetune.export.once.export import export
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing, draft_bundle, golden_texts
from edgetune.serve.errors import ExportError
from edgetune.serve.golden import replay_golden
from edgetune.serve.predictor import Predictor
from edgetune.tune import tuning
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.base import find_base
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training import trunk_probe
from edgetune.tune.training.progress import Silent

LABELLING = TASKS["text-classification"]

TOKENS = 96  # the longest input of the tiny checkpoints

# What ONNX Runtime's quantizer can fuse: attention with nothing but a padding mask. MPNet and DeBERTa add relative
# positions to it, ModernBERT windows and rotations; their products are quantized one by one.
FUSED_ATTENTION = {
    "bert": 2, "distilbert": 2, "roberta": 2, "electra": 2, "albert": 2, "xlm_roberta": 2,
    "mpnet": 0, "deberta_v2": 0, "modernbert": 0,
}  # fmt: skip

# One of each attention stands for the others, which `make test-long` has: fused, with relative positions (DeBERTa's,
# cut), with windows.
# tests/compress/test_fused.py exports and fuses all, two of BERT's kin in `make test-long` too.
WHOLE = {"bert", "modernbert"}
CUT = {"deberta_v2"}


def _marks(name: str, cut: bool) -> list[pytest.MarkDecorator]:
    if name not in (CUT if cut else WHOLE):
        return [pytest.mark.slow, pytest.mark.long]
    return [] if (name, cut) == ("bert", False) else [pytest.mark.slow]


# Whole ones tuned by one method, and those of the other cut as `student` and `pruned` cut them.
MATRIX = [
    pytest.param(name, method, cut, marks=_marks(name, cut))
    for name in FUSED_ATTENTION
    for method, cut in (("lora", False), ("freeze", True))
]
CUT_LAYERS = {"modernbert": 2}
CUT_COLUMNS = 32


class Spoken(Silent):
    """Keeps what a stage says."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@dataclass(frozen=True)
class Line:
    """What the whole path left of one model."""

    tuned: TunedModel
    graph: Graph
    candidates: dict[str, Candidate]
    predictors: dict[str, Predictor]
    dataset: Dataset
    said: tuple[str, ...]

    @property
    def ragged_texts(self) -> list[str]:
        """Texts of every length, from none and one token to more than the model takes."""
        texts = list(self.dataset.test.texts)
        return [*texts[:7], "", *texts[7:], "card", "!", " ".join(self.dataset.train.texts)]

    def torch_logits(self, model: Any = None) -> NDArray[np.float32]:
        """The merged model's answers to the ragged texts, or those of another one."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.tuned.model_folder)
        model = model or open_model(self.tuned.model_folder)
        return model_logits(model, Encoder(tokenizer, self.tuned.max_tokens, LABELLING), self.ragged_texts)

    def bundle_logits(self, scheme: str) -> NDArray[np.float32]:
        """A bundle's answers to the ragged texts, in its own batches."""
        predictor = self.predictors[scheme]
        return predictor.logits(predictor.encode(self.ragged_texts))


@pytest.fixture
def produce(
    tiny_base: Callable[[str], Path],
    toy_dataset: Callable[[], Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Line]:
    """Calling it with a base (a name or a folder) and tuning options runs the whole path.

    With `cut`, every other feed-forward column and all but a layer or two are taken away before the graph is made.
    """
    solve = trunk_probe.fit_probe

    def worthless(*arguments: Any, **options: Any) -> Any:
        probe = solve(*arguments, **options)
        wrong = (arguments[1][1] + 1) % probe.logits.shape[1]
        return dataclasses.replace(probe, value=0.0, logits=np.eye(probe.logits.shape[1], dtype=np.float32)[wrong])

    # A random trunk learns little in a second: without this the probe would often be handed on instead.
    monkeypatch.setattr(trunk_probe, "fit_probe", worthless)

    def run(base: str | Path, cut: bool = False, **options: Any) -> Line:
        folder = tiny_base(base) if isinstance(base, str) else base
        dataset = toy_dataset()
        recipe = TuneRecipe(
            epochs=2, batch_size=8, learning_rate=3e-3, head_learning_rate=3e-3, precision="fp32", **options
        )
        tuned = tuning.tune(
            dataset, find_base(str(folder)), recipe, task="text-classification", metric="accuracy", device="cpu",
            seed=1, folder=tmp_path / "tune", progress=Silent(),
        )  # fmt: skip
        if cut:
            layers = CUT_LAYERS.get(str(base), 1)
            tuned = cut_both_ways(tuned, layers, tmp_path / "cut")
        spoken = Spoken()
        graph = export(tuned, dataset, "cpu", tmp_path / "export", spoken)
        material = Material(tuned, dataset.train, dataset.validation, (), "cpu", "cpu", 1, Silent())
        compressed = {name: SCHEMES[name].compress(graph.path, tmp_path / name, material) for name in ("fused", "fp32")}
        float_graph = compressed["fused"].graph
        compressed["int8_dynamic"] = SCHEMES["int8_dynamic"].compress(float_graph, tmp_path / "int8", material)
        packing = Packing("tiny", tuned, dataset.digest, "cpu", golden_texts(dataset.test.texts))
        candidates = compressed
        predictors = {
            scheme: Predictor(draft_bundle(candidate, packing, tmp_path / f"bundle-{scheme}", 0.05), threads=1)
            for scheme, candidate in candidates.items()
        }
        return Line(tuned, graph, candidates, predictors, dataset, tuple(spoken.lines))

    return run


def cut_both_ways(tuned: TunedModel, layers: int, folder: Path) -> TunedModel:
    source = tuned.model_folder
    shallow = with_layers(open_model(source), spread_layers(read_shape(source).layers, layers))
    kept = [list(range(0, read_shape(source).columns, 2))] * len(feed_forward(shallow))
    write_cut(with_columns(shallow, kept), source, folder)
    return dataclasses.replace(tuned, folder=folder)


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


PRODUCTS = {
    "MatMul",
    "Gemm",
    "Attention",
    "QAttention",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
}


def linear_dtypes(path: Path) -> dict[str, int]:
    """Bytes by dtype of the weights that products read."""
    graph = onnx.load(str(path)).graph
    read = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input[:2]}
    totals: dict[str, int] = {}
    for tensor in graph.initializer:
        # DeBERTa's keys and queries of relative positions are constants too, a matrix a head, and no linear layer.
        if tensor.name in read and len(tensor.dims) == 2:
            name = onnx.TensorProto.DataType.Name(tensor.data_type)
            totals[name] = totals.get(name, 0) + onnx.numpy_helper.to_array(tensor).nbytes
    return totals


def assert_answers_as_the_model(line: Line) -> dict[str, float]:
    """fp32 within 1e-3 of the merged model, int8 near it; returns how near, for the test report."""
    expected = line.torch_logits()
    spread = float(expected.max() - expected.min())
    assert spread > 0.02, "the logits say nothing: neither a lost mask nor a lost head would show"
    assert np.abs(line.bundle_logits("fp32") - expected).max() < 1e-3 * min(1.0, spread)
    small = line.bundle_logits("int8_dynamic")
    assert np.abs(small - expected).max() < 0.2 * spread
    agreement = float(np.mean(small.argmax(axis=1) == expected.argmax(axis=1)))
    assert agreement >= 0.7, f"int8 gives another label to {1 - agreement:.0%} of the texts"
    return {
        "fp32_max_diff": float(np.abs(line.bundle_logits("fp32") - expected).max()),
        "int8_max_diff_share": float(np.abs(small - expected).max()) / spread,
        "int8_agreement": agreement,
    }


@pytest.mark.parametrize(("name", "method", "cut"), MATRIX)
def test_an_architecture_goes_all_the_way(
    produce: Callable[..., Line], record_property: Callable[[str, object], None], name: str, method: str, cut: bool
) -> None:
    line = produce(name, method=method, cut=cut)

    assert line.tuned.training.handed_on == method
    assert line.tuned.max_tokens == TOKENS
    assert line.graph.fused
    for measured, value in {**assert_answers_as_the_model(line), "nodes": line.graph.nodes}.items():
        record_property(measured, value)
    attentions = min(FUSED_ATTENTION[name], 1) if cut else FUSED_ATTENTION[name]
    assert operators(line.graph.path).count("Attention") == attentions
    assert operators(line.candidates["int8_dynamic"].graph).count("QAttention") == attentions
    if cut:
        shape = read_shape(line.tuned.model_folder)
        assert (shape.layers, shape.columns) == (CUT_LAYERS.get(name, 1), CUT_COLUMNS)
    predictions = line.predictors["int8_dynamic"].predict(line.ragged_texts)
    assert {prediction.label for prediction in predictions} <= set(line.dataset.labels)
    assert [prediction.truncated for prediction in predictions] == [*[False] * (len(predictions) - 1), True]

    # int8 is really inside, in the products and in the table of words alike. Float stay the tables of positions, which
    # are small in a real model and half of so tiny a one.
    linear = linear_dtypes(line.candidates["int8_dynamic"].graph)
    assert linear.get("INT8", 0) > 0.8 * sum(linear.values())
    shares = line.candidates["int8_dynamic"].dtypes
    assert shares.get("INT8", 0) + shares.get("UINT8", 0) > 0.4
    assert shares.get("UINT8", 0) > 0.05

    # Batch and length are open, and nothing of the sources is left in the file.
    graph = onnx.load(str(line.graph.path)).graph
    shapes = [[size.dim_param for size in value.type.tensor_type.shape.dim] for value in graph.input]
    assert shapes == [["batch", "tokens"]] * len(shapes)
    assert [size.dim_param or size.dim_value for size in graph.output[0].type.tensor_type.shape.dim] == ["batch", 4]
    content = line.graph.path.read_bytes()
    assert b".py" not in content
    assert b"stack" not in content

    if method == "lora":
        adapted = open_model(line.tuned.base_folder, adapter=line.tuned.adapter_folder)
        assert np.abs(line.torch_logits(adapted) - line.torch_logits()).max() < 1e-3
        assert np.abs(line.torch_logits(open_model(line.tuned.base_folder)) - line.torch_logits()).max() > 1e-3


# Decoders and others that are pooled here whatever head they came with; one stands for them, `make test-long` has all.
POOLED = [
    pytest.param("llama_classifier", "lora", "last", marks=pytest.mark.slow),
    pytest.param("gpt2_classifier", "lora", "last", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("gpt2_classifier", "freeze", "last", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("qwen2_classifier", "full", "last", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("qwen3_embedding", "freeze", "last", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("opt", "lora", "last", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("sentence_t5", "lora", "mean", marks=[pytest.mark.slow, pytest.mark.long]),
    pytest.param("xlnet", "freeze", "last", marks=[pytest.mark.slow, pytest.mark.long]),
]


@pytest.mark.parametrize(("name", "method", "pooling"), POOLED)
def test_a_decoder_goes_all_the_way(produce: Callable[..., Line], name: str, method: str, pooling: str) -> None:
    line = produce(name, method=method)

    assert (line.tuned.training.handed_on, line.tuned.training.pooling) == (method, pooling)
    if name == "opt":
        assert line.graph.fused
        assert operators(line.graph.path).count("Attention") == 2
    assert_answers_as_the_model(line)
    # Alone and beside longer texts: nothing of the padding is read, whichever token it is.
    predictor = line.predictors["fp32"]
    rows = predictor.encode(line.ragged_texts)
    alone = np.concatenate([predictor.logits([row]) for row in rows])
    assert np.abs(alone - predictor.run(predictor.feed(rows))).max() < 1e-4
    replay_golden(line.predictors["int8_dynamic"])
    linear = linear_dtypes(line.candidates["int8_dynamic"].graph)
    assert linear.get("INT8", 0) > 0.8 * sum(linear.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pooling"),
    [
        ("bert", "cls"),
        pytest.param("roberta", "mean", marks=pytest.mark.long),
        pytest.param("bert", "mean_sqrt_len", marks=pytest.mark.long),
    ],
)
def test_pooling_by_word(produce: Callable[..., Line], name: str, pooling: str) -> None:
    line = produce(name, method="lora", pooling=pooling)

    assert line.tuned.training.pooling == pooling
    assert_answers_as_the_model(line)
    assert operators(line.candidates["int8_dynamic"].graph).count("QAttention") == 2
    assert "Tanh" not in operators(line.graph.path), "the pooler of the architecture is not part of this model"
    adapted = open_model(line.tuned.base_folder, adapter=line.tuned.adapter_folder)
    assert np.abs(line.torch_logits(adapted) - line.torch_logits()).max() < 1e-3


@pytest.mark.slow
@pytest.mark.long  # the real MiniLM is such a folder, tests/cli/test_minilm.py
def test_a_sentence_transformers_folder_is_pooled_as_it_was_trained(
    produce: Callable[..., Line], tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "sentences"
    shutil.copytree(tiny_base("bert"), folder)
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48, "do_lower_case": False}))

    line = produce(folder, method="freeze")

    assert line.tuned.training.pooling == "mean"
    assert line.tuned.max_tokens == 48
    assert_answers_as_the_model(line)


@pytest.mark.slow
def test_a_graph_whose_fusions_fail_is_made_without_them(
    produce: Callable[..., Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.exporters import exporter_onnx

    def broken(model: Any, provider: str) -> None:
        raise IndexError("no such node")

    monkeypatch.setattr(exporter_onnx, "fuse_for_onnxruntime", broken)
    line = produce("bert", method="freeze")

    assert not line.graph.fused
    assert Graph.open(line.graph.path.parent) == line.graph
    assert "Attention" not in operators(line.graph.path)
    assert_answers_as_the_model(line)
    assert any("IndexError: no such node" in said and "without fusions" in said for said in line.said)


@pytest.mark.slow
def test_a_model_that_cannot_be_traced_is_refused_by_name(
    tiny_material: Callable[[str], tuple[Material, Path]],
    toy_dataset: Callable[[], Dataset],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.exporters import OnnxExporter

    material, _ = tiny_material("bert")

    def broken(self: Any, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError("no decomposition for aten.bogus\nlong story")

    monkeypatch.setattr(OnnxExporter, "export", broken)
    with pytest.raises(ExportError, match=r"cannot make a graph of .*NotImplementedError: no decomposition") as told:
        export(material.model, toy_dataset(), "cpu", tmp_path / "again", Silent())
    assert "long story" not in str(told.value)
    assert not (tmp_path / "again").exists()
