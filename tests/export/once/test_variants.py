"""Packing several graphs of one model: the files, what the manifest tells, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx_ir
import pytest

from edgetune.export.once.pack import finish_bundle, settled_draft
from edgetune.export.once.variants import VariantDraft
from edgetune.serve import load
from edgetune.serve.bundle import Bundle, RuntimeSettings
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import BundleDamaged, WorkError
from edgetune.serve.golden import replay_golden
from edgetune.serve.processor import cpu_name

DROPPED = "token_type_ids"
GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"


@pytest.fixture
def drafts(tmp_path):
    """Two drafts of the golden bundle; the second calls itself int8_dynamic."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        shutil.copytree(GOLDEN, folder)
    change(folders[1], "manifest.json", lambda manifest: manifest.update(scheme="int8_dynamic"))
    return [Bundle.open(folder) for folder in folders]


def change(folder, name, work):
    value = json.loads((folder / name).read_text("utf-8"))
    work(value)
    (folder / name).write_text(json.dumps(value), "utf-8")


def settings(threads=1):
    return RuntimeSettings(threads=threads, spinning=False, cpu=cpu_name(), cores=usable_cores())


def packed(drafts):
    first, second = drafts
    return [VariantDraft(first, (), settings(), 2.0), VariantDraft(second, ("avx512_vnni",), settings(2), 1.0)]


def test_the_bundle_holds_all_graphs_and_takes_the_fastest(drafts, tmp_path):
    settled = settled_draft(drafts[0], tmp_path / "settled", settings(), packed(drafts))
    bundle = finish_bundle(settled, tmp_path / "out", {"report.json": b"{}"})
    new = {path.name for path in bundle.folder.iterdir()} - {path.name for path in GOLDEN.iterdir()}
    assert new == {"model_int8_dynamic.onnx", "golden_int8_dynamic.json"}
    assert new <= set(bundle.manifest.files)
    told = bundle.manifest.variants
    assert [(one.scheme, one.graph, one.golden, one.needs, one.p50_ms) for one in told] == [
        ("fp32", "model.onnx", "golden.json", [], 2.0),
        ("int8_dynamic", "model_int8_dynamic.onnx", "golden_int8_dynamic.json", ["avx512_vnni"], 1.0),
    ]
    assert bundle.manifest.runtime == settings()
    with load(bundle.folder) as predictor:
        assert (predictor.variant, predictor.threads) == ("int8_dynamic", 2)


def test_without_variants_nothing_is_told_of_them(drafts, tmp_path):
    assert settled_draft(drafts[0], tmp_path / "settled", settings()).manifest.variants == []


def test_a_graph_of_another_model_is_no_variant(drafts, tmp_path):
    other = drafts[1].folder
    change(other, "manifest.json", lambda manifest: manifest.update(max_tokens=16, labels=["a", "b", "c"]))
    change(other, "tokenizer.json", lambda tokenizer: tokenizer.update(version="1.0 "))
    with pytest.raises(WorkError) as refused:
        settled_draft(
            drafts[0], tmp_path / "settled", settings(), packed([drafts[0], Bundle.open(other, verify=False)])
        )
    assert (
        refused.value.found == "int8_dynamic is no variant of fp32: they differ in labels, max_tokens, tokenizer.json."
    )


def drop_types(manifest):
    manifest["inputs"] = [one for one in manifest["inputs"] if one["name"] != DROPPED]


def graph_without_types(folder):
    """Change a draft as a fusion does that has found no text with a second segment."""
    model = onnx_ir.load(folder / "model.onnx")
    ids, kinds = (next(one for one in model.graph.inputs if one.name == name) for name in ("input_ids", DROPPED))
    zeros = onnx_ir.node("Sub", [ids, ids])
    kinds.replace_all_uses_with(zeros.outputs[0])
    model.graph.inputs.remove(kinds)
    model.graph.insert_before(model.graph[0], zeros)
    onnx_ir.save(model, folder / "model.onnx")
    change(folder, "manifest.json", drop_types)


@pytest.mark.parametrize("without", [0, 1])
def test_all_graphs_take_the_inputs_of_the_main_one(drafts, tmp_path, without):
    folder = drafts[without].folder
    graph_without_types(folder)
    drafts[without] = Bundle.open(folder, verify=False)
    settled = settled_draft(drafts[0], tmp_path / "settled", settings(), packed(drafts))
    wanted = {"input_ids", "attention_mask"} | ({DROPPED} if without else set())
    for one in settled.manifest.variants:
        graph = onnx_ir.load(settled.folder / one.graph).graph
        assert {value.name for value in graph.inputs} == wanted
        with load(settled.folder, variant=one.scheme, verify=False) as predictor:
            assert replay_golden(predictor).cases == 8


def test_a_variant_that_gives_other_answers_is_refused(drafts, tmp_path):
    change(drafts[1].folder, "golden.json", lambda golden: golden["cases"][0].update(logits=[9.0, 0.0, 0.0]))
    with pytest.raises(BundleDamaged, match="1 of 8 golden answers differ"):
        settled_draft(drafts[0], tmp_path / "settled", settings(), packed(drafts))
