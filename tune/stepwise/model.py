"""The tuned language model: a standard Hugging Face folder with its facts, and how such folders are opened.

What is opened for training and what is written is fp32; a folder without all of its weights is refused, since
transformers would fill the rest with random ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig

from edgetune.serve.errors import ModelError
from edgetune.serve.stepwise.report import LanguageTraining, ObjectiveQuality
from edgetune.tune.models.base import UNREADABLE, Base, read_config, unopenable_weights
from edgetune.tune.models.stored import Stored
from edgetune.tune.stepwise.first_cache import FirstCache, put_before
from edgetune.tune.stepwise.objectives.pairs import PairNats
from edgetune.tune.stepwise.perplexity import Perplexity

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from edgetune.tune.models.types import Model

_UNOPENABLE: tuple[type[Exception], ...] = (*UNREADABLE, RuntimeError, SafetensorError)


class LanguageQuality(msgspec.Struct, frozen=True, kw_only=True):
    """Perplexity of one model on one part, over the answers' tokens; `loss` is the mean in nats a token."""

    perplexity: float
    token_accuracy: float
    loss: float
    rows: int
    tokens: int

    @classmethod
    def of(cls, perplexity: Perplexity) -> LanguageQuality:
        """The summary of sums that were kept row by row."""
        return cls(
            perplexity=perplexity.value,
            token_accuracy=perplexity.token_accuracy,
            loss=perplexity.loss,
            rows=len(perplexity.tokens),
            tokens=int(perplexity.tokens.sum()),
        )


class AnswerScore(msgspec.Struct, frozen=True, kw_only=True):
    """A metric on answers that base and tuned model generated to the same rows, 0 to 1."""

    metric: str
    rows: int
    base: float
    tuned: float


@dataclass(frozen=True)
class TunedLanguageModel(Stored):
    """What tuning a language model leaves: the merged model and the facts.

    Attributes:
        folder: of the stage; `model/` is the merged model, `adapter/` the adapters before merging (LoRA and its kin).
        base_id: the pretrained model as the user named it.
        base_digest: SHA-256 over the pretrained model's files.
        measured_on: the part that `base` and `tuned` were measured on: `test`, or `validation` where there is none.
        base: the pretrained model on that part; its sums of each row are in `base_perplexity`.
        tuned: the merged and reopened model on the same rows.
        merge_max_abs_diff: largest logit difference of merging, saving and opening again.
        training: curve, settings and a remark.
        answers: scores of generated answers, one a metric that the recipe asks for.
        objective: what an objective of preferences or rewards came to; None for supervised fine-tuning.
    """

    file_name: ClassVar[str] = "tuned.json"
    noun: ClassVar[str] = "tuned model"
    command: ClassVar[str] = "tune"

    folder: Path
    base_id: str
    base_digest: str
    measured_on: str
    base: LanguageQuality
    tuned: LanguageQuality
    merge_max_abs_diff: float
    training: LanguageTraining
    answers: tuple[AnswerScore, ...] = ()
    objective: ObjectiveQuality | None = None

    def base_pairs(self, part: str) -> PairNats | None:
        """What the base thinks of the pairs of a part that judges, "validation" or "test"; None where there are none.

        Of the test part those that tuning measured.
        """
        path = self.folder / f"base_{part}_pairs.npz"
        return PairNats.load(path) if path.is_file() else None

    @property
    def model_folder(self) -> Path:
        """The merged model: safetensors, tokenizer with its chat template, config and generation_config."""
        return self.folder / "model"

    @property
    def adapter_folder(self) -> Path | None:
        """The adapters as they were before merging, or None for a method without."""
        folder = self.folder / "adapter"
        return folder if folder.is_dir() else None

    @property
    def base_perplexity(self) -> Perplexity:
        """The base's sums of each row of the part it was measured on."""
        return Perplexity.load(self.folder / "base_perplexity.npz")

    @property
    def tuned_perplexity(self) -> Perplexity:
        """The tuned model's sums of the same rows."""
        return Perplexity.load(self.folder / "tuned_perplexity.npz")


def language_config(base: Base, *, trust_remote_code: bool = False) -> PreTrainedConfig:
    """The config of a base that generates text.

    Raises:
        ModelError: it is an encoder, or of an architecture without a language model.
    """
    config = read_config(base, trust_remote_code=trust_remote_code)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{base.id} is a {config.model_type!r} model of encoder and decoder, and such models are not supported.",
            expected="a decoder alone, such as SmolLM2, Qwen3 or Llama, which learns the same rows",
            action="choose another --base; the encoder of a T5 alone classifies (--task text-classification)",
        )
    known = type(config) in AutoModelForCausalLM._model_mapping
    names = config.architectures if isinstance(config.architectures, list) else []
    if trust_remote_code and "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return config
    if not known or (names and AutoModelForCausalLM._model_mapping[type(config)].__name__ not in names):
        raise ModelError(
            f"{base.id} is {', '.join(names) or f'a {config.model_type!r} model'}, which does not generate text.",
            expected="a decoder with its head, such as Llama, Qwen, Gemma, Phi, GPT-2 or SmolLM",
            action="choose another --base, or another --task",
        )
    quantized = getattr(config, "quantization_config", None)
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, dict) else None
        raise ModelError(
            f"The weights of {base.id} are quantized already" + (f", by {method}." if method else "."),
            expected="weights in fp32, bf16 or fp16, as the model was trained",
            action="name the checkpoint that this one was made of; tune.method: qlora quantizes it while it learns",
        )
    return config


def open_pretrained(
    base: Base, *, trust_remote_code: bool = False, quantization: object = None, device: str = "cpu"
) -> PreTrainedModel:
    """The pretrained language model in fp32, its linear layers quantized where a configuration says so.

    Args:
        quantization: transformers' BitsAndBytesConfig, or None.
        device: where a quantized model is opened; by itself transformers would take a GPU where there is one.

    Raises:
        ModelError: no language model, or weights that are missing or cannot be opened.
    """
    config = language_config(base, trust_remote_code=trust_remote_code)
    extra = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": device}}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            base.folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are told below, by name
            **extra,
        )
    except _UNOPENABLE as error:
        raise unopenable_weights(base, error) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{base.folder} lacks {len(missing)} weights, first {missing[0]}: they would be random.",
            expected="all weights of the architecture that config.json names",
            action="copy them again from the model's source",
        )
    if report["mismatched_keys"]:
        name, stored, expected = sorted(report["mismatched_keys"])[0]
        raise ModelError(
            f"{base.folder} has {len(report['mismatched_keys'])} weights of another shape, first {name}: "
            f"{tuple(stored)}, where config.json asks for {tuple(expected)}.",
            expected="the weights of the architecture that config.json names",
            action="copy both again from the model's source",
        )
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken and quantization is None:
        raise ModelError(
            f"{base.folder} has {len(broken)} weights with values that are no finite numbers, first {broken[0]}.",
            expected="finite weights; half precision may have overflowed where they were saved",
            action="copy them again from the model's source, or choose another --base",
        )
    mend_generation_config(model)  # before the first checkpoint, which has it too
    return model


def mend_generation_config(model: Model) -> None:
    """Let a checkpoint's generation settings be such as transformers saves; it refuses some that it has read.

    Sampling settings without `do_sample`, which many checkpoints bring, get it. Of other invalid ones the tokens stay.
    """
    config = model.generation_config
    if _is_valid(config):
        return
    config.do_sample = True
    if not _is_valid(config):
        bos, eos, pad = (_token_ids(value) for value in (config.bos_token_id, config.eos_token_id, config.pad_token_id))
        model.generation_config = GenerationConfig(
            bos_token_id=next(iter(bos), None), eos_token_id=eos or None, pad_token_id=next(iter(pad), None)
        )


def _is_valid(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except (ValueError, TypeError):
        return False
    return True


def _token_ids(value: object) -> list[int]:
    listed = value if isinstance(value, list) else [value]
    return [token for token in listed if isinstance(token, int) and token >= 0]


def open_language_model(folder: Path, *, attention: str | None = None) -> PreTrainedModel:
    """Open a language model that tuning has written, in fp32 and evaluation mode, behind its first cache if it has one.

    Args:
        folder: a model folder.
        attention: "eager" or another of transformers' implementations; None takes what transformers takes.
    """
    extra = {"attn_implementation": attention} if attention else {}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **extra).eval()
    return put_before(model, FirstCache.open(folder))
