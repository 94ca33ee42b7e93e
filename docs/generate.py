"""Writes the parts of the documentation that the code already says.

Whole documents: docs/commands.md, docs/recipe.md and docs/recipe.schema.json. Parts, which stand between two markers in
the README or a page: the tables of docs/tables.py and the tree of files. `python docs/generate.py` brings all of them
up to date; `--check` changes nothing, shows the drift and exits with 1.
"""

from __future__ import annotations

import ast
import difflib
import json
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import tables

ROOT = Path(__file__).parent.parent
WIDTH = 100
FOLDERS = ("cli", "serve", "tune", "compress", "export", "benchmarks")

_COMMANDS_HEAD = """\
# Commands

Written by `docs/generate.py` from the commands themselves. Every command takes `--json`: stdout then holds exactly one
JSON document, and all else goes to stderr. Exit codes: 0 done; 1 failed, with a message of what, why and what to do;
2 usage; 3 a gate or budget was not met; 130 stopped by the user.
"""


_RECIPE_HEAD = """\
# Recipe keys

Written by `docs/generate.py` from the recipes themselves. A recipe is a YAML file; `--set key.path=value` sets any of
these keys for one run. Only `base` and where the data is are required. Editors complete and check a recipe with
[recipe.schema.json](recipe.schema.json); `edgetune init DATA` writes one with a comment on every choice.

"""


def parts() -> dict[str, Callable[[], str]]:
    """What is written between `<!-- NAME -->` and `<!-- /NAME -->`, by name."""
    return {
        "tasks": tables.tasks,
        "task metrics": tables.task_metrics,
        "methods": tables.methods,
        "schemes": tables.schemes,
        "decoder schemes": tables.decoder_schemes,
        "layouts": tables.layouts,
        "row formats": tables.row_formats,
        "objectives": tables.objectives,
        "figures": tables.figures,
        "tree": lambda: f"```text\n{file_tree()}\n```\n",
    }


def documents() -> dict[Path, str]:
    """Each generated document with the text that it should have."""
    docs = ROOT / "docs"
    texts = {
        docs / "commands.md": commands_page(),
        docs / "recipe.md": _RECIPE_HEAD + tables.recipe_keys(),
        docs / "recipe.schema.json": recipe_schema(),
    }
    for page in (ROOT / "README.md", *sorted(docs.rglob("*.md"))):
        if page not in texts:
            texts[page] = filled(page.read_text(encoding="utf-8"))
    return texts


def filled(text: str) -> str:
    """A page with every marked part as it should be; parts of other names are left alone."""
    for name, part in parts().items():
        marked = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)", re.DOTALL)
        if marked.search(text):
            made = part()
            text = marked.sub(lambda _, made=made: made, text)
    return text


def commands_page() -> str:
    """`--help` of the root and of every command, each in a block of its own."""
    return "\n".join([_COMMANDS_HEAD, *(f"## {name}\n\n```text\n{text}\n```\n" for name, text in help_texts())])


def help_texts() -> Iterator[tuple[str, str]]:
    """Name and help of the root command and of each command of its table."""
    from edgetune.cli import root

    top = _context(root, None, "edgetune")
    yield "edgetune", root.get_help(top)
    for name in root.list_commands(top):
        command = root.get_command(top, name)
        assert command is not None, f"the table lists {name} and has no such command"
        yield f"edgetune {name}", command.get_help(_context(command, top, name))


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    # A fixed width, so that the page does not depend on the terminal it was made in.
    return click.Context(command, parent=parent, info_name=name, terminal_width=WIDTH, **command.context_settings)


def recipe_schema() -> str:
    """The JSON Schema of a recipe of any task, for editors that complete and check YAML; `task` says which holds.

    A recipe that names no task may be of any. An `if` a family, not one `oneOf`: that names every family's faults.
    """
    from pydantic.json_schema import models_json_schema

    from edgetune.tasks import FAMILIES, TASKS

    families = {family: [name for name, task in TASKS.items() if task.family == family] for family in FAMILIES}
    recipes = {family: TASKS[names[0]].load("recipe") for family, names in families.items()}
    places, shared = models_json_schema([(recipe, "validation") for recipe in recipes.values()])
    schemas = {family: places[recipe, "validation"] for family, recipe in recipes.items()}
    names_none = {"not": {"required": ["task"]}}
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgetune recipe",
        "type": "object",
        "required": ["base"],
        "properties": {"task": {"enum": list(TASKS), "description": "What the model learns to do; else guessed."}},
        "allOf": [
            *({"if": _names(families[family]), "then": schema} for family, schema in schemas.items()),
            {"if": names_none, "then": {"anyOf": list(schemas.values())}},
        ],
        "$defs": shared["$defs"],
    }
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _names(tasks: list[str]) -> dict[str, object]:
    """The schema of what names one of some tasks."""
    return {"required": ["task"], "properties": {"task": {"enum": tasks}}}


def file_tree() -> str:
    """Folders with what they are for and the modules in them."""
    return "\n".join(line for folder in FOLDERS for line in _folder_lines(folder))


def _folder_lines(folder: str) -> Iterator[str]:
    yield f"{folder + '/':<14}{_first_sentence(ROOT / folder / '__init__.py')}"
    for room in sorted({path.parent for path in (ROOT / folder).rglob("*.py")}):
        names = [path.stem for path in sorted(room.glob("*.py")) if not path.stem.startswith("__")]
        prefix = "" if room == ROOT / folder else f"{room.relative_to(ROOT / folder).as_posix()}/: "
        yield from textwrap.wrap(
            prefix + "  ".join(names),
            WIDTH,
            initial_indent=" " * 14,
            subsequent_indent=" " * 14,
            break_on_hyphens=False,
        )


def _first_sentence(module: Path) -> str:
    words = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    sentence = re.split(r"(?<=\.)\s", " ".join(words.split()), maxsplit=1)[0]
    return textwrap.shorten(sentence, WIDTH - 14, placeholder=" ...")


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 if a document is not up to date.")
def main(check: bool) -> None:
    """Bring the generated documents up to date."""
    drifted = False
    for path, expected in documents().items():
        actual = path.read_text(encoding="utf-8") if path.is_file() else ""
        if actual == expected:
            continue
        drifted = True
        name = path.relative_to(ROOT).as_posix()
        if check:
            lines = difflib.unified_diff(
                actual.splitlines(), expected.splitlines(), name, f"{name}, generated", lineterm=""
            )
            click.echo("\n".join(lines))
        else:
            path.write_text(expected, encoding="utf-8", newline="\n")
            click.echo(f"Wrote {name}.")
    if check and drifted:
        raise click.ClickException("the documents above are not up to date; run: python docs/generate.py")


if __name__ == "__main__":
    main()
