"""Whole builds of embeddings from each kind of record: what the report says is what the bundle answers."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.tune.data.dataset import Dataset
from tests.conftest import KEYWORDS, toy_sentences
from tests.untimed import build_untimed

pytestmark = pytest.mark.slow  # whole builds

Row = dict[str, str]


def pairs() -> list[Row]:
    """60 pairs that share a number of their own, and a key word each."""
    draw, words = random.Random(1), sorted(word for words in KEYWORDS.values() for word in words)
    return [
        {"anchor": f"w{number} {draw.choice(words)}", "positive": f"{draw.choice(words)} w{number}"}
        for number in range(60)
    ]


def triplets() -> list[Row]:
    return [{**row, "negative": f"{row['positive'].split()[0]} v{place}"} for place, row in enumerate(pairs())]


def scored() -> list[Row]:
    draw, rows = random.Random(2), pairs()
    others = draw.sample(rows, len(rows))
    near = [{"sentence1": row["anchor"], "sentence2": row["positive"], "score": "0.9"} for row in rows]
    far = [
        {"sentence1": row["anchor"], "sentence2": other["positive"], "score": "0.1"}
        for row, other in zip(rows, others, strict=True)
        if row is not other
    ]
    return near + far


def labelled() -> list[Row]:
    return [{"text": text, "label": label} for text, label in toy_sentences()]


@dataclass(frozen=True)
class EmbeddingBuild:
    """A finished build: bundle, and its work folder."""

    bundle: Path
    work: Path

    @property
    def report(self) -> Report:
        return Report.load(self.bundle / "report.json")

    @property
    def dataset(self) -> Dataset:
        return Dataset.open(self.work / "data")

    @property
    def predictor(self) -> Predictor:
        return load(self.bundle)


RECORDS: dict[str, Callable[[], Sequence[Row]]] = {
    "pairs": pairs,
    "triplets": triplets,
    "scores": scored,
    "labels": labelled,
}
EXTRA = {"pairs": {"tune": {"method": "full", "epochs": 1, "dimensions": [8]}}}


def _built(folder: Path, base: Path, kind: str) -> EmbeddingBuild:
    rows = RECORDS[kind]()
    data = folder / "rows.csv"
    with data.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    values = {
        "base": str(base),
        "task": "feature-extraction",
        "data": {"path": str(data), "prompts": {"query": "w1 ", "document": "w2 "} if kind == "triplets" else None},
        "tune": {"method": "lora" if kind == "triplets" else "layers", "epochs": 1},
        "compress": {"schemes": ["fused", "int8_dynamic"]},
        "gate": {"max_drop": 0.5},
        "out": str(folder / "bundle"),
        **EXTRA.get(kind, {}),
    }
    build_untimed(values)
    return EmbeddingBuild(folder / "bundle", folder / "bundle.work")


@pytest.fixture(scope="session")
def embedding_build(
    tiny_base: Callable[[str], Path], shared_folder: Callable[..., Path]
) -> Callable[[str], EmbeddingBuild]:
    def build(kind: str) -> EmbeddingBuild:
        folder = shared_folder(f"embedding-{kind}", partial(_into, tiny_base("bert"), kind))
        return EmbeddingBuild(folder / "bundle", folder / "bundle.work")

    return build


def _into(base: Path, kind: str, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    _built(folder, base, kind)
