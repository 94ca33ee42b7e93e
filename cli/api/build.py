"""Building from a program: `edgetune.build` and `edgetune.tune`. The same stages and work folder as the command line's.

Nothing is printed: what libraries say goes to the log in the work folder, our own lines to stderr where they are asked
for. Must not import torch on import.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.api.data import Data, data_section
from edgetune.api.result import BuildResult, TuneResult
from edgetune.serve.dependencies import require
from edgetune.serve.errors import WorkError
from edgetune.tune.training.processes import process_count

if TYPE_CHECKING:
    from edgetune.pipeline import Built
    from edgetune.recipe import Recipe

Section = Mapping[str, Any]


def build(
    *,
    base: str | Path | None = None,
    data: Data | None = None,
    out: str | Path | None = None,
    task: str | None = None,
    recipe: str | Path | None = None,
    tune: Section | None = None,
    export: Section | None = None,
    compress: Section | None = None,
    gate: Section | None = None,
    budget: Section | None = None,
    benchmark: Section | None = None,
    target: str | Section | Sequence[str | Section] | None = None,
    device: str | None = None,
    seed: int | None = None,
    progress: bool = False,
    fresh: bool = False,
) -> BuildResult:
    """Fine-tune a pretrained model on labelled data, compress it, measure it beside the base, and write a bundle.

    A build that was stopped continues with the same call, finished stages are opened and not run again.

    Args:
        base: the pretrained model: a folder, a packaged model or a hub id.
        data: a path or hub id; rows as a list of dicts, a pandas DataFrame, a `datasets.Dataset` or `DatasetDict`; or
            the recipe's data section as a dict, whose path, train, validation and test may be such rows:
            `data={"path": frame, "text": "body", "label": "topic"}`.
        out: the bundle's folder; work goes on beside it in `<out>.work`.
        task: what to learn; guessed from data and base where it is None.
        recipe: a recipe file; all other arguments lie over it.
        tune: keys of the recipe's section of that name, as are export, compress, gate, budget and benchmark.
        target: the processors that it is to be proven for: a class such as "arm64", a mapping, or a list of them.
        device: where training runs: "auto", "cpu" or "cuda".
        seed: of the split, the training and the test slice.
        progress: print a line a stage to stderr.
        fresh: run finished stages again.

    Raises:
        RecipeError: an argument or key is unknown or wrong; all faults at once.
        DataError, ModelError: data or base cannot be used.
        GateError: no candidate passed the gate or the budget; nothing was written.
        WorkError: the folder cannot be written to, or several processes run this program.
        EdgetuneError: any other stage's.
    """
    values = {"base": base, "out": out, "task": task, "device": device, "seed": seed}
    sections = {"tune": tune, "export": export, "compress": compress, "gate": gate, "budget": budget}
    arguments = _overrides({**values, **sections, "benchmark": benchmark, "target": target})
    built = _run("pack", recipe, arguments, data, progress=progress, fresh=fresh)
    assert built.bundle is not None, "a build that ends has packed"
    return BuildResult(built.bundle.folder, built.work, built.report)


def tune(
    *,
    base: str | Path | None = None,
    data: Data | None = None,
    out: str | Path | None = None,
    task: str | None = None,
    recipe: str | Path | None = None,
    tune: Section | None = None,
    gate: Section | None = None,
    device: str | None = None,
    seed: int | None = None,
    progress: bool = False,
    fresh: bool = False,
) -> TuneResult:
    """Fine-tune and merge alone: run a build up to the tuned model, which a later `build` with the same `out` opens.

    Arguments and errors are those of `build`.
    """
    values = {"base": base, "out": out, "task": task, "device": device, "seed": seed}
    arguments = _overrides({**values, "tune": tune, "gate": gate})
    built = _run("tune", recipe, arguments, data, progress=progress, fresh=fresh)
    return TuneResult.of(built.summary()["tuned"], built.work)


def _overrides(arguments: Mapping[str, object], prefix: str = "") -> dict[str, Any]:
    """Values by dotted path of the recipe, of those arguments that were given."""
    values: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, Mapping):
            values |= _overrides(value, f"{prefix}{name}.")
        elif prefix or value is not None:
            values[prefix + name] = str(value) if isinstance(value, Path) else value
    return values


def _run(
    until: str,
    recipe: str | Path | None,
    arguments: Mapping[str, Any],
    data: Data | None,
    *,
    progress: bool,
    fresh: bool,
) -> Built:
    """Run the build up to a stage, in the environment and with the log that the command line has."""
    require("build", "pydantic", "rich", "yaml", "datasets", "torch", "transformers")
    if process_count() > 1:
        raise WorkError(
            f"{process_count()} processes run this program.",
            expected="one process, which owns the build",
            action="to train with several, run accelerate launch -m edgetune build",
        )
    with _environment():
        loaded, reason = _recipe(recipe, arguments, data)
        from rich.console import Console

        from edgetune.export.once.pack import check_place
        from edgetune.pipeline import build as run_stages
        from edgetune.progress import StageLines
        from edgetune.quiet import quiet
        from edgetune.work import LOG_NAME

        check_place(Path(loaded.out))
        own = sys.stderr
        with quiet(Path(f"{loaded.out}.work") / LOG_NAME, to_stderr=True, verbose=False) as copy:
            # The stream of a notebook has a descriptor that leads elsewhere; what it is given is shown.
            stream = (copy if own is sys.__stderr__ else own) if progress else io.StringIO()
            console = Console(file=stream, soft_wrap=True, force_jupyter=False)
            if reason:
                console.print(reason, markup=False, highlight=False)
            return run_stages(loaded, StageLines(console), until=until, fresh=fresh)


def _recipe(recipe: str | Path | None, arguments: Mapping[str, Any], data: Data | None) -> tuple[Recipe, str]:
    """The recipe that the arguments make, and why its task was guessed; rows in memory lie beside its stages."""
    from edgetune.commands.options import without_chatter
    from edgetune.recipe import Recipe, read_recipe, recipe_values
    from edgetune.work import ROWS_NAME

    path = Path(recipe) if recipe is not None else None
    values = dict(arguments)
    if data is not None:
        out = recipe_values(path, values).get("out", Recipe.model_fields["out"].default)
        values |= _overrides({"data": data_section(data, Path(f"{out}.work") / ROWS_NAME)})
    with without_chatter():
        loaded, choice = read_recipe(path, values)
    return loaded, choice.reason


@contextmanager
def _environment() -> Iterator[None]:
    """What the command line sets in the environment, for as long as a build runs."""
    from edgetune.cli import prepare_environment

    before = set(os.environ)
    prepare_environment()
    added = set(os.environ) - before
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
