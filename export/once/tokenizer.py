"""The tokenizer as the runtime reads it, and the proof that what it feeds the graph is what training fed the model."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME
from edgetune.serve.codecs import Codec, open_codec
from edgetune.serve.errors import ParityError
from edgetune.tune.data.rows import Input, each_text, filling, length, shortened
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import length_batches

_BATCH_ROWS = 512


def write_tokenizer(source: Path, folder: Path, max_tokens: int) -> None:
    """Write the tokenizer of a model folder into `folder`, cut at `max_tokens` on the side that training cuts."""
    # A base's tokenizer.json may carry a truncation and a padding of its own, which other servers would obey.
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER_NAME))
    config = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer.enable_truncation(max_tokens, direction=config.get("truncation_side", "right"))
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER_NAME))
    special = {name: config[name] for name in config if name.endswith("_token") and isinstance(config[name], str)}
    # Servers that truncate by themselves (fastembed, text-embeddings-inference) read the limit here.
    limits = {"model_max_length": max_tokens, "max_length": max_tokens}
    write_json(folder / "tokenizer_config.json", {**config, **limits})
    write_json(folder / "special_tokens_map.json", special)


def write_json(path: Path, value: object) -> None:
    """Write a value of JSON types as the bundle's files are written."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_tokenizer(saved: Path, encoder: Encoder, texts: Sequence[Input]) -> None:
    """Compare what the runtime feeds the graph with what training fed the model: ids, type ids, mask and padding.

    Beside the texts, such as have no token and such as are cut are compared, whether the texts are so or not.

    Args:
        saved: the tokenizer.json of a model folder, with config.json beside it.
        encoder: as it was trained with.
        texts: of the task.

    Raises:
        ParityError: naming the first texts that differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer(saved.parent, Path(folder), encoder.max_tokens)
        shutil.copyfile(saved.parent / CONFIG_NAME, Path(folder) / CONFIG_NAME)
        runtime = open_codec(encoder.codec, Path(folder), encoder.max_tokens)
    compared = [*texts, *_edges(texts, encoder.max_tokens)]
    faults = []
    for indices in length_batches([length(text) for text in compared], _BATCH_ROWS):
        faults += _differing(runtime, encoder, [compared[index] for index in indices])
    if faults:
        raise ParityError(
            f"The saved tokenizer gives other ids for {len(faults)} of {len(compared)} texts, such as "
            f"{shortened(faults[0])!r}.",
            expected="the ids of the training tokenizer",
            action="report this with the base model's name; nothing was written to the output",
        )


def _edges(texts: Sequence[Input], max_tokens: int) -> list[Input]:
    """A text without a word, and texts that are longer than the model takes, with their words in another order too."""
    if not texts:
        return []
    long = filling(list(texts) * (1 + 2 * max_tokens // len(texts)), 2 * max_tokens)
    turned = each_text(lambda text: " ".join(reversed(text.split())), long)
    return [each_text(lambda _: "", texts[0]), long, turned]


def _differing(runtime: Codec, encoder: Encoder, texts: list[Input]) -> list[Input]:
    """The texts whose rows, alone or padded beside the others, are not the same in both ways."""
    rows, encoded = encoder.rows(texts), runtime.encode(texts)
    faults = [
        text
        for text, row, ours in zip(texts, rows, encoded, strict=True)
        if row["input_ids"] != ours.ids or row.get("token_type_ids", ours.type_ids) != ours.type_ids
    ]
    if faults:
        return faults
    trained, served = encoder.pad(rows, "np"), runtime.pad(encoded)
    # Type ids of padding are left out: nothing reads them behind the mask, and XLNet's tokenizer has its own.
    padded = np.asarray(trained["attention_mask"]) == 0
    equal = np.ones(len(texts), dtype=bool)
    for name, values in trained.items():
        same = np.asarray(values) == served[name]
        equal &= (same | padded if name == "token_type_ids" else same).all(axis=1)
    return [text for text, row_equal in zip(texts, equal.tolist(), strict=True) if not row_equal]
