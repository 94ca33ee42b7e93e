"""A bundle on the processors of each class: does what it would open there answer as it was judged, and at what size?

    python -m benchmarks.lab.targets --bundle BUNDLE [--rows 500] [--class NAME] [--markdown docs/targets.md]

The bundle lies beside its work folder, whose data set has the test part. Takes minutes a class, on a quiet machine.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import msgspec
import numpy as np

from edgetune.benchmarks.prove.gate import judge_answers
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.benchmarks.targets.emulation import Prover, prover_of
from edgetune.benchmarks.targets.replay import replay_rows
from edgetune.export.once.pack import write_manifest
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor
from edgetune.serve.token_outputs import difference
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.metrics import ACCURACY

CLASSES = ("x86-64-v2", "x86-64-v3", "x86-64-vnni", "arm64", "arm64-dotprod", "arm64-i8mm")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
HEAD = """
| processor | what answers | rows | as judged | largest difference of a logit | accuracy | gate |
|---|---|---|---|---|---|---|
"""


def graph_alone(bundle: Bundle, folder: Path) -> Bundle:
    """The bundle without the small model of its cascade, so that its graph answers every row."""
    for path in bundle.folder.iterdir():
        (folder / path.name).symlink_to(path.resolve())
    (folder / "manifest.json").unlink()
    for name in bundle.manifest.files:  # links are refused
        (folder / name).unlink()
        (folder / name).hardlink_to((bundle.folder / name).resolve())
    write_manifest(folder, msgspec.structs.replace(bundle.manifest, cascade=None, targets=[]))
    return Bundle.open(folder)


def saturating(prover: Prover) -> Prover:
    """The same processor described as one with VNNI: nothing then asks ONNX Runtime for sums that fit."""
    assert prover.core is not None
    return replace(prover, core=replace(prover.core, flags=f"{prover.core.flags} avx512_vnni"))


def rows_of(bundle: Bundle, dataset: Dataset, asked: tuple[str, int, Sequence[str]], *, plain: bool) -> Iterator[str]:
    """One row of the table for each class that can be answered as here; `asked` are its name, the rows, the classes."""
    what, most, classes = asked
    picked = frozen_indices(len(dataset.test.texts), most, 0)
    texts = [dataset.test.texts[row] for row in picked]
    expected = np.asarray(dataset.test.targets)[picked]
    predictor = Predictor(bundle)
    here = predictor.logits(predictor.encode(texts), batch_size=1)
    for name in classes:
        prover = prover_of(name)
        if prover.proof == "unproven" or (plain and (prover.proof != "emulated" or not name.startswith("x86"))):
            continue
        there = replay_rows(saturating(prover) if plain else prover, bundle.folder, texts, 3600)
        if not len(there.outputs):
            yield f"| {name} | {what} | 0 | {there.fault} | | | |"
            continue
        before, after = here[: len(there.outputs)], there.outputs
        verdict = judge_answers(ACCURACY, expected[: len(after)], before.argmax(1), after.argmax(1), GateRecipe())
        agreed = 100 * float((before.argmax(1) == after.argmax(1)).mean())
        accuracy = 100 * float((after.argmax(1) == expected[: len(after)]).mean())
        how = f"{name}, {prover.reason}" if prover.proof == "emulated" else f"{name}, {prover.proof}"
        figures = f"{agreed:.1f}% | {difference(after, before).max():.2g} | {accuracy:.1f}%"
        gate = f"{verdict.gate}, {100 * verdict.loss.loss:+.1f} points"
        yield f"| {how} | {what} | {len(after)} | {figures} | {gate} |"


def size_line(bundle: Bundle) -> str:
    """How large the bundle is beside the largest that one of its graphs would make alone."""
    size = sum(entry.bytes for entry in bundle.manifest.files.values())
    graphs = [(bundle.folder / one.graph).stat().st_size for one in bundle.manifest.graphs]
    single = size - sum(graphs) + max(graphs)
    count = f"{len(graphs)} graph{'s' * (len(graphs) > 1)}"
    together = f"The bundle for all of them has {size / 1e6:.1f} MB with {count}"
    return f"{together}; the largest for one of them {single / 1e6:.1f}."


@click.command(help=__doc__)
@click.option("--bundle", "folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--rows", default=500, help="Test rows of each.")
@click.option("--class", "classes", multiple=True, default=CLASSES, help="Classes of processors; may be repeated.")
@click.option("--markdown", type=click.Path(path_type=Path, exists=True), help="Page with marks around the table.")
def main(folder: Path, rows: int, classes: tuple[str, ...], markdown: Path | None) -> None:
    """Print the table, and put it between the marks of a page where one is named."""
    bundle, dataset = Bundle.open(folder), Dataset.open(folder.with_name(f"{folder.name}.work") / "data")
    lines = []
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        alone, scheme = graph_alone(bundle, Path(scratch)), bundle.manifest.scheme
        sides = [(alone, f"{scheme}, sums left to saturate", True)]
        if bundle.manifest.cascade is not None:
            sides.append((bundle, f"the bundle: {bundle.manifest.cascade.scheme}, then {scheme}", False))
        sides.append((alone, scheme, False))
        for side, what, plain in sides:
            for line in rows_of(side, dataset, (what, rows, classes), plain=plain):
                click.echo(line)
                lines.append(line)
    text = HEAD.lstrip() + "\n".join(lines) + f"\n\n{size_line(bundle)}\n"
    if markdown:
        page = markdown.read_text(encoding="utf-8")
        marked = re.sub(f"{BEGIN}.*{END}", lambda _: f"{BEGIN}\n\n{text}\n{END}", page, flags=re.DOTALL)
        markdown.write_text(marked, encoding="utf-8")


if __name__ == "__main__":
    main()
