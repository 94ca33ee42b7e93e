"""tokenizer.json with fewer tokens: which ones to keep for given texts, and every number in the file made new.

Worked on as JSON, because the tokenizers library cannot drop a token. The kept ones stay in their order, so that
a padding token that stands first stays where it was, which the positions of RoBERTa's kin are counted from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from tokenizers import Tokenizer

from edgetune.compress.vocabulary import bpe, unigram, wordpiece
from edgetune.serve.errors import CompressError
from edgetune.serve.json_types import JsonObject

_KINDS: dict[str, ModuleType] = {"WordPiece": wordpiece, "BPE": bpe, "Unigram": unigram}
_TEXTS_AT_ONCE = 1024


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer.json, and the tokenizer it describes with neither padding nor truncation."""

    document: dict[str, Any] = field(repr=False)
    tokenizer: Tokenizer = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Vocabulary:
        """Open a tokenizer.json.

        Raises:
            CompressError: it is missing or no tokenizer.
        """
        try:
            return cls.of(json.loads(path.read_text(encoding="utf-8")))
        except Exception as error:  # the tokenizers library raises Exception itself for every bad file
            raise CompressError(
                f"{path} cannot be opened as a tokenizer: {error}",
                expected="the tokenizer.json that tuning writes",
                action="run `edgetune tune` again",
            ) from error

    @classmethod
    def of(cls, document: JsonObject) -> Vocabulary:
        """The vocabulary that `document`, the content of a tokenizer.json, describes."""
        tokenizer = Tokenizer.from_str(json.dumps(document))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return cls(document, tokenizer)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size(with_added_tokens=True))

    def unsupported(self) -> str:
        """Why it cannot be trimmed without new unknowns, as a clause; empty where it can."""
        model = self.document["model"]
        kind = _KINDS.get(model.get("type"))
        if kind is None:
            return f"its tokenizer is of kind {model.get('type')}, not one of {', '.join(_KINDS)}"
        return str(kind.unsupported(self.document))

    def splits(self, texts: Sequence[str]) -> Iterator[list[int]]:
        """Token numbers of each text in order, without special tokens."""
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            part = list(texts[start : start + _TEXTS_AT_ONCE])
            for encoding in self.tokenizer.encode_batch(part, add_special_tokens=False):
                yield encoding.ids

    def needed(self, seen: Collection[int]) -> list[int]:
        """The numbers to keep, ascending: those seen, special and added tokens, and all that keeps splitting total."""
        model = self.document["model"]
        added = {token["id"] for token in self.document["added_tokens"]}
        inside = _model_size(model)
        kept: set[int] = _KINDS[model["type"]].needed(model, {number for number in seen if number < inside})
        return sorted({*kept, *seen, *added})

    def cut(self, kept: Sequence[int]) -> Vocabulary:
        """The vocabulary of the tokens `kept` (ascending old numbers), which are numbered from 0 in that order."""
        numbers = {old: new for new, old in enumerate(kept)}
        document = self.document
        return Vocabulary.of(
            {
                **document,
                "padding": _renumbered_padding(document.get("padding"), numbers),
                "added_tokens": [{**token, "id": numbers[token["id"]]} for token in document["added_tokens"]],
                "post_processor": _renumbered_template(document["post_processor"], numbers),
                "model": _KINDS[document["model"]["type"]].cut(document["model"], numbers),
            }
        )


def renumbered_settings(settings: JsonObject, numbers: Mapping[int, int]) -> JsonObject:
    """A tokenizer_config.json or the like with its token numbers made new; those outside the vocabulary stay.

    Args:
        settings: `unk_id` and what ends in `_token_id` are numbers, the keys of `added_tokens_decoder` too.
        numbers: new number by old number.
    """

    def renumbered(key: str, value: Any) -> Any:
        if key == "added_tokens_decoder":
            return {str(numbers[int(number)]): token for number, token in value.items()}
        is_number = (key == "unk_id" or key.endswith("_token_id")) and isinstance(value, int)
        return numbers.get(value, value) if is_number else value

    return {key: renumbered(key, value) for key, value in settings.items()}


def _model_size(model: JsonObject) -> int:
    vocab = model["vocab"]
    return len(vocab) if isinstance(vocab, list) else 1 + max(vocab.values())


def _renumbered_padding(padding: Mapping[str, Any] | None, numbers: Mapping[int, int]) -> dict[str, Any] | None:
    return None if padding is None else {**padding, "pad_id": numbers[padding["pad_id"]]}


def _renumbered_template(processor: Mapping[str, Any] | None, numbers: Mapping[int, int]) -> dict[str, Any] | None:
    """The post-processor: a template, BERT's or RoBERTa's pair of tokens, or a sequence of such."""
    if processor is None:
        return None
    made = dict(processor)
    if processor["type"] == "Sequence":
        made["processors"] = [_renumbered_template(one, numbers) for one in processor["processors"]]
    elif processor["type"] == "TemplateProcessing":
        made["special_tokens"] = {
            name: {**token, "ids": [numbers[old] for old in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
    for end in {"sep", "cls"} & processor.keys():
        made[end] = [processor[end][0], numbers[processor[end][1]]]
    return made
