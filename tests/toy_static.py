"""An artefact scheme for tests: the log odds of tokens and pairs by class, counted (naive Bayes), as static tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from edgetune.compress.material import Material
    from edgetune.serve.engines.tables import StaticTables


@dataclass(frozen=True)
class Learnt:
    """As a scheme of the artefact level returns it."""

    tables: StaticTables
    made_by: str


def learn(material: Material, folder: Path) -> Learnt:
    """Tables of the training part; of pairs those that occur twice."""
    from edgetune.compress.static_student.quantization import quantize_rows
    from edgetune.serve.engines.tables import StaticTables

    rows = [row["input_ids"] for row in material.encoder.rows(material.train.texts)]
    classes, targets = len(material.model.labels), np.asarray(material.train.targets)
    vocabulary = material.encoder.tokenizer.vocab_size
    pairs: dict[int, int] = {}
    for ids in rows:
        for first, second in pairwise(ids):
            pairs[first << 32 | second] = pairs.get(first << 32 | second, 0) + 1
    keys = sorted(key for key, count in pairs.items() if count > 1)
    place_of = {key: 1 + vocabulary + place for place, key in enumerate(keys)}
    counts = np.full((1 + vocabulary + len(keys), classes), 0.3)
    for ids, target in zip(rows, targets, strict=True):
        features = [1 + token for token in ids] + [
            place_of[key] for first, second in pairwise(ids) if (key := first << 32 | second) in place_of
        ]
        np.add.at(counts[:, target], features, 1)
    odds = np.log(counts) - np.log(counts).mean(axis=1, keepdims=True)
    odds[0] = 0
    table, scales = quantize_rows((2 * odds).astype(np.float32))
    tables = StaticTables(
        rows=table,
        scales=scales,
        token_rows=np.arange(1, 1 + vocabulary, dtype=np.int32),
        pair_keys=np.array(keys, np.int64),
        pair_rows=np.arange(1 + vocabulary, 1 + vocabulary + len(keys), dtype=np.int32),
        head=np.eye(classes, dtype=np.float32),
        bias=np.zeros(classes, np.float32),
    )
    return Learnt(tables, "counted")


def add_toy_static(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the scheme `toy_static` be one of SCHEMES for a test."""
    from edgetune.compress.schemes import SCHEMES, Scheme

    module = ModuleType("edgetune.compress.schemes.toy_static")
    module.learn, module.unsuitable = learn, lambda material: ""  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    scheme = Scheme("toy_static", "artefact", "Counts.", "in tests", "everything", tolerance=0.01, structural=True)
    monkeypatch.setitem(SCHEMES, scheme.name, scheme)
