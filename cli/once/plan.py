"""What the build of a model that answers at once would do, and which schemes its search would try."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgetune.benchmarks.prove.planning import SchemePlan, plan_schemes
from edgetune.benchmarks.target_recipe import TargetRecipe
from edgetune.benchmarks.targets.emulation import prover_of
from edgetune.benchmarks.targets.proof import resolved
from edgetune.compress.material import Material
from edgetune.export.once.pack import check_place
from edgetune.once.estimate import Costs, Model, measure, most_epochs
from edgetune.once.recipe import OnceRecipe
from edgetune.plan import Plan
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import RecipeError
from edgetune.serve.report import Training
from edgetune.tune.augmentation.copies import with_copies
from edgetune.tune.data.coverage import Coverage
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.data.remembered import earlier_recipe, with_remembered
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import Base, find_base, known_labels, open_tokenizer
from edgetune.tune.models.model import TOKENS, TunedModel, chosen_pooling
from edgetune.tune.models.sentences import base_prompts, unsaid_prompts
from edgetune.tune.ngrams.preview import preview_linear
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.hardware import choose_device
from edgetune.tune.training.progress import Silent


def plan(recipe: OnceRecipe) -> Plan:
    """See `edgetune.plan.make_plan`."""
    out = Path(recipe.out)
    check_place(out)
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    dataset = load_data(recipe, base)
    costs, schemes = estimate(recipe, base, dataset)
    task = TASKS[recipe.task]
    per_token = task.per_token
    pooling = TOKENS if per_token else chosen_pooling(base, recipe.tune, has_head=task.has_head)
    model, coverage = costs.model, Coverage(0, 1, 0, 0, 0)
    if task.reads_text:
        tokenizer = open_tokenizer(base).backend_tokenizer.to_str()
        coverage = Coverage.of(tokenizer, dataset.train.texts, model.max_tokens, windows=per_token)
    preview = preview_linear(dataset, TASKS[recipe.task], recipe.gate.metric, recipe.seed)
    unsaid = "" if TASKS[recipe.task].has_head else unsaid_prompts(base.id, dataset.prompts)
    linear = [f"{preview.finding} It took {preview.model.cpu_seconds:.1f} CPU seconds."] if preview else []
    return Plan(
        base=base.id,
        base_bytes=base.weights_bytes,
        parameters=model.parameters,
        data=dataset.source,
        findings=(*dataset.findings, *coverage.findings, *filter(None, [unsaid]), *model.remarks, *linear),
        rows=costs.rows,
        method=recipe.tune.method,
        epochs=most_epochs(recipe, costs.rows["train"]),
        device=model.device,
        precision="bf16" if model.bf16 else "fp32",
        schemes=tuple(scheme.name for scheme in schemes.tried),
        size_bytes={"fp32": 4 * model.parameters, "int8_dynamic": model.parameters},
        work_bytes=_work_bytes(recipe, model),
        threads=usable_cores(),
        out=str(out),
        replaces=(out / "manifest.json").is_file(),
        seconds=costs.seconds,
        facts={
            **{"labels": len(dataset.labels), "pooling": pooling, "max_tokens": model.max_tokens},
            **{"cut_share": coverage.cut_share, "unknown_share": coverage.unknown_share},
            "linear": preview.facts if preview else None,
            "targets": {name: prover_of(name).proof for name in resolved(recipe.target)},
        },
        words={
            "data": f"{len(dataset.labels)} labels" if dataset.labels else "",
            "tune": f"{'each token' if per_token else f'pooling {pooling}'}, at most {model.max_tokens} tokens"
            if task.reads_text
            else "",
            "compress": "as far as they suit",
        },
        targets=target_lines(recipe.target),
        basis="a few timed passes",
    )


def target_lines(targets: Sequence[TargetRecipe]) -> list[tuple[str, str]]:
    """How each class of processors that a recipe names will be proven."""
    lines: list[tuple[str, str]] = []
    for name in resolved(targets):
        prover = prover_of(name)
        lines.append(("" if lines else "target", f"{name}: {prover.proof}, {prover.reason}"))
    return lines


def load_data(recipe: OnceRecipe, base: Base) -> Dataset:
    """The data set as a build reads it."""
    data = prompted_data(recipe, base)
    task = TASKS[recipe.task]
    dataset = Dataset.load(data, task, seed=recipe.seed, label_order=known_labels(base))
    if data.augment.kinds:
        return with_copies(dataset, data.augment, recipe.seed)
    if data.remember is None:
        return dataset
    earlier = Dataset.load(earlier_recipe(data), task, seed=recipe.seed, label_order=known_labels(base))
    check_earlier_labels(base, earlier)
    return with_remembered(dataset, earlier, data.replay, recipe.seed)


def check_earlier_labels(base: Base, earlier: Dataset) -> None:
    """Look whether the base has learnt the earlier task.

    Raises:
        RecipeError: it has no label of it.
    """
    labels = known_labels(base) or ()
    unknown = [label for label in earlier.labels if label not in labels]
    if unknown:
        raise RecipeError(
            f"{earlier.source} is to be remembered, and {base.id} has no label {', '.join(map(repr, unknown[:3]))}"
            + (f" and {len(unknown) - 3} more." if len(unknown) > 3 else "."),
            expected="rows of the task that the base was tuned on",
            action="name the earlier build with --from, or leave out --remember",
        )


def prompted_data(recipe: OnceRecipe, base: Base) -> DataRecipe:
    """The data section with the prompts of the base, where vectors are learnt and it names none."""
    if TASKS[recipe.task].has_head or recipe.data.prompts is not None:
        return recipe.data
    return recipe.data.model_copy(update={"prompts": base_prompts(base.folder)})


def _work_bytes(recipe: OnceRecipe, model: Model) -> int:
    return (5 if METHODS[recipe.tune.method].trains else 4) * 4 * model.parameters


def estimate(recipe: OnceRecipe, base: Base, dataset: Dataset) -> tuple[Costs, SchemePlan]:
    """What a build will cost, and the schemes that it will try; times a few passes."""
    model, speeds = measure(recipe, base, dataset)
    schemes = _planned(recipe, base, dataset)
    costs = Costs(
        recipe=recipe,
        rows={"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
        labels=len(dataset.labels),
        schemes=[scheme.name for scheme in schemes.tried],
        model=model,
        speeds=speeds,
    )
    return costs, schemes


def planned_schemes(recipe: OnceRecipe) -> SchemePlan:
    """The schemes that the recipe's search would try, and why not the others."""
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    return _planned(recipe, base, load_data(recipe, base))


def _planned(recipe: OnceRecipe, base: Base, dataset: Dataset) -> SchemePlan:
    with tempfile.TemporaryDirectory() as folder:
        material = _untuned(recipe, base, dataset, Path(folder))
        task = TASKS[recipe.task]
        metric = task.objective(dataset.labels, recipe.gate.metric, dataset.train.targets).metric
        return plan_schemes(recipe.compress, material, recipe.gate, metric, len(dataset.test))


def _untuned(recipe: OnceRecipe, base: Base, dataset: Dataset, folder: Path) -> Material:
    """The base in the place of the tuned model: of the same architecture, size and vocabulary."""
    (folder / "model").symlink_to(base.folder.resolve(), target_is_directory=True)
    training = Training(
        method="", handed_on="", pooling="", probe_value=0.0, best_value=0.0, best_epoch=None, epochs=0.0, remark=""
    )
    head = TASKS[recipe.task].objective(dataset.labels, "", dataset.train.targets).untuned_head()
    codec = TASKS[recipe.task].codec
    model = TunedModel(folder, recipe.task, head, base.id, base.digest, 512, 0.0, training, codec)
    device = choose_device(recipe.device)
    return Material(model, dataset.train, dataset.validation, (), recipe.export.provider, device, recipe.seed, Silent())
