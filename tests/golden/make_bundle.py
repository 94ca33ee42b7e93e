"""Makes the golden bundle of format 1: an ordinary build, on a base and sentences that are made here from a seed.

Run once, when format 1 was fixed: `python tests/golden/make_bundle.py tests/golden/bundle-v1`. Do not run it again to
make a failing test pass: the folder stands for the bundles that users have, and a release that cannot open it is wrong.
"""

from __future__ import annotations

import contextlib
import csv
import random
import sys
import tempfile
from pathlib import Path

import click

WORDS = {
    "delivery": "parcel courier address track delivered arrived shipping box".split(),
    "payment": "card refund charged invoice money paid price euros".split(),
    "account": "password login email profile username locked code reset".split(),
}
FILLERS = "i my the a is was not it please help today again why where how can you since yesterday still".split()
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MARKS = list(".,!?'")
TOKENS = 32

# Of the random trunk: with the usual 0.02 attention is flat, and a lost mask would go unseen.
INITIALIZER_RANGE = 0.15

RECIPE = """\
base: tiny-bert
data: {path: sentences.csv, text: text, label: label}
tune: {method: full, epochs: 12, batch_size: 8, learning_rate: 0.003, precision: fp32, max_tokens: 32}
compress: {schemes: [fp32]}
benchmark: {samples: 40, threads: 1, grid: false, cold_starts: 1}
seed: 1
out: bundle-v1
device: cpu
"""


def vocabulary() -> dict[str, int]:
    """About a hundred tokens: the special ones, marks, letters as first and as further pieces, and the words."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = sorted({word for words in WORDS.values() for word in words} | {word for word in FILLERS if len(word) > 1})
    tokens = [*SPECIALS, *MARKS, *letters, *(f"##{letter}" for letter in "aeinorst"), *words]
    return {token: index for index, token in enumerate(tokens)}


def write_base(folder: Path) -> None:
    """A BERT of two layers, 16 wide, with random weights, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    vocab = vocabulary()
    config = BertConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=TOKENS,
        initializer_range=INITIALIZER_RANGE,
    )
    torch.manual_seed(1)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocab, model_max_length=TOKENS).save_pretrained(folder)


def write_sentences(path: Path) -> None:
    """180 unlike sentences of 2 to 14 words, each with a word or two of its class."""
    chosen = random.Random(1)
    rows: dict[str, str] = {}
    for label, words in WORDS.items():
        while sum(1 for known in rows.values() if known == label) < 60:
            sentence = chosen.choices(FILLERS, k=chosen.randint(1, 12))
            for word in chosen.sample(words, k=chosen.randint(1, 2)):
                sentence.insert(chosen.randint(0, len(sentence)), word)
            rows.setdefault(" ".join(sentence), label)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows.items()])


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=False))
def main(folder: Path) -> None:
    """Build the golden bundle into FOLDER, which must not exist."""
    target = folder.resolve()
    if target.exists():
        raise click.UsageError(f"{folder} exists: bundles of a published format are never made again")
    # In a folder of its own and by relative names, so that no path of the builder's machine is in the bundle.
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        write_base(Path("tiny-bert"))
        write_sentences(Path("sentences.csv"))
        Path("recipe.yaml").write_text(RECIPE, encoding="utf-8")
        build_bundle(target)


def build_bundle(target: Path) -> None:
    """The build itself, as `edgetune build recipe.yaml` does it, packed at `target` with the system's bare name."""
    import platform

    from msgspec.structs import replace
    from rich.console import Console

    from edgetune.benchmarks.report.html import render_html
    from edgetune.export.once.pack import finish_bundle
    from edgetune.once.recipe import OnceRecipe
    from edgetune.pipeline import build
    from edgetune.progress import StageLines

    sys.argv = ["edgetune", "build", "recipe.yaml"]  # the report tells the command
    built = build(OnceRecipe.load(Path("recipe.yaml"), {}), StageLines(Console()))
    assert built.bundle is not None
    assert built.report is not None
    report = replace(built.report, machine=replace(built.report.machine, os=platform.system()))
    finish_bundle(built.bundle, target, {"report.json": report.to_json(), "report.html": render_html(report).encode()})


if __name__ == "__main__":
    main()
