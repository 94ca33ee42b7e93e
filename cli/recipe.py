"""The recipe: all that the user says. What every task shares stands here; each family adds its sections, one per stage,
in cli/once/recipe.py and cli/stepwise/recipe.py.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from edgetune.benchmarks.target_recipe import TargetRecipe, Targets
from edgetune.recipe_yaml import NotYaml, read_yaml, shown, yaml_value
from edgetune.serve.errors import RecipeError
from edgetune.serve.json_types import JsonObject
from edgetune.task_choice import TaskChoice, choose_task, without_task_objective
from edgetune.tasks import TASKS
from edgetune.tune.data.source_names import SOURCES

# Names that file systems take; work folders and parts of a bundle add a few letters to `out`.
MOST_NAME_BYTES = 240
MOST_PATH_BYTES = 4000
# Faults that are told one by one.
MOST_FAULTS = 20
_COLUMNS = ("text", "text_pair", "label")


def _without_default(schema: JsonObject) -> None:
    schema.pop("default")


class Recipe(BaseModel):
    """What every task's recipe says. Only `base` and `data` are required."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)
    family: ClassVar[str]
    if TYPE_CHECKING:
        tune: Any  # the family's section, with `allow_pickle` and `report_to` in each

    base: str = Field(description="Pretrained model: a folder, a packaged model or a hub id, looked for in this order.")
    task: str = Field(
        "", validate_default=True, description="What the model learns to do.", json_schema_extra=_without_default
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where training runs; auto takes a GPU.")
    seed: int = Field(0, ge=0, description="Of the split, the training and the frozen test slice.")
    target: Targets = Field(
        (TargetRecipe(),), description="The processors that the bundle is for: a class, or a list of classes."
    )
    out: str = Field("bundles/model", description="The bundle's folder; work goes on beside it in <out>.work.")

    @field_validator("task")
    @classmethod
    def _of_the_family(cls, task: str) -> str:
        """A task of this family; the first of them where none is named."""
        names = [name for name, known in TASKS.items() if known.family == cls.family]
        if task and task not in names:
            raise ValueError(f"the task should be one of {', '.join(names)}")
        return task or names[0]

    @classmethod
    def load(cls, path: Path | None, overrides: Mapping[str, object]) -> Self:
        """Read a YAML recipe and lay `overrides` over it.

        Args:
            path: the recipe file; None starts from nothing.
            overrides: values by dotted path, such as {"tune.method": "probe"}.

        Raises:
            RecipeError: the file is no YAML mapping, or holds unknown keys or wrong values; all faults at once.
        """
        return cls.of_values(recipe_values(path, overrides), path)

    @classmethod
    def of_values(cls, values: Mapping[str, object], path: Path | None) -> Self:
        """As `load`, of what was read from `path` already."""
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise _with_faults(_faults(cls, error), path) from error
        if endless := list(_not_finite(recipe.model_dump(), "")):
            raise _with_faults([f"  {place}: should be a finite number" for place in endless], path)
        return recipe

    def to_yaml(self) -> str:
        """The recipe as it was used, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_recipe(path: Path | None, overrides: Mapping[str, object]) -> tuple[Recipe, TaskChoice]:
    """The recipe of the task that it names, or that fits its data and base; arguments as for `Recipe.load`.

    Returns:
        The recipe, and how its task was chosen.

    Raises:
        RecipeError: as `Recipe.load` does, there is no such task, or the task cannot be guessed.
    """
    values = recipe_values(path, overrides)
    choice = choose_task(values)
    recipe: type[Recipe] = TASKS[choice.task].load("recipe")
    return recipe.of_values({**without_task_objective(values), "task": choice.task}, path), choice


def recipe_values(path: Path | None, overrides: Mapping[str, object]) -> JsonObject:
    """A recipe's values, not yet checked: those of the file with `overrides` laid over them.

    Raises:
        RecipeError: the file is no YAML mapping, or what an override reaches into is no section.
    """
    values = _read_sections(path) if path else {}
    for dotted, value in overrides.items():
        _put(values, dotted, value)
    _name_columns(values)
    _check_names(values)
    return values


def _name_columns(values: JsonObject) -> None:
    """Make words of numbers that name columns: the tasks look at the names before the recipe is checked."""
    section = values.get("data")
    if isinstance(section, dict):
        numbers = {key: section.get(key) for key in _COLUMNS if type(section.get(key)) in (int, float)}
        values["data"] = {**section, **{key: str(number) for key, number in numbers.items()}}


def _read_sections(path: Path) -> JsonObject:
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise RecipeError(f"The recipe {path} holds {type(values).__name__}.", expected="keys and values")
    # A section with nothing below it, as when all its lines are comments, says nothing.
    return {key: value for key, value in values.items() if value is not None}


def _put(values: JsonObject, dotted: str, value: object) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise RecipeError(
                f"{dotted:.200} cannot be set: {parent:.200} is {shown(inner)}.",
                expected=f"{parent:.200} to be a section",
            )
        values = inner
    values[last] = value


def parse_settings(settings: Sequence[str]) -> JsonObject:
    """`key.path=value` texts to values by dotted path; values are read as YAML, so 3 is a number and [1, 2] a list.

    Raises:
        RecipeError: a text has no equals sign, or its value is no YAML.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        dotted, equals, value = setting.partition("=")
        if not equals or not dotted:
            raise RecipeError(
                f"--set {setting:.200} says nothing.", expected="key.path=value, such as tune.method=probe"
            )
        quoted = f"to take it as a word, quote it twice: --set '{dotted}={json.dumps(value, ensure_ascii=False)}'"
        try:
            parsed[dotted.strip()] = yaml_value(value)
        except NotYaml as error:
            raise RecipeError(
                f"--set {setting:.200}: the value is no YAML: {error}.",
                expected="a number, word or [list]",
                action=f"{quoted:.300}",
            ) from error
        if value.strip().startswith("#"):
            raise RecipeError(
                f"--set {setting:.200}: the value is a comment of YAML.", expected="a value", action=f"{quoted:.300}"
            )
    return parsed


def _check_names(values: JsonObject) -> None:
    """Refuse names of files that no system takes, before anything looks for them.

    Raises:
        RecipeError: naming the key.
    """
    section = values.get("data")
    data = {f"data.{key}": section.get(key) for key in SOURCES} if isinstance(section, dict) else {}
    for key, name in {"base": values.get("base"), "out": values.get("out"), **data}.items():
        problem = _name_fault(name) if isinstance(name, str) else ""
        if problem:
            raise RecipeError(f"{key} {problem}: {shown(name)}.", expected="a path or a name", action="correct it")


def _name_fault(name: str) -> str:
    """Why no file can have a name, as the end of a sentence; "" where one can."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "holds half a character"
    if "\0" in name:
        return "holds a NUL character"
    if len(encoded) > MOST_PATH_BYTES or max(map(len, encoded.split(b"/"))) > MOST_NAME_BYTES:
        return f"is too long, with {len(encoded):,} bytes"
    return ""


def _not_finite(value: object, place: str) -> Iterator[str]:
    """The places of infinities and NaN."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _not_finite(inner, f"{place}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place


def _with_faults(faults: Sequence[str], path: Path | None) -> RecipeError:
    source = f"The recipe {path}" if path else "The recipe"
    more = [f"  and {len(faults) - MOST_FAULTS:,} more"] if len(faults) > MOST_FAULTS else []
    return RecipeError(
        f"{source} has {len(faults)} fault{'s' * (len(faults) > 1)}:\n" + "\n".join([*faults[:MOST_FAULTS], *more]),
        action="correct all of them; `edgetune init DATA` writes a recipe with every section",
    )


def _faults(recipe: type[BaseModel], error: ValidationError) -> list[str]:
    """One line a wrong key: pydantic tells a value that none of several types fits once for each of them."""
    grouped: dict[tuple[int | str, ...], list[Any]] = {}
    for fault in error.errors():
        grouped.setdefault(_place(recipe, fault["loc"]), []).append(fault)
    return [
        _fault(recipe, place, " or ".join(fault["msg"] for fault in faults), faults[0]["type"], faults[0]["input"])
        for place, faults in grouped.items()
    ]


def _place(recipe: type[BaseModel], location: Sequence[int | str]) -> tuple[int | str, ...]:
    """The keys of a fault's place, without the names of the types that were tried, such as float."""
    place: list[int | str] = []
    model: Any = recipe
    for part in location:
        if isinstance(part, int) or hasattr(model, "model_fields") or _holds_sections(model):
            place.append(part)
            model = _inside(model, part)
    return tuple(place)


def _inside(model: Any, part: int | str) -> Any:
    """What stands under a key of a section, or in a list or a mapping of sections; None where that is unknown."""
    if isinstance(part, int) or _holds_sections(model):
        return _element(model)
    field = getattr(model, "model_fields", {}).get(part)
    return field.annotation if field else None


def _holds_sections(model: Any) -> bool:
    """Whether it is a mapping of names to sections, as `tasks` is."""
    return get_origin(model) is dict and _element(model) is not None


def _element(model: Any) -> Any:
    """What a list or a mapping holds, where these are sections; None elsewhere."""
    return next((kind for kind in get_args(model) if hasattr(kind, "model_fields")), None)


def _fault(recipe: type[BaseModel], place: tuple[int | str, ...], message: str, kind: str, value: object) -> str:
    dotted = ".".join(f"{part!s:.80}" for part in place) or "recipe"
    if kind == "extra_forbidden":
        known = _keys(recipe, place[:-1])
        near = difflib.get_close_matches(f"{place[-1]!s:.80}", known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(known)}"
        return f"  {dotted}: there is no such key{hint}"
    if kind == "missing":
        return f"  {dotted}: is required"
    message = message.replace("Value error, ", "").replace("Input should", "should")
    quoted = f'; in quotes it is a word: "{value}"' if kind == "string_type" and isinstance(value, bool) else ""
    return f"  {dotted}: {message:.300} (found {shown(value)}{quoted})"


def _keys(recipe: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """The keys that a section knows; an unknown section has none."""
    model: Any = recipe
    for part in place:
        model = _inside(model, part)
    return list(getattr(model, "model_fields", {}))
