"""The search space: for each key of the recipe a range or a list of values. Must not import optuna or torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.recipe_yaml import NotYaml, shown, yaml_value
from edgetune.serve.errors import RecipeError
from edgetune.sweep.recipe import Value
from edgetune.tune.methods import METHODS
from edgetune.tune.methods.adapters import ADAPTERS

SECTION = "tune"  # of other sections each trial would learn or be judged by something else
USUAL_RATE = 1e-4  # of a method that settles on its rate by the model
EXAMPLES = "LOW..HIGH, LOW..HIGH:log, or values with commas between them, such as 1e-5..1e-3:log or 8,16,32"


@dataclass(frozen=True)
class Dimension:
    """One key and what is tried of it.

    Attributes:
        key: dotted, such as tune.learning_rate.
        values: of a list; empty of a range.
        low, high: ends of a range, both tried.
        log: whether a range is drawn evenly in its logarithm.
        whole: whether a range is of whole numbers.
    """

    key: str
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def extremes(self) -> tuple[Value, ...]:
        """What the recipe has to accept for all of it to be accepted."""
        return self.values or ((int(self.low), int(self.high)) if self.whole else (self.low, self.high))

    def holds(self, value: object) -> bool:
        """Whether a value is one that is tried."""
        if self.values:
            return any(value == known and type(value) is type(known) for known in self.values)
        is_number = type(value) is int or (type(value) is float and not self.whole)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]

    def __str__(self) -> str:
        if self.values:
            return ", ".join(map(shown, self.values))
        return f"{self.low:g}..{self.high:g}{':log' if self.log else ''}"


def read_space(given: Mapping[str, str | Iterable[Value]]) -> tuple[Dimension, ...]:
    """The dimensions that a recipe's section or `--space` name.

    Raises:
        RecipeError: a key is of another section, or a range is none.
    """
    return tuple(_dimension(key, values) for key, values in given.items())


def parse_space(options: Iterable[str]) -> dict[str, str]:
    """`KEY=RANGE` texts by key.

    Raises:
        RecipeError: a text has no equals sign.
    """
    pairs = [option.partition("=") for option in options]
    for key, equals, values in pairs:
        if not equals or not key.strip() or not values.strip():
            raise RecipeError(f"--space {key}{equals}{values:.200} says nothing.", expected=f"KEY=RANGE: {EXAMPLES}")
    return {key.strip(): values.strip() for key, _, values in pairs}


def _dimension(key: str, values: str | Iterable[Value]) -> Dimension:
    if not key.startswith(f"{SECTION}."):
        near = difflib.get_close_matches(f"{SECTION}.{key}", [f"{SECTION}.learning_rate", f"{SECTION}.epochs"], n=1)
        raise RecipeError(
            f"The space has the key {key:.100}.",
            expected=f"keys of the section {SECTION}, such as {near[0] if near else 'tune.learning_rate'}: trials on "
            "other data or by another gate cannot be compared",
            action="take it out of the space; --set gives it one value for all trials",
        )
    if isinstance(values, str) and ".." in values:
        return _range(key, values)
    listed = tuple(map(_word, values.split(","))) if isinstance(values, str) else tuple(values)
    if len(set(map(repr, listed))) < 2:
        raise RecipeError(
            f"The space of {key} is {shown(values)}, which leaves nothing to choose.",
            expected=f"two values or more: {EXAMPLES}",
        )
    return Dimension(key, tuple(dict.fromkeys(listed)))


def _range(key: str, text: str) -> Dimension:
    ends, _, scale = text.partition(":")
    low, _, high = (part.strip() for part in ends.partition(".."))
    numbers = (_number(low), _number(high))
    if None in numbers or scale.strip() not in ("", "log"):
        raise RecipeError(f"The space of {key} is {text:.100}.", expected=EXAMPLES)
    first, last = (number for number in numbers if number is not None)
    if not first < last:
        raise RecipeError(
            f"The range of {key} is {text:.100}: it goes from {first:g} down to {last:g}."
            if first > last
            else f"The range of {key} is {text:.100}, a single value.",
            expected="the lower end first",
            action=f"write {last:g}..{first:g}" if first > last else "--set gives it one value",
        )
    log = scale.strip() == "log"
    if log and first <= 0:
        raise RecipeError(
            f"The range of {key} is {text:.100}, and {first:g} has no logarithm.", expected="a lower end above 0"
        )
    whole = all(type(number) is int for number in numbers)
    return Dimension(key, (), float(first), float(last), log, whole)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            number: int | float = kind(text)
        except ValueError:
            continue
        return number if math.isfinite(number) else None
    return None


def _word(text: str) -> Value:
    number = _number(text.strip())
    if number is not None:
        return number
    try:
        value = yaml_value(text.strip())
    except NotYaml:
        value = text.strip()
    return value if isinstance(value, (bool, int, float, str)) else text.strip()


def usual_space(method: str) -> dict[str, str | tuple[Value, ...]]:
    """What is tried of a method where the user names nothing; some of it may not suit the task."""
    known = METHODS[method]
    if not known.trains:
        return {"tune.pooling": ("mean", "cls", "max"), "tune.class_weights": ("none", "balanced")}
    rate = known.trunk_rate or USUAL_RATE
    space: dict[str, str | tuple[Value, ...]] = {
        "tune.learning_rate": f"{rate / 10:g}..{rate * 5:g}:log",
        "tune.batch_size": (8, 16, 32),
        "tune.warmup": "0.0..0.3",
    }
    if method in ADAPTERS:
        space["tune.lora.rank"] = (4, 8, 16, 32)
    if known.has_prompt:
        space["tune.prompt.tokens"] = "2..32:log"
    return space


def with_settings(values: Mapping[str, Any], settings: Mapping[str, Value]) -> dict[str, Any]:
    """A recipe's values, sections as dicts, with others at dotted keys; what is given stays as it is."""
    changed = dict(values)
    for key, value in settings.items():
        *sections, last = key.split(".")
        inner = changed
        for section in sections:
            below = inner.get(section)
            inner[section] = dict(below) if isinstance(below, Mapping) else {}
            inner = inner[section]
        inner[last] = value
    return changed


def value_at(values: Mapping[str, Any], key: str) -> object:
    """What stands at a dotted key; None where nothing does."""
    found: Any = values
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
