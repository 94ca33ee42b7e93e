"""The documents against what they describe: the live command table, the recipe's schema, the report's fields."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import click
import msgspec
import pytest

from edgetune.cli import COMMANDS, root
from edgetune.serve import report, report_confidence, report_targets, tasks_report, verdict
from edgetune.tasks import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def generate(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "docs" / "generate.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def command_of(name: str) -> click.Command:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    return command


def test_the_generated_documents_are_up_to_date():
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_drift_is_shown_and_mended(tmp_path):
    for folder in ("cli", "serve", "tune", "compress", "export", "benchmarks", "docs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    page, readme = tmp_path / "docs" / "commands.md", tmp_path / "README.md"
    page.write_text(page.read_text("utf-8").replace("edgetune predict", "edgetune foretell"), "utf-8")
    readme.write_text("# A\n\n<!-- tree -->\n<!-- /tree -->\n\nB\n", "utf-8")

    checked = generate(tmp_path, "--check")
    assert checked.returncode == 1
    assert "-## edgetune foretell" in checked.stdout
    assert "run: python docs/generate.py" in checked.stderr
    assert "foretell" in page.read_text("utf-8")  # --check changes nothing

    assert generate(tmp_path).stdout.split() == "Wrote docs/commands.md. Wrote README.md.".split()
    assert page.read_bytes() == (DOCS / "commands.md").read_bytes()
    text = readme.read_text("utf-8")
    assert text.startswith("# A\n\n<!-- tree -->\n```text\ncli/")
    assert text.endswith("```\n<!-- /tree -->\n\nB\n")
    assert re.search(r"^serve/ +The floor:", text, re.MULTILINE)
    assert generate(tmp_path, "--check").returncode == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    command = command_of(name)
    parts = {name: command}
    if isinstance(command, click.Group):
        parts = {f"{name} {part}": inside for part, inside in command.commands.items()}
    for called, part in parts.items():
        text = part.get_help(click.Context(part, info_name=called))
        assert part.help
        assert re.search(rf"Example:\n +edgetune {called}\b", text)
        assert "--json" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name):
    options = {one.name: one.help or "" for one in command_of(name).params if isinstance(one, click.Option)}
    # A sentence that begins with what the option is, and not in the middle: "Of one request", "Until the answer".
    middle = ("At ", "Between ", "For ", "From ", "In ", "Of ", "To ", "Until ", "What ", "Where ")
    assert [name for name, text in options.items() if not re.match(r"[A-Z].*(\.|\.  \[default: .+\])$", text)] == []
    assert [name for name, text in options.items() if text.startswith(middle)] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name):
    assert f"\n## edgetune {name}\n\n```text\nUsage: edgetune {name} " in (DOCS / "commands.md").read_text("utf-8")


def test_the_root_help_loads_no_command_and_lists_all():
    text = root.get_help(click.Context(root, info_name="edgetune", terminal_width=100))
    assert re.findall(r"^  ([a-z]+)  ", text.partition("Commands:")[2], re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("task", TASKS)
def test_the_schema_holds_the_recipe_of_every_task(task):
    schema = json.loads((DOCS / "recipe.schema.json").read_text("utf-8"))
    recipe = TASKS[task].load("recipe")
    whole = recipe.model_json_schema()
    shared = whole.pop("$defs")
    assert schema["$defs"][recipe.__name__] == whole
    assert {name: schema["$defs"][name] for name in shared} == shared
    assert schema["required"] == ["base"]  # several tasks have their data in `tasks`


REPORT_VALUES = {
    name: value
    for module in (report, report_confidence, report_targets, tasks_report, verdict)
    for name, value in inspect.getmembers(module, inspect.isclass)
    if issubclass(value, msgspec.Struct) and not name.startswith("_")
}


def test_the_report_page_has_a_section_for_every_value():
    sections = re.findall(r"^## (\w+)$", (DOCS / "report-format.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(REPORT_VALUES)


@pytest.mark.parametrize("name", REPORT_VALUES)
def test_the_report_page_names_every_field_in_order(name):
    page = (DOCS / "report-format.md").read_text("utf-8")
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+?) *\| *([^|]*?) *\|", section, re.MULTILINE)
    own = list(REPORT_VALUES[name].__annotations__)  # what it inherits stands in the section of what it inherits from
    assert [row[0] for row in rows] == own
    fields = msgspec.structs.fields(REPORT_VALUES[name])
    may_be_null = {field.name for field in fields if field.name in own and type(None) in typing.get_args(field.type)}
    assert {row[0] for row in rows if row[1].endswith("or null")} == may_be_null
