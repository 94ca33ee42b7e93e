"""Vocabulary trimming: rows of the embedding table whose tokens the domain's texts never use are dropped.

The tokens seen in the training and unlabeled texts stay, with the special ones and all that keeps splitting total, so
those texts give the very logits they gave before, and no text gets an unknown token that it did not have. A text with
a dropped token is split into shorter pieces; how many do is measured on the validation part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.compress.vocabulary.document import Vocabulary, renumbered_settings
from edgetune.serve.errors import CompressError
from edgetune.tune.data.rows import flat_texts
from edgetune.tune.models.facts import write_facts

if TYPE_CHECKING:
    from edgetune.compress.material import Material

FACTS_NAME = "trimmed.json"
# Below these the model would hardly be smaller; MiniLM's table is half of it.
LEAST_TABLE_SHARE = 0.10
LEAST_SAVED_SHARE = 0.05
# Above it the training texts say too little of the texts to come.
MOST_TEXTS_WITH_NEW_TOKENS = 0.5
_PROVEN_TEXTS = 64
_TOLERANCE = 1e-6


def unsuitable(material: Material) -> str:
    """Why trimming does not apply: the table is small, the tokenizer of another kind, or the texts say too little."""
    folder = material.model.model_folder
    rows, share = _embedding_table(folder)
    if share < LEAST_TABLE_SHARE:
        return f"the embedding table is only {share:.0%} of the model"
    vocabulary = Vocabulary.open(folder / "tokenizer.json")
    if reason := vocabulary.unsupported():
        return reason
    kept = vocabulary.needed(_seen(vocabulary, material))
    saved = share * (1 - len(kept) / rows)
    if saved < LEAST_SAVED_SHARE:
        return f"it would make the model only {saved:.0%} smaller: {len(kept):,} of {rows:,} tokens are needed"
    new = _share_with_new_tokens(vocabulary, material)
    if new > MOST_TEXTS_WITH_NEW_TOKENS:
        return (
            f"the texts say too little about those to come: {new:.0%} of them have a token that no other has "
            "(more texts in data.unlabeled would help)"
        )
    return ""


def strengths(material: Material) -> Sequence[int]:
    """There is but one."""
    return (0,)


def compress(material: Material, folder: Path, strength: int) -> str:
    """Write `folder/model/` with the needed tokens alone, and `folder/trimmed.json` with what that changed.

    Raises:
        CompressError: the tokenizer cannot be trimmed, or the trimmed model does not answer as the whole one does.
    """
    source, target = material.model.model_folder, folder / "model"
    whole = Vocabulary.open(source / "tokenizer.json")
    if reason := whole.unsupported():
        raise CompressError(f"The vocabulary of {source} cannot be trimmed: {reason}.")
    kept = whole.needed(_seen(whole, material) | _encoded(material) | _named_by_config(source, len(whole)))
    trimmed = whole.cut(kept)
    _check_splits(whole, trimmed, kept, flat_texts((*material.train.texts, *material.unlabeled)))
    _write_model(source, target, kept)
    _write_tokenizer(source, target, trimmed, kept)
    _check_logits(source, target, material)
    share = share_split_differently(whole, trimmed, kept, flat_texts(material.validation.texts))
    facts = {"kept": len(kept), "before": len(whole), "texts_split_differently_share": share}
    write_facts(folder / FACTS_NAME, facts)
    return (
        f"kept {len(kept):,} of {len(whole):,} tokens; {share:.1%} of the validation texts split differently"
        if material.validation.texts
        else f"kept {len(kept):,} of {len(whole):,} tokens"
    )


def share_split_differently(whole: Vocabulary, trimmed: Vocabulary, kept: Sequence[int], texts: Sequence[str]) -> float:
    """Share of texts that `trimmed` splits into other tokens than `whole` does, 0 to 1; 0 of no texts.

    Args:
        kept: old number of each token of `trimmed`.
    """
    return len(_split_differently(whole, trimmed, kept, texts)) / max(len(texts), 1)


def _split_differently(whole: Vocabulary, trimmed: Vocabulary, kept: Sequence[int], texts: Sequence[str]) -> list[str]:
    pairs = zip(texts, whole.splits(texts), trimmed.splits(texts), strict=True)
    return [text for text, before, after in pairs if before != [kept[number] for number in after]]


def _seen(vocabulary: Vocabulary, material: Material) -> set[int]:
    texts = flat_texts((*material.train.texts, *material.unlabeled))
    return {number for split in vocabulary.splits(texts) for number in split}


def _encoded(material: Material) -> set[int]:
    """Tokens of the inputs as the task encodes them, which may put in words that stand in no text."""
    rows = material.encoder.rows((*material.train.texts, *material.unlabeled))
    return {number for row in rows for number in row["input_ids"]}


def _share_with_new_tokens(vocabulary: Vocabulary, material: Material) -> float:
    """Share of the texts with a token that no other text has and that is not kept anyway, 0 to 1; 1 of no texts.

    Leaving one out: the share of texts to come that will split differently, as these texts foretell it.
    """
    texts = flat_texts((*material.train.texts, *material.unlabeled))
    always = set(vocabulary.needed(()))
    splits = [set(split) - always for split in vocabulary.splits(texts)]
    texts_with = Counter(number for split in splits for number in split)
    return sum(any(texts_with[number] == 1 for number in split) for split in splits) / len(texts) if texts else 1.0


def _embedding_table(folder: Path) -> tuple[int, float]:
    """Rows of the table of tokens, and its share of the model's parameters, from the weight files' headers alone."""
    from safetensors import safe_open

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows = int(config["vocab_size"])
    total = table = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="np") as weights:
            for name in weights.keys():  # noqa: SIM118 (it is no mapping)
                shape = weights.get_slice(name).get_shape()
                size = 1
                for length in shape:
                    size *= length
                total += size
                table += size if len(shape) == 2 and shape[0] == rows and "embed" in name else 0
    return rows, table / max(total, 1)


def _named_by_config(folder: Path, tokens: int) -> set[int]:
    """The tokens that config.json names by number, which may be plain ones where the tokenizer names none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    numbers = {value for key, value in config.items() if key.endswith("_token_id") and isinstance(value, int)}
    return {number for number in numbers if 0 <= number < tokens}


def _check_splits(whole: Vocabulary, trimmed: Vocabulary, kept: Sequence[int], texts: Sequence[str]) -> None:
    faults = _split_differently(whole, trimmed, kept, texts)
    if faults:
        raise CompressError(
            f"The trimmed tokenizer splits {len(faults)} of {len(texts)} texts differently, such as "
            f"{faults[0][:60]!r}, though all their tokens were kept.",
            expected="the same tokens as before for every text of the training part",
            action="leave this scheme out and report this with the base model's name",
        )


def _write_model(source: Path, target: Path, kept: Sequence[int]) -> None:
    from torch import nn

    from edgetune.tune.models.model import open_model

    model = open_model(source)
    table = model.get_input_embeddings()
    numbers = {old: new for new, old in enumerate(kept)}
    padding = None if table.padding_idx is None else numbers[table.padding_idx]
    rows = table.weight.detach()[list(kept)].clone()  # (kept, width)
    model.set_input_embeddings(nn.Embedding(len(kept), rows.shape[1], padding_idx=padding, _weight=rows))
    settings = renumbered_settings(model.config.to_dict(), numbers)
    model.config.update({key: value for key, value in settings.items() if key.endswith("_token_id")})
    model.config.vocab_size = len(kept)
    model.save_pretrained(target)


def _write_tokenizer(source: Path, target: Path, trimmed: Vocabulary, kept: Sequence[int]) -> None:
    """tokenizer.json and the settings beside it; files of the whole vocabulary (vocab.txt, merges.txt) are left out."""
    numbers = {old: new for new, old in enumerate(kept)}
    _write_json(target / "tokenizer.json", trimmed.document)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (source / name).is_file():
            settings = json.loads((source / name).read_text(encoding="utf-8"))
            _write_json(target / name, renumbered_settings(settings, numbers))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8", newline="\n")


def _check_logits(source: Path, target: Path, material: Material) -> None:
    """Prove on training texts, through files, that weights, config and tokenizer still belong together."""
    import numpy as np
    from transformers import AutoTokenizer

    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    texts = material.train.texts[:: max(1, len(material.train) // _PROVEN_TEXTS)]
    before, after = (
        model_logits(
            open_model(folder), replace(material.encoder, tokenizer=AutoTokenizer.from_pretrained(folder)), texts
        )
        for folder in (source, target)
    )
    difference = float(np.abs(before - after).max())
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(before).max())):
        raise CompressError(
            f"The trimmed model answers training texts differently: logits are off by up to {difference:.4g}.",
            expected="the same logits, since their tokens and rows were kept",
            action="leave this scheme out and report this with the base model's name",
        )
