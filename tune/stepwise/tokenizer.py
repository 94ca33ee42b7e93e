"""A base's tokenizer as a language model learns with it: it never closes a text with EOS by itself.

Some put EOS behind every text, prompts too, and a model that learnt to go on with prompts would be asked behind an end.
It is taken off in the tokenizer's own file, which training saves, so that every runtime that opens it gives the ids of
training: the bundle's, onnxruntime-genai's script, transformers and llama.cpp.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from edgetune.serve.errors import ModelError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.models.base import Base, open_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def open_language_tokenizer(base: Base, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a base, without an EOS that it would append.

    Raises:
        ModelError: as `open_tokenizer` does, or the EOS cannot be taken off.
    """
    return without_appended_eos(open_tokenizer(base, trust_remote_code=trust_remote_code))


def without_appended_eos(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer itself, changed in place where it appends EOS to a text.

    Raises:
        ModelError: its post-processor is of a kind that is not known.
    """
    if not _appends_eos(tokenizer):
        return tokenizer
    backend: Any = tokenizer.backend_tokenizer
    described: JsonObject = json.loads(backend.to_str())
    processor = described["post_processor"]
    described["post_processor"] = _without_last_token(processor, str(tokenizer.eos_token))
    backend.post_processor = Tokenizer.from_str(json.dumps(described)).post_processor
    if _appends_eos(tokenizer):
        raise ModelError(
            f"The tokenizer puts {tokenizer.eos_token!r} behind every text, by a post-processor of the kind "
            f"{processor.get('type')!r}.",
            expected="a post-processor of the kind TemplateProcessing, BertProcessing or RobertaProcessing",
            action="write the post_processor of its tokenizer.json without that token",
        )
    return tokenizer


def _appends_eos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the last token of a text stands for none of its characters, and is EOS."""
    encoding = tokenizer("a", return_offsets_mapping=True, verbose=False)
    ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
    return len(ids) > 1 and ids[-1] == tokenizer.eos_token_id and offsets[-1][1] == 0


def _without_last_token(processor: JsonObject, token: str) -> JsonObject:
    """A post-processor of tokenizer.json without the special token that it puts last."""
    kind = processor.get("type")
    if kind == "Sequence":
        return {**processor, "processors": [_without_last_token(one, token) for one in processor["processors"]]}
    if kind == "TemplateProcessing":
        last: JsonObject = processor["single"][-1]
        appends = last.get("SpecialToken", {}).get("id") == token
        return {**processor, "single": processor["single"][:-1]} if appends else processor
    if kind in ("BertProcessing", "RobertaProcessing"):
        first, number = processor["cls"]
        opening = {"SpecialToken": {"id": first, "type_id": 0}}
        text, second = ({"Sequence": {"id": name, "type_id": 0}} for name in ("A", "B"))
        return {
            "type": "TemplateProcessing",
            "single": [opening, text],
            "pair": [opening, text, second],
            "special_tokens": {first: {"id": first, "ids": [number], "tokens": [first]}},
        }
    return processor
