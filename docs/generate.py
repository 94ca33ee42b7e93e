"""Writes the documents that code already says: docs/commands.md, docs/recipe.schema.json, the README's tree and help.

`python docs/generate.py` brings them up to date; `--check` changes nothing, shows the drift and exits with 1.
"""

from __future__ import annotations

import ast
import difflib
import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

ROOT = Path(__file__).parent.parent
WIDTH = 100
FOLDERS = ("cli", "serve", "tune", "compress", "export", "benchmarks")

# In the README, what is generated stands between two such lines.
_PLACE = r"(?<=<!-- {name} -->\n).*?(?=<!-- /{name} -->)"

_COMMANDS_HEAD = """\
# Commands

Written by `docs/generate.py` from the commands themselves. Every command takes `--json`: stdout then holds exactly one
JSON document, and all else goes to stderr. Exit codes: 0 done; 1 failed, with a message of what, why and what to do;
2 usage; 3 a gate or budget was not met; 130 stopped by the user.
"""


def documents() -> dict[Path, str]:
    """Each generated document with the text it should have; of the README only the marked places."""
    made = {ROOT / "docs" / "commands.md": commands_page(), ROOT / "docs" / "recipe.schema.json": recipe_schema()}
    readme = ROOT / "README.md"
    made[readme] = readme.read_text(encoding="utf-8")
    made_of_code = {"tree": f"```\n{file_tree()}\n```\n", "commands": folded_help(), "figures": figures_summary()}
    for name, text in made_of_code.items():
        made[readme] = re.sub(_PLACE.format(name=name), lambda _, text=text: text, made[readme], flags=re.DOTALL)
    return made


def figures_summary() -> str:
    """The first table of docs/performance.md, which benchmarks/lab/performance.py writes."""
    page = ROOT / "docs" / "performance.md"
    lines = page.read_text(encoding="utf-8").splitlines() if page.is_file() else []
    return "".join(f"{line}\n" for line in itertools.takewhile(_in_table, itertools.dropwhile(_not_in_table, lines)))


def _in_table(line: str) -> bool:
    return line.startswith("|")


def _not_in_table(line: str) -> bool:
    return not _in_table(line)


def folded_help() -> str:
    """`--help` of every command for the README, each folded under its name."""
    block = "<details><summary><code>{name}</code></summary>\n\n```\n{text}\n```\n\n</details>\n"
    return "\n".join(block.format(name=name, text=text) for name, text in help_texts())


def commands_page() -> str:
    """`--help` of the root and of every command, each in a block of its own."""
    return "\n".join([_COMMANDS_HEAD, *(f"## {name}\n\n```\n{text}\n```\n" for name, text in help_texts())])


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
    # Of the terminal's width nothing is asked: the page must be the same wherever it is made.
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
        "required": ["base", "data"],
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
    for place in [ROOT / folder, *sorted(path.parent for path in (ROOT / folder).glob("*/__init__.py"))]:
        names = [path.stem for path in sorted(place.glob("*.py")) if not path.stem.startswith("__")]
        inside = "" if place == ROOT / folder else f"{place.name}/: "
        yield from textwrap.wrap(
            inside + "  ".join(names),
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
    for path, wanted in documents().items():
        found = path.read_text(encoding="utf-8") if path.is_file() else ""
        if found == wanted:
            continue
        drifted = True
        name = path.relative_to(ROOT).as_posix()
        if check:
            lines = difflib.unified_diff(
                found.splitlines(), wanted.splitlines(), name, f"{name}, generated", lineterm=""
            )
            click.echo("\n".join(lines))
        else:
            path.write_text(wanted, encoding="utf-8", newline="\n")
            click.echo(f"Wrote {name}.")
    if check and drifted:
        raise click.ClickException("the documents above are not up to date; run: python docs/generate.py")


if __name__ == "__main__":
    main()
