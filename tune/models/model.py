"""The tuned model: a standard Hugging Face folder with its facts, and how such folders are made and opened."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForSequenceClassification

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import ModelError
from edgetune.serve.report import Training
from edgetune.tune.models.base import DECODER_ENDINGS, Base, read_config
from edgetune.tune.models.classifier import PooledClassifier, head_linear, trunk_options
from edgetune.tune.models.stored import Stored
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model


@dataclass(frozen=True)
class TunedModel(Stored):
    """What tuning leaves: the merged model, the base with its probed head beside it, and the facts.

    Attributes:
        folder: of the stage; `model/` is the merged model, `base/` the pretrained trunk with the probed head,
            `adapter/` the adapters before merging (lora only). Each opens with `open_model`.
        task: the task it answers.
        head: how its outputs become answers, with the labels in the order of the logits.
        base_id: the pretrained model as the user named it.
        base_digest: SHA-256 over the pretrained model's files.
        max_tokens: longest input; texts are cut there.
        merge_max_abs_diff: largest logit difference of merging, saving and opening again.
        training: curve, settings and scores.
        codec: how its inputs become arrays.
    """

    file_name: ClassVar[str] = "tuned.json"
    noun: ClassVar[str] = "tuned model"
    command: ClassVar[str] = "tune"

    folder: Path
    task: str
    head: HeadSpec
    base_id: str
    base_digest: str
    max_tokens: int
    merge_max_abs_diff: float
    training: Training
    codec: str = "text"

    @property
    def labels(self) -> tuple[str, ...]:
        """The head's labels; none of a number."""
        return tuple(self.head.labels)

    @property
    def model_folder(self) -> Path:
        """The merged model."""
        return self.folder / "model"

    @property
    def base_folder(self) -> Path:
        """The pretrained trunk with the probed head."""
        return self.folder / "base"

    @property
    def adapter_folder(self) -> Path | None:
        """The adapters as they were before merging, or None for a method without."""
        folder = self.folder / "adapter"
        return folder if folder.is_dir() else None


def start_model(base: Base, objective: Objective, recipe: TuneRecipe) -> Model:
    """The pretrained trunk with a fresh head for what is to be learnt, in fp32, pooled as the recipe says.

    Raises:
        ModelError: the architecture has no sequence classifier, or its weights cannot be opened.
    """
    config = read_config(base, trust_remote_code=recipe.trust_remote_code)
    pooling = chosen_pooling(base, recipe)
    decoder = next((name for name in config.architectures or () if name.endswith(DECODER_ENDINGS)), None)
    if decoder:
        raise ModelError(
            f"{base.id} is a decoder ({decoder}), which answers with text and not with one of the labels.",
            expected="an encoder such as BERT, MPNet or ModernBERT",
            action="choose another --base, or --task text-generation",
        )
    objective.configure(config)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model, and transformers has no sequence classifier for those.",
            expected="an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA, MPNet or ModernBERT",
            action="choose another --base",
        )
    try:
        if pooling == "head":
            model = AutoModelForSequenceClassification.from_pretrained(
                base.folder,
                config=config,
                ignore_mismatched_sizes=True,
                dtype=torch.float32,
                trust_remote_code=recipe.trust_remote_code,
            )
        else:
            model = _pooled(base, config, pooling)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The weights of {base.folder} cannot be opened: {str(error).splitlines()[0]}",
            expected="the weights of the architecture that config.json names",
            action="copy them again from the model's source",
        ) from error
    head_linear(model)
    return model


def chosen_pooling(base: Base, recipe: TuneRecipe) -> str:
    """`mean`, `cls`, or `head` for the architecture's own: as the checkpoint was trained unless said by word."""
    return recipe.pooling if recipe.pooling != "auto" else base.sentence_pooling or "head"


def _pooled(base: Base, config: PreTrainedConfig, pooling: str) -> PooledClassifier:
    from transformers import AutoModel

    config.edgetune_pooling = pooling
    trunk = AutoModel.from_pretrained(base.folder, config=config, dtype=torch.float32, **trunk_options(config))
    return PooledClassifier(trunk.config, trunk)


def open_model(folder: Path, *, attention: str | None = None, adapter: Path | None = None) -> PreTrainedModel:
    """Open a model that tuning has written, in fp32 and evaluation mode.

    Args:
        folder: a model folder.
        attention: "eager" for export; None takes what transformers takes.
        adapter: adapters to put on top, unmerged.
    """
    config = AutoConfig.from_pretrained(folder)
    pooled = getattr(config, "edgetune_pooling", None) is not None
    opener = PooledClassifier if pooled else AutoModelForSequenceClassification
    extra = {"attn_implementation": attention} if attention else {}
    model = opener.from_pretrained(folder, config=config, dtype=torch.float32, **extra)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def longest_input(model: Model, tokenizer: PreTrainedTokenizerBase, base: Base) -> int:
    """The most tokens the model takes, at most 512, by its position table, its tokenizer and its own card."""
    limits = [512, int(min(tokenizer.model_max_length, 1 << 30)), _positions(model)]
    card = base.folder / "sentence_bert_config.json"
    if card.is_file():
        limits.append(json.loads(card.read_text(encoding="utf-8")).get("max_seq_length") or 512)
    return min(limits)


def _positions(model: Model) -> int:
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa's kin count positions from behind the padding index.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - offset
    with contextlib.suppress(AttributeError):
        return int(model.config.max_position_embeddings)
    return 512
