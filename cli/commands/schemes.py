"""`edgetune compress --list` and `--plan`: what every scheme is, and which would be tried on this model and data."""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgetune.commands.options import print_json
from edgetune.commands.recipe_options import load_classifier_recipe
from edgetune.compress.schemes import SCHEMES

if TYPE_CHECKING:
    from edgetune.benchmarks.prove.planning import SchemePlan
    from edgetune.compress.material import Material
    from edgetune.recipe import Recipe
    from edgetune.tune.data.dataset import Dataset
    from edgetune.tune.models.base import Base


def print_schemes(*, as_json: bool) -> None:
    """Every scheme with what it does, when it helps and what it costs."""
    if as_json:
        print_json({"schemes": [asdict(scheme) for scheme in SCHEMES.values()]})
        return
    for scheme in SCHEMES.values():
        kind = "takes parts of the model away" if scheme.structural else "keeps every part"
        click.echo(f"{scheme.name}  ({scheme.level} level, {kind})")
        for word, text in (("does", scheme.summary), ("helps", scheme.when), ("costs", scheme.cost)):
            click.echo(f"  {word:<6} {text}")
        click.echo()


def print_scheme_plan(options: dict[str, Any]) -> None:
    """Which schemes the recipe's search would try, and why not the others; nothing is written."""
    as_json, _, verbose = options.pop("as_json"), options.pop("fresh"), options.pop("verbose")
    recipe = load_classifier_recipe(options.pop("recipe"), options.pop("settings"), options)
    chatter = contextlib.nullcontext() if verbose else contextlib.redirect_stderr(io.StringIO())
    with chatter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = _planned(recipe)
    if as_json:
        print_json({"tried": [scheme.name for scheme in plan.tried], "skipped": plan.skipped})
        return
    width = max(len(name) for name in SCHEMES) + 2
    for scheme in plan.tried:
        click.echo(f"{scheme.name:<{width}}would be tried: {scheme.when}")
    for name, reason in plan.skipped.items():
        click.echo(f"{name:<{width}}left out: {reason}")
    click.echo("Nothing was done.")


def _planned(recipe: Recipe) -> SchemePlan:
    from edgetune.benchmarks.prove.ledger import gate_metric
    from edgetune.benchmarks.prove.planning import plan_schemes
    from edgetune.tune.data.dataset import Dataset
    from edgetune.tune.models.base import find_base, known_labels

    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    dataset = Dataset.load(recipe.data, seed=recipe.seed, label_order=known_labels(base))
    with tempfile.TemporaryDirectory() as folder:
        material = _untuned(recipe, base, dataset, Path(folder))
        return plan_schemes(recipe.compress, material, recipe.gate, gate_metric(recipe.gate), len(dataset.test))


def _untuned(recipe: Recipe, base: Base, dataset: Dataset, folder: Path) -> Material:
    """The base in the place of the tuned model: of the same architecture, size and vocabulary."""
    from edgetune.compress.material import Material
    from edgetune.serve.bundle import HeadSpec
    from edgetune.serve.report import Training
    from edgetune.tune.models.model import TunedModel
    from edgetune.tune.training.hardware import choose_device
    from edgetune.tune.training.progress import Silent

    (folder / "model").symlink_to(base.folder.resolve(), target_is_directory=True)
    training = Training(
        method="", handed_on="", pooling="", probe_value=0.0, best_value=0.0, best_epoch=None, epochs=0.0, remark=""
    )
    head = HeadSpec(kind="label", labels=list(dataset.labels))
    model = TunedModel(folder, recipe.task, head, base.id, base.digest, 512, 0.0, training)
    device = choose_device(recipe.device)
    return Material(model, dataset.train, dataset.validation, (), recipe.export.provider, device, recipe.seed, Silent())
