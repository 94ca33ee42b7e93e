"""The tables that pages of the documentation share with the code: one function a table, each made of the live one.

`docs/generate.py` puts them between their markers. Nothing is imported before its table is asked for.
"""

from __future__ import annotations

import importlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
# The sections of a recipe in the order of the pipeline; a recipe's own keys, such as `base`, come first.
SECTIONS = ("", "data", "tasks", "tune", "export", "compress", "gate", "budget", "benchmark", "answer", "sweep")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown; vertical bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def tasks() -> str:
    """Every task of a recipe."""
    from edgetune.tasks import TASKS

    return markdown_table(
        ["task", "what the model learns"], ([f"`{task.name}`", task.summary] for task in TASKS.values())
    )


def task_metrics() -> str:
    """Every task of the family `once`: input, and what its answers may be judged by."""
    from edgetune.serve.codecs import CODECS
    from edgetune.tune.tasks import TASKS

    def judged_by(metrics: Sequence[Any]) -> str:
        return ", ".join(f"`{metric.name}`" for metric in metrics)

    rows = (
        [f"`{task.name}`", task.summary, CODECS[task.codec].summary, judged_by(task.metrics)] for task in TASKS.values()
    )
    return markdown_table(["task", "what the model learns", "input", "`gate.metric`"], rows)


def methods() -> str:
    """Every tuning method, with what it is for; one that two tables describe alike has one row."""
    from edgetune.tune.methods import METHODS
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.stepwise.methods import METHODS as DECODER_METHODS
    from edgetune.tune.stepwise.recipe import GenerationTuneRecipe

    groups = (
        ("encoders", METHODS.values(), TuneRecipe().method),
        ("language models", DECODER_METHODS.values(), GenerationTuneRecipe().method),
    )
    rows: dict[tuple[str, str], list[str]] = {}
    for group, table, default in groups:
        for method in table:
            cell = f"{group} (default)" if method.name == default else group
            rows.setdefault((method.name, method.summary), []).append(cell)
    cells = ([f"`{name}`", ", ".join(groups), summary] for (name, summary), groups in rows.items())
    return markdown_table(["method", "for", "what is trained"], cells)


def schemes() -> str:
    """Every compression scheme of an encoder."""
    from edgetune.compress.schemes import SCHEMES

    rows = ([f"`{scheme.name}`", scheme.level, scheme.summary, scheme.when, scheme.cost] for scheme in SCHEMES.values())
    return markdown_table(["scheme", "level", "what it does", "when it helps", "what it costs"], rows)


def decoder_schemes() -> str:
    """Every compression scheme of a language model, smallest first, then those that are tried by name alone."""
    from edgetune.compress.gptq.recipe import LanguageCompressRecipe
    from edgetune.compress.gptq.schemes import SCHEMES, LanguageScheme

    block = LanguageCompressRecipe().block

    def cells(scheme: LanguageScheme) -> tuple[str, str]:
        if scheme.is_mixed:
            return f"4 or 8 bits each, {block}, 64 or 128 weights to a scale, by what each loses", "4 or 8 bits"
        size = scheme.block or block
        weights = "float32" if scheme.bits is None else f"{scheme.bits} bits, {size} weights to a scale"
        if scheme.is_symmetric:
            weights += ", zero in the middle"
        return weights, f"{scheme.head_bits or scheme.bits or 32} bits"

    rows = ([f"`{scheme.name}`", *cells(scheme)] for scheme in SCHEMES.values())
    return markdown_table(["scheme", "weight matrices", "head and embeddings"], rows)


def layouts() -> str:
    """Every layout of `edgetune pack`."""
    from edgetune.export.layouts import LANGUAGE_LAYOUTS, LAYOUTS

    rows = (
        [
            f"`{name}`",
            "language models" if name in LANGUAGE_LAYOUTS else "encoders",
            importlib.import_module(module).HELP,
        ]
        for name, module in LAYOUTS.items()
    )
    return markdown_table(["layout", "for", "what is written"], rows)


def row_formats() -> str:
    """Every format of rows that a language model learns from, with an example row."""
    from edgetune.tune.stepwise.formats import FORMATS

    return markdown_table(["format", "a row"], ([f"`{name}`", f"`{form.example}`"] for name, form in FORMATS.items()))


def objectives() -> str:
    """Every objective of a language model: what it learns, of which rows, and at which share of the method's rate."""
    from edgetune.tune.stepwise.objectives import OBJECTIVES

    rows = (
        [
            f"`{one.name}`" + " (default)" * (one.name == "sft"),
            one.summary,
            " or ".join(read or "answers" for read in one.reads),
            f"{one.rate_share:g}" if one.of_decoders else "",
            "yes" if one.needs_reference else "with adapters" if one.is_online else "no",
        ]
        for one in OBJECTIVES.values()
    )
    return markdown_table(["objective", "what is learnt", "rows", "share of the rate", "reference"], rows)


def figures() -> str:
    """The first table of docs/measurements/performance.md, which benchmarks/lab/performance.py writes."""
    page = ROOT / "docs" / "measurements" / "performance.md"
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    table = itertools.takewhile(_is_row, itertools.dropwhile(lambda line: not _is_row(line), lines))
    return "".join(f"{line}\n" for line in table)


def _is_row(line: str) -> bool:
    return line.startswith("|")


@dataclass(frozen=True)
class Key:
    """One key of a recipe as a reader sees it.

    Attributes:
        path: dotted, such as `tune.lora.rank`.
        values: what may stand there.
        default: as YAML; "required" where there is none.
        description: the field's own.
    """

    path: str
    values: str
    default: str
    description: str

    @property
    def section(self) -> str:
        """The part before the first dot; empty for a key of the recipe itself."""
        section, dot, _ = self.path.partition(".")
        return section if dot else ""


def recipe_keys() -> str:
    """Every key of every task's recipe: one table a section; a key that tasks describe alike has one row."""
    from edgetune.tasks import TASKS

    known: dict[Key, list[str]] = {}
    for name, task in TASKS.items():
        schema = task.load("recipe").model_json_schema()
        for key in _keys(schema, schema.get("$defs", {}), ""):
            known.setdefault(key, []).append(name)
    return "\n".join(_section(section, known, list(TASKS)) for section in SECTIONS)


def _section(section: str, known: Mapping[Key, list[str]], tasks: list[str]) -> str:
    keys = [key for key in known if key.section == section]
    paths = list(dict.fromkeys(key.path for key in keys))
    rows = [
        # A description is plain text: <out> in it is no HTML.
        [f"`{key.path}`", _tasks_of(known[key], tasks), key.values, key.default, key.description.replace("<", "&lt;")]
        for key in sorted(keys, key=lambda key: paths.index(key.path))
    ]
    title = f"## {section}" if section else "## The recipe itself"
    return f"{title}\n\n{markdown_table(['key', 'tasks', 'values', 'default', 'what it sets'], rows)}"


def _tasks_of(names: list[str], tasks: list[str]) -> str:
    others = [f"`{task}`" for task in tasks if task not in names]
    if not others:
        return "all"
    if len(others) <= 2 < len(names):
        return f"all but {' and '.join(others)}"
    return ", ".join(f"`{name}`" for name in names)


def _keys(schema: Mapping[str, Any], definitions: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    """The keys below an object of a JSON Schema; an object of known keys is a section and has no row of its own."""
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        inner = definitions.get(field.get("$ref", "").rpartition("/")[2])
        if inner is not None and "properties" in inner:
            yield from _keys(inner, definitions, f"{prefix}{name}.")
        elif named := _named(field, definitions):
            yield from _part_keys(named, f"{prefix}{name}.NAME.")
        elif prefix + name == "task":  # the recipe's class has settled it
            yield Key("task", "a task's name", "guessed", field["description"])
        else:
            default = "required" if name in required else f"`{json.dumps(field.get('default'), ensure_ascii=False)}`"
            yield Key(prefix + name, _values(field), default, field.get("description", ""))


def _named(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of sections that stand under names of the user's; None of any other field."""
    sections = field.get("additionalProperties")
    reference = sections.get("$ref", "") if isinstance(sections, dict) else ""
    return definitions.get(reference.rpartition("/")[2])


def _part_keys(schema: Mapping[str, Any], prefix: str) -> Iterator[Key]:
    """The keys of a section under a name of the user's; a section in it is that of a recipe of one task."""
    required = schema.get("required", [])
    for name, field in schema["properties"].items():
        is_section = "$ref" in field
        default = f"`{json.dumps(field.get('default'), ensure_ascii=False)}`"
        default = "required" if name in required else "" if is_section else default
        described = field.get("description") or "As in a recipe of one task."
        yield Key(prefix + name, f"the keys of `{name}`" if is_section else _values(field), default, described)


def _values(field: Mapping[str, Any]) -> str:
    """What a field of a JSON Schema takes, in words."""
    if "anyOf" in field:
        return " or ".join(_values(choice) for choice in field["anyOf"])
    if choices := field.get("enum", [field["const"]] if "const" in field else []):
        return " or ".join(f"`{value}`" for value in choices)
    if field.get("type") == "array":
        items = field.get("items") or next(iter(field.get("prefixItems", [])), {})
        return f"list of {_values(items)}" if items else "list"
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{word} {field[bound]:g}" for bound, word in bounds.items() if bound in field]
    return " ".join([str(field.get("type", "any")), " and ".join(limits)]).strip()
