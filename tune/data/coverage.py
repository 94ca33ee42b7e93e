"""How much of a data set a base takes in: texts that are cut, tokens that its tokenizer does not know, and classes that
one constant answer would serve. Said before anything is trained; the report counts all texts at the end.

Must not import torch or transformers: `edgetune init` looks at a base's files alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.rows import Input
from edgetune.tune.data.slices import frozen_rows

MOST_TEXTS = 1_000
MOST_TOKENS = 512
# Shares from which they are said, and from which another base is advised.
SAID_UNKNOWN, MANY_UNKNOWN = 0.01, 0.05


@dataclass(frozen=True)
class Coverage:
    """What a tokenizer makes of some texts.

    Attributes:
        texts: that were drawn.
        max_tokens: that the model takes.
        cut: texts that are longer.
        tokens: of all these texts, special ones included.
        unknown: tokens that stand for what the vocabulary lacks.
        windows: whether longer texts are read whole, in windows, and not cut.
    """

    texts: int
    max_tokens: int
    cut: int
    tokens: int
    unknown: int
    windows: bool = False

    @classmethod
    def of(cls, tokenizer_json: str, inputs: Sequence[Input], max_tokens: int, *, windows: bool = False) -> Coverage:
        """Encode at most `MOST_TEXTS` of the inputs, the same at every call.

        Args:
            tokenizer_json: the content of tokenizer.json.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(tokenizer_json)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        drawn = frozen_rows(list(inputs), MOST_TEXTS, 0)
        encoded = tokenizer.encode_batch(list(drawn))
        model = json.loads(tokenizer_json)["model"]
        number = model.get("unk_id")  # of a Unigram model; the others name the token
        if number is None and model.get("unk_token"):
            number = tokenizer.token_to_id(model["unk_token"])
        unknown = sum(
            row.ids[place] == number and not row.special_tokens_mask[place]
            for row in encoded
            for place in range(len(row.ids))
        )
        cut = sum(len(row.ids) > max_tokens for row in encoded)
        return cls(len(drawn), max_tokens, cut, sum(len(row.ids) for row in encoded), unknown, windows)

    @property
    def cut_share(self) -> float:
        """Of the texts."""
        return self.cut / max(1, self.texts)

    @property
    def unknown_share(self) -> float:
        """Of the tokens."""
        return self.unknown / max(1, self.tokens)

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence for each share that matters."""
        found = []
        texts = counted(self.texts, "training text")
        if self.cut:
            fate = "read in overlapping windows" if self.windows else "cut there"
            found.append(f"{self.cut_share:.1%} of {texts} are longer than {self.max_tokens} tokens and are {fate}.")
        if self.unknown_share >= SAID_UNKNOWN:
            advice = ": choose a base that was trained on this language" * (self.unknown_share >= MANY_UNKNOWN)
            found.append(f"{self.unknown_share:.1%} of the tokens of {texts} are unknown to the base{advice}.")
        return tuple(found)


def coverage_of_folder(folder: Path, inputs: Sequence[Input], *, windows: bool = False) -> Coverage | None:
    """What the base in `folder` takes in, by its files; None where it has no tokenizer.json."""
    try:
        content = (folder / "tokenizer.json").read_text(encoding="utf-8")
    except OSError:
        return None
    return Coverage.of(content, inputs, _longest_input(folder), windows=windows)


def _longest_input(folder: Path) -> int:
    """The most tokens that the base takes by its configuration, at most 512, as `tune.models.model` has it."""
    limits = [MOST_TOKENS]
    for name, key in (
        ("config.json", "max_position_embeddings"),
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ):
        value = _read(folder / name).get(key)
        if isinstance(value, (int, float)) and value > 0:
            limits.append(int(min(value, MOST_TOKENS)))
    return min(limits)


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def balance_findings(counts: Counter[str]) -> tuple[str, ...]:
    """A sentence where one class has so many rows that a constant answer looks good."""
    rows = sum(counts.values())
    label, most = counts.most_common(1)[0]
    if len(counts) < 2 or most < max(0.5, 1.5 / len(counts)) * rows:
        return ()
    return (
        f"Of {len(counts):,} classes {label!r} has {most / rows:.1%} of the rows: always answering it would be right "
        "as often. Balanced accuracy and macro F1 tell more than accuracy.",
    )
