"""The tuned model: a standard Hugging Face folder with its facts, and how such folders are made and opened."""

from __future__ import annotations

import contextlib
import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import ModelError
from edgetune.serve.report import Training
from edgetune.tune.models.adapted import keep_readable
from edgetune.tune.models.base import Base, read_config, unopenable_weights
from edgetune.tune.models.classifier import (
    PooledClassifier,
    has_encoder_alone,
    head_linear,
    is_decoder,
    trunk_class,
    trunk_opener,
    trunk_options,
)
from edgetune.tune.models.picture_model import is_picture_model
from edgetune.tune.models.pooling import sentence_pooling
from edgetune.tune.models.soundness import check_weights
from edgetune.tune.models.stored import Stored
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks.objective import Objective

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model


HELD_OUT_NAME = "held_out.npy"
FEATURES_NAME = "features.npy"
# In place of a pooling, where each token is answered for.
TOKENS = "tokens"
# The architecture's own heads, by pooling, and how those on tokens are named.
_HEADS = {"head": AutoModelForSequenceClassification, TOKENS: AutoModelForTokenClassification}
_ON_TOKENS = "ForTokenClassification"


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
        learns_copies: whether it has learnt the changed copies of training texts, where the data set has any.
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
    learns_copies: bool = True

    @property
    def labels(self) -> tuple[str, ...]:
        """The head's labels; none of a number."""
        return tuple(self.head.labels)

    def held_out_logits(self) -> NDArray[np.float32] | None:
        """Logits (rows, outputs) float32 of the whole validation part, each row by a head that has not learnt it.

        The head that is handed on has learnt the part, as it has the training part. None where they were not kept.
        """
        path = self.folder / HELD_OUT_NAME
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def head_features(self) -> NDArray[np.float16] | None:
        """What the merged model's last layer sees of the training part, and of the validation part behind it: (rows,
        features) float16. None where they were not kept.
        """
        path = self.folder / FEATURES_NAME
        return np.load(path, allow_pickle=False) if path.is_file() else None

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


def start_model(base: Base, objective: Objective, recipe: TuneRecipe, *, has_head: bool = True) -> Model:
    """The pretrained trunk with a fresh head for what is to be learnt, in fp32, pooled as the recipe says.

    Raises:
        ModelError: the architecture has no sequence classifier, or its weights cannot be opened, do not belong to it,
            or are no numbers.
    """
    config = read_config(base)
    pooling = TOKENS if objective.per_token else _pooling_of(base, config, recipe, has_head=has_head)
    _check_architecture(base, config, pooling)
    objective.configure(config)
    try:
        model, missing = _opened(base, config, pooling)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise unopenable_weights(base, error) from error
    head_linear(model)
    check_weights(base, model, missing)
    return model


def _check_architecture(base: Base, config: PreTrainedConfig, pooling: str) -> None:
    known = _HEADS[pooling]._model_mapping if pooling in _HEADS else (type(config),)
    trunk = trunk_class(config)
    if type(config) not in known or trunk is None:
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model, and transformers has no "
            f"{'token' if pooling == TOKENS else 'sequence'} classifier for those.",
            expected="an encoder such as BERT, DistilBERT, RoBERTa, ELECTRA, MPNet or ModernBERT, or a decoder such as "
            "Qwen3, Llama or GPT-2",
            action="choose another --base",
        )
    if config.is_encoder_decoder and not has_encoder_alone(config):
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model of encoder and decoder, whose classifier reads the decoder: "
            "there is no graph of it that answers in one run.",
            expected="an encoder, a decoder, or a T5 whose encoder can be opened alone",
            action="choose another --base",
        )
    if "attention_mask" not in inspect.signature(trunk.forward).parameters:
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model, which has no attention mask: padding is read as text, so a "
            "text would be answered otherwise beside longer ones than alone.",
            expected="a model that takes an attention mask",
            action="choose another --base",
        )


def chosen_pooling(base: Base, recipe: TuneRecipe, *, has_head: bool = True) -> str:
    """How token states become one vector, of `POOLINGS`, or `head` for the architecture's own head."""
    return _pooling_of(base, read_config(base), recipe, has_head=has_head)


def _pooling_of(base: Base, config: PreTrainedConfig, recipe: TuneRecipe, *, has_head: bool) -> str:
    """As the checkpoint was trained unless said by word.

    Heads of decoders read the last token, found by its id: an end of text that is the padding too would be passed over.
    So it is pooled by the mask here. The head of a T5 reads its decoder, which no graph of one run has. Vectors of a
    base that says nothing of pooling are means, as sentence-transformers takes them.
    """
    earlier = getattr(config, "edgetune_pooling", None)  # of a model that was tuned here
    chosen = recipe.pooling if recipe.pooling != "auto" else earlier or sentence_pooling(base.folder) or "head"
    if chosen == "head" and is_decoder(config):
        return "last"
    # The mean of EuroBERT's logits, which its head takes of all tokens, is what a head on the mean gives.
    by_mean = has_encoder_alone(config) or config.model_type == "eurobert"
    return "mean" if chosen == "head" and (by_mean or not has_head) else chosen


def _opened(base: Base, config: PreTrainedConfig, pooling: str) -> tuple[Model, set[str]]:
    """The model, and the names of its weights that the files do not have."""
    options = {"config": config, "dtype": torch.float32, "output_loading_info": True}
    if pooling in _HEADS:
        model, loading = _HEADS[pooling].from_pretrained(base.folder, ignore_mismatched_sizes=True, **options)
        return model, set(loading["missing_keys"])
    config.edgetune_pooling = pooling
    if hasattr(config, "use_cache"):
        config.use_cache = False  # of a decoder: nothing comes behind the one run
    prefix = f"{PooledClassifier.base_model_prefix}."
    if PooledClassifier.__name__ in (config.architectures or ()):  # which has the trunk's weights by another name
        options["key_mapping"] = {f"^{prefix}": ""}
    trunk, loading = trunk_opener(config).from_pretrained(base.folder, **options, **trunk_options(config))
    return PooledClassifier(trunk.config, trunk), {f"trunk.{name}" for name in loading["missing_keys"]}


def open_model(folder: Path, *, attention: str | None = None, adapter: Path | None = None) -> PreTrainedModel:
    """Open a model that tuning has written, in fp32 and evaluation mode.

    Args:
        folder: a model folder.
        attention: "eager" for export; None takes what transformers takes.
        adapter: adapters to put on top, unmerged.
    """
    config = AutoConfig.from_pretrained(folder)
    pooled = getattr(config, "edgetune_pooling", None) is not None
    on_tokens = any(name.endswith(_ON_TOKENS) for name in config.architectures or ())
    opener = PooledClassifier if pooled else _HEADS[TOKENS if on_tokens else "head"]
    if is_picture_model(config):
        opener = AutoModelForImageClassification
    extra = {"attn_implementation": attention} if attention else {}
    model = opener.from_pretrained(folder, config=config, dtype=torch.float32, **extra)
    if adapter is not None:
        from peft import PeftModel

        model = keep_readable(PeftModel.from_pretrained(model, adapter))
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
        # XLNet, whose positions are relative, says -1.
        return int(model.config.max_position_embeddings) if model.config.max_position_embeddings > 0 else 512
    return 512
