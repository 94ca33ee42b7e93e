"""Random models of known families, made small and raced against PyTorch and onnxruntime-genai: what they must reach.

Run as `python -m benchmarks.lab.language.language_models --markdown docs/measurements/language-models.md`. Each family
is made, raced and thrown away before the next; its figures stay in the work folder, from which an ended run goes on.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import msgspec
from msgspec.structs import replace

from benchmarks.lab.language.artefacts import FILE, Artefacts, without_paths
from benchmarks.lab.language.families import CONTEXT, FAMILIES, VOCABULARY
from benchmarks.lab.language.page import page, place
from benchmarks.lab.language.results import Result
from edgetune.benchmarks.stepwise.race import Workload, race
from edgetune.benchmarks.stepwise.recipe import GenerationBenchmarkRecipe
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.report import Machine

SMALL, LARGE = "60M", "500M"
RESULT = "result.json"


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(FAMILIES)), help="Families; repeat; all when not said.")
@click.option("--large", is_flag=True, help="About 500 million parameters too: 12 GB of memory and of disk.")
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("bundles/language-models.work"), show_default=True
)
@click.option("--fresh", is_flag=True, help="Race again what is in the work folder.")
@click.option("--keep", is_flag=True, help="Leave the models and graphs in the work folder.")
@click.option("--rounds", type=click.IntRange(min=2), default=5, show_default=True, help="Turns of each side.")
@click.option("--threads", type=click.IntRange(min=1), help="Of each side; the usable cores when not said.")
@click.option("--remark", multiple=True, help="A sentence on the circumstances of this run, for the page; repeat.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(
    only: Sequence[str],
    large: bool,
    work: Path,
    fresh: bool,
    keep: bool,
    rounds: int,
    threads: int | None,
    remark: Sequence[str],
    markdown: Path | None,
) -> None:
    """Make and race each family, and print the tables, with what earlier runs left in the work folder."""
    recipe = GenerationBenchmarkRecipe(rounds=rounds, threads=threads or "auto")
    results: list[Result] = []
    failed: list[str] = []
    for size, family in itertools.product((SMALL, LARGE), FAMILIES):
        folder = work / f"{family.lower().replace(' ', '-')}-{size}"
        asked = (large or size == SMALL) and family in (only or FAMILIES)
        if not asked and not (folder / RESULT).is_file():
            continue
        try:
            results.append(measured(family, size, folder, recipe, fresh=fresh and asked, keep=keep))
        except EdgetuneError as error:
            failed.append(f"**{family}, {size}, failed**: {error.found}")
    text = page(results, [*remark, *failed])
    if markdown:
        place(markdown, text)
    else:
        click.echo(text)


def measured(
    family: str, size: str, folder: Path, recipe: GenerationBenchmarkRecipe, *, fresh: bool = False, keep: bool = False
) -> Result:
    """A family's figures: those that lie in `folder` already, or new ones.

    Raises:
        EdgetuneError: not even the model could be made.
    """
    kept = folder / RESULT
    if kept.is_file() and not fresh:
        return Result.open(kept)
    made = prepared(family, size, folder)
    workload = Workload(VOCABULARY, CONTEXT, recipe)
    found = race(made.sides(folder, workload.threads), workload, Loud(f"{family}, {size}"))
    sides = {name: replace(one, reason=without_paths(one.reason)) for name, one in found.sides.items()}
    result = Result(size=size, artefacts=made, race=replace(found, sides=sides), machine=_machine(workload.threads))
    result.save(kept)
    if not keep:
        for one in (child for child in folder.iterdir() if child.is_dir()):
            shutil.rmtree(one)
        (folder / FILE).unlink()
    return result


def prepared(family: str, size: str, folder: Path) -> Artefacts:
    """What there is to race, made in a process of its own if it does not lie in `folder` already.

    Raises:
        EdgetuneError: the process ended before there was anything.
    """
    made = _artefacts(folder)
    if made is not None and not made.unknown:
        return made
    module = ["-m", "benchmarks.lab.language.artefacts"]
    said = ["--family", family, "--folder", str(folder), *(["--large"] if size == LARGE else [])]
    ran = subprocess.run([sys.executable, *module, *said], capture_output=True, text=True)
    made = _artefacts(folder)
    if made is None:
        last = ran.stderr.strip().splitlines()
        raise EdgetuneError(f"making it ended with {ran.returncode}: {last[-1] if last else 'no word'}")
    return made.given_up()


def _artefacts(folder: Path) -> Artefacts | None:
    file = folder / FILE
    return msgspec.json.decode(file.read_bytes(), type=Artefacts) if file.is_file() else None


class Loud:
    """Tells how far a race is on stderr."""

    def __init__(self, name: str) -> None:
        self._name = name

    def say(self, text: str) -> None:
        """A line of its own."""
        click.echo(f"{self._name}: {text}", err=True)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """A line a round."""
        self.say(f"{note} {done}/{total}")


def _machine(threads: int) -> Machine:
    found = describe_machine(threads)
    return replace(found, versions=found.versions | dict(_genai_versions()))


def _genai_versions() -> Iterator[tuple[str, str]]:
    for name in ("onnxruntime-genai", "onnxruntime-genai-cuda"):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
