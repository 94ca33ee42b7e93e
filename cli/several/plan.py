"""What a build of several tasks would do and take: the plan of each task alone, put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.pack import check_place
from edgetune.once.estimate import Costs
from edgetune.once.plan import estimate as estimate_once
from edgetune.once.recipe import OnceRecipe
from edgetune.plan import Plan
from edgetune.serve.cores import usable_cores
from edgetune.several.data import TaskDatasets, of_task
from edgetune.several.recipe import SeveralRecipe
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import Base, find_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.training.length import TrainingLength

# Schemes that a search tries by itself on a processor.
_USUAL = ["fused", "int8_dynamic", "int8_static"]
# What is done once for all tasks takes as long as for the one that it takes longest for.
_ONCE = ("export",)


def plan(recipe: SeveralRecipe) -> Plan:
    """See `edgetune.plan.make_plan`."""
    out = Path(recipe.out)
    check_place(out)
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    datasets = TaskDatasets.load(recipe)
    costs = _costs(recipe, base, datasets)
    model = next(iter(costs.values())).model
    rows = {
        part: sum(len(getattr(dataset, part)) for dataset in datasets.parts.values())
        for part in ("train", "validation", "test")
    }
    length = TrainingLength.of(recipe.tune, rows["train"], together=True)
    listed = ", ".join(f"{name} ({recipe.tasks[name].kind})" for name in datasets.parts)
    return Plan(
        base=base.id,
        base_bytes=base.weights_bytes,
        parameters=model.parameters,
        data=", ".join(dataset.source for dataset in datasets.parts.values()),
        findings=tuple(f"{name}: {line}" for name, dataset in datasets.parts.items() for line in dataset.findings),
        rows=rows,
        method=recipe.tune.method,
        epochs=length.epochs if METHODS[recipe.tune.method].trains else 0.0,
        device=model.device,
        precision="bf16" if model.bf16 else "fp32",
        schemes=tuple(dict.fromkeys(name for one in costs.values() for name in one.schemes)),
        size_bytes={"fp32": 4 * model.parameters, "int8_dynamic": model.parameters},
        work_bytes=(4 + 2 * len(costs)) * 4 * model.parameters,
        threads=usable_cores(),
        out=str(out),
        replaces=(out / "manifest.json").is_file(),
        seconds=_together({name: one.seconds for name, one in costs.items()}),
        facts={"tasks": {name: part.kind for name, part in recipe.tasks.items()}, "max_tokens": model.max_tokens},
        words={
            "data": f"{len(costs)} tasks: {listed}",
            "tune": f"one trunk for all, at most {model.max_tokens} tokens",
            "compress": "as far as they suit",
        },
        basis="a few timed passes of each task",
    )


def estimate(recipe: SeveralRecipe, base: Base, datasets: TaskDatasets) -> Mapping[str, float]:
    """Seconds that each stage will take; times a few passes."""
    return _together({name: one.seconds for name, one in _costs(recipe, base, datasets).items()})


def _costs(recipe: SeveralRecipe, base: Base, datasets: TaskDatasets) -> dict[str, Costs]:
    """What a build of each task alone would cost, by the graph's schemes alone."""
    costs = {}
    for name, dataset in datasets.parts.items():
        with of_task(name):
            costs[name] = estimate_once(_alone(recipe, name), base, dataset)[0]
    return costs


def _alone(recipe: SeveralRecipe, name: str) -> OnceRecipe:
    """The recipe of one task by itself, with the schemes that several tasks have."""
    part = recipe.tasks[name]
    tune = {key: value for key, value in recipe.tune.model_dump().items() if key in TuneRecipe.model_fields}
    named = recipe.compress.schemes
    tried = _USUAL if isinstance(named, str) else [name for name in named if SCHEMES[name].level == "graph"]
    compress = recipe.compress.model_copy(update={"schemes": tried or _USUAL})
    return OnceRecipe(
        base=recipe.base,
        task=part.task.name,
        device=recipe.device,
        seed=recipe.seed,
        data=part.data,
        tune=TuneRecipe(**tune),
        export=recipe.export,
        compress=compress,
        gate=recipe.part_gate(name),
        benchmark=recipe.benchmark,
        answer=part.answer,
    )


def _together(seconds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    stages = next(iter(seconds.values()))
    return {stage: (max if stage in _ONCE else sum)(of_task[stage] for of_task in seconds.values()) for stage in stages}
