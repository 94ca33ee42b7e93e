"""Bundles that answer from tables, and cascades, made from the golden bundle: its tokenizer, texts and labels."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.engines.tables import StaticTables

GOLDEN = Path(__file__).parent / "bundle-v1"
VOCABULARY = 104
# What the words of the golden bundle's vocabulary speak for: account, delivery, payment.
WORDS = (("login", "password"), ("parcel", "courier"), ("card", "refund"))
# Probability of a label when one word speaks for it alone; two words that disagree leave half and half.
LOGIT = 4.0


def word_tables(ids: dict[str, int]) -> StaticTables:
    """Tables known by hand: a word adds LOGIT to its label; the pair `card parcel` is one of delivery."""
    from edgetune.serve.engines.tables import StaticTables

    rows = np.zeros((4, 3), np.int8)
    rows[1:] = 127 * np.eye(3, dtype=np.int8)
    token_rows = np.zeros(max(ids.values()) + 1, np.int32)
    for place, words in enumerate(WORDS, start=1):
        for word in words:
            token_rows[ids[word]] = place
    pair = np.array([ids["card"] << 32 | ids["parcel"]], np.int64)
    return StaticTables(
        rows=rows,
        scales=np.array([0, *[LOGIT / 127] * 3], np.float32),
        token_rows=token_rows,
        pair_keys=pair,
        pair_rows=np.array([2], np.int32),
        head=np.eye(3, dtype=np.float32),
        bias=np.zeros(3, np.float32),
    )


def write_static(folder: Path) -> Bundle:
    """A bundle that answers from `word_tables`."""
    from tokenizers import Tokenizer

    from edgetune.export.once.pack import _write_golden, write_manifest
    from edgetune.export.once.static_tables import write_static_graph
    from edgetune.serve.bundle import Bundle, TensorSpec

    shutil.copytree(GOLDEN, folder)
    for name in ("golden.json", "report.json", "report.html", "recipe.yaml"):
        (folder / name).unlink()
    golden = Bundle.open(GOLDEN)
    ids = Tokenizer.from_file(str(GOLDEN / "tokenizer.json")).get_vocab()
    engine = write_static_graph(word_tables(ids), folder / "model.onnx")
    inputs = [TensorSpec(name, "int64", ["batch", "tokens"]) for name in ("input_ids", "attention_mask")]
    manifest = msgspec.structs.replace(
        golden.manifest, name="words", scheme="static", engine=engine, inputs=inputs, runtime=None
    )
    write_manifest(folder, manifest)
    _write_golden(folder, [case.text for case in golden.golden().cases], 0.001)
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def write_cascade(folder: Path, static: Bundle, threshold: float) -> Bundle:
    """The golden bundle behind a small model."""
    from edgetune.export.once.cascades import draft_cascade
    from edgetune.serve.bundle import Bundle

    return draft_cascade(Bundle.open(GOLDEN), static, threshold, folder)
