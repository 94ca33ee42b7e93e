"""Virtual tokens: trained in peft's modules, baked into an ordinary checkpoint, and the same at run time."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from tokenizers import Tokenizer

from edgetune.serve.codecs.tokens import WordsCodec
from edgetune.serve.errors import ModelError, RecipeError
from edgetune.serve.loading import load
from edgetune.serve.report import Report
from edgetune.tune.methods import METHODS
from edgetune.tune.methods.virtual_tokens import with_virtual_tokens
from edgetune.tune.models.base import find_base
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.merge import merge_and_save
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.models.opening import open_base
from edgetune.tune.recipe import PromptRecipe, TuneRecipe
from edgetune.tune.tasks import TASKS
from tests.untimed import build_untimed

LABELLING, PAIRS = TASKS["text-classification"], TASKS["text-pair-classification"]
TEXTS = ("where is my card", "the machine kept my cash and nobody answers on the phone " * 8, "login", "")
COUNT = 5


@dataclass(frozen=True)
class Prompted:
    """A model with virtual tokens that were moved at random."""

    plain: Encoder
    encoder: Encoder
    model: Any


def prompted(base: Path, method: str = "prompt", task: Any = LABELLING, **settings: Any) -> Prompted:
    recipe = TuneRecipe(method=method, prompt=PromptRecipe(tokens=COUNT, **settings))
    opened = open_base(find_base(str(base)), task, task.objective(("a", "b", "c"), "", ()), recipe)
    encoder = METHODS[method].encoder(opened.model, opened.encoder, recipe)
    torch.manual_seed(1)
    model = METHODS[method].prepare(opened.model, recipe)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight), alpha=0.3)
    return Prompted(opened.encoder, encoder, model.eval())


@pytest.mark.parametrize(
    ("base", "method", "settings", "behind"),
    [
        ("bert", "prompt", {}, 1),
        ("roberta", "p-tuning", {}, 1),
        ("xlm_roberta", "p-tuning", {"network": "lstm"}, 1),
        ("gpt2_classifier", "prompt", {}, 0),
        ("sentence_t5", "prompt", {}, 0),
    ],
)
def test_the_baked_checkpoint_answers_as_the_trained_prompt_did(tiny_base, tmp_path, base, method, settings, behind):
    job = prompted(tiny_base(base), method, **settings)
    trained = {name for name, weight in job.model.named_parameters() if weight.requires_grad}
    assert any(".source." in name for name in trained)
    assert not [name for name in trained if ".table." in name or ".layer" in name]
    before = model_logits(job.model, job.encoder, TEXTS)
    without = model_logits(job.model, job.plain, TEXTS)
    assert np.abs(before - without)[0].max() > 1e-3  # the prompt does something
    assert merge_and_save(job.model, job.encoder, TEXTS, tmp_path) < 1e-4
    opened, encoder = open_model(tmp_path), Encoder.of_folder(tmp_path, job.encoder.max_tokens, LABELLING)
    assert np.allclose(model_logits(opened, encoder, TEXTS), before, atol=1e-4)
    # Each text has the tokens behind its first special one, and as many fewer of its own where it is cut.
    rows, plain = encoder.rows(TEXTS), job.plain.rows(TEXTS)
    virtual = list(range(rows[0]["input_ids"][behind], rows[0]["input_ids"][behind] + COUNT))
    for row, other in zip(rows, plain, strict=True):
        assert row["input_ids"][behind : behind + COUNT] == virtual
        room = min(len(other["input_ids"]), encoder.max_tokens - COUNT)
        assert len(row["input_ids"]) == room + COUNT or other["input_ids"] == [job.plain.tokenizer.pad_token_id]
    assert not [name for name, _ in opened.named_parameters() if "source" in name or "table." in name]
    text = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(TEXTS[0])
    assert text.ids == rows[0]["input_ids"]
    assert sum(text.special_tokens_mask[behind : behind + COUNT]) == COUNT


def test_pairs_have_the_prompt_once(tiny_base):
    job = prompted(tiny_base("bert"), task=PAIRS)
    pair = ("where is my card", "it was stolen")
    (row,), (plain,) = job.encoder.rows([pair]), job.plain.rows([pair])
    assert row["input_ids"][1 + COUNT :] == plain["input_ids"][1:]
    assert row["token_type_ids"] == [0] * COUNT + plain["token_type_ids"]


def test_what_has_no_place_for_a_prompt_is_refused(tiny_base):
    base = tiny_base("bert")
    recipe = TuneRecipe(method="prompt", prompt=PromptRecipe(tokens=40), max_tokens=64)
    opened = open_base(find_base(str(base)), LABELLING, LABELLING.objective("ab", "", ()), recipe)
    with pytest.raises(RecipeError, match=r"tune.prompt.tokens is 40, and the model takes \d+ tokens"):
        METHODS["prompt"].encoder(opened.model, opened.encoder, recipe)
    with pytest.raises(RecipeError, match="Method prompt is not for feature-extraction: virtual tokens steer a head"):
        METHODS["prompt"].encoder(opened.model, replace(opened.encoder, task=TASKS["feature-extraction"]), recipe)
    tagging = replace(opened.encoder, task=TASKS["token-classification"])
    half = TuneRecipe(method="prompt", prompt=PromptRecipe(tokens=opened.encoder.max_tokens // 2), max_tokens=64)
    with pytest.raises(RecipeError, match=r"tune\.prompt\.tokens is 32") as error:
        METHODS["prompt"].encoder(opened.model, tagging, half)
    assert error.value.expected == "at most 28"  # windows of a long text share a quarter of their tokens
    tokenizer = opened.encoder.tokenizer
    with pytest.raises(ModelError, match=r"The tokenizer has no tokenizer\.json to extend"):
        with_virtual_tokens(object(), 2)
    document = json.loads(tokenizer.backend_tokenizer.to_str())
    assert document["post_processor"]["type"] == "TemplateProcessing"


@pytest.fixture(scope="module")
def built(tiny_base, toy_csv, tmp_path_factory):
    """A build by prompt tuning, on a base that knows nothing, with every kind of scheme."""
    folder = tmp_path_factory.mktemp("prompted")
    values = {
        "base": str(tiny_base("bert")),
        "data": {"path": str(toy_csv), "text": "text", "label": "label"},
        "tune": {"method": "prompt", "epochs": 1, "precision": "fp32", "head_learning_rate": 1e-2},
        "compress": {"schemes": ["fused", "int8_dynamic", "int8_static", "trimmed", "linear", "static"]},
        "gate": {"max_drop": 0.9, "when_inconclusive": "accept"},
        "benchmark": {"samples": 40, "grid": False, "cold_starts": 1},
        "device": "cpu",
        "out": str(folder / "bundle"),
    }
    with pytest.MonkeyPatch.context() as patch:
        from edgetune.tune import tuning

        def trained_is_handed_on(*arguments):
            return replace(choose(*arguments), handed_on="prompt", value=arguments[3])

        choose = tuning.choose
        patch.setattr(tuning, "choose", trained_is_handed_on)
        build_untimed(values)
    return folder


@pytest.mark.slow
def test_a_whole_build_keeps_fused_and_8_bit_attention_and_tells_every_scheme(built):
    report = Report.load(built / "bundle" / "report.json")
    stages = {stage.stage: stage for stage in report.quality.stages}
    assert stages["merged"].max_abs_diff is None or stages["merged"].max_abs_diff < 1e-3
    tuned = TunedModel.open(built / "bundle.work" / "tune")
    assert tuned.training.handed_on == "prompt"
    assert tuned.merge_max_abs_diff < 1e-4
    reasons = {candidate.scheme: candidate.reason for candidate in report.candidates}
    assert {"fused", "int8_dynamic", "int8_static", "trimmed+linear", "trimmed+static"} <= set(reasons), reasons
    quantized = built / "bundle.work" / "trials" / "int8_dynamic" / "model.onnx"
    kinds = Counter(node.op_type for node in onnx.load(str(quantized)).graph.node)
    assert (kinds["QAttention"], kinds["Attention"]) == (2, 0)
    draft = load(quantized.parent.parent / "fused" / "draft")
    texts = ["where is my card", "I cannot log in", ""]
    logits = draft.logits(draft.encode(texts))
    assert np.allclose(logits, model_logits(open_model(tuned.model_folder), Encoder.of(tuned), texts), atol=1e-4)


def test_virtual_tokens_are_no_words_in_any_window(tiny_base, tmp_path):
    given = prompted(tiny_base("bert"), task=TASKS["token-classification"])
    merge_and_save(given.model, given.encoder, TEXTS[:2], tmp_path / "behind")  # the same logits, of all windows
    shutil.copytree(tmp_path / "behind", tmp_path / "plain")
    given.plain.save(tmp_path / "plain")
    plain, behind = (
        WordsCodec(tmp_path / name, given.plain.max_tokens).encode([TEXTS[1]])[0] for name in ("plain", "behind")
    )
    assert len(behind.windows) > 1
    words = {border for window in behind.windows for border in window.borders}
    # A window may begin within a word, whose rest is then a word of it.
    assert words >= {border for window in plain.windows for border in window.borders}
    for window in behind.windows:
        assert window.ids[1 : 1 + COUNT] == behind.ids[1 : 1 + COUNT]
        assert min(window.places) == 1 + COUNT  # behind [CLS] and the virtual tokens
    assert behind.ids[1 : 1 + COUNT] == given.encoder.tokenizer("pin")["input_ids"][1 : 1 + COUNT]
