"""The house: which folder may import which, how large things may grow, and how little the runtime loads."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUNDLE = ROOT / "tests" / "golden" / "bundle-v1"

# Left to right: each may import those before it.
FOLDERS = ("serve", "tune", "compress", "export", "benchmarks", "cli")
NEVER_ON_THE_FLOOR = {"torch", "transformers", "onnx", "pandas", "pydantic"}

MOST_FILE_LINES = 500
MOST_FUNCTION_LINES = 80
MOST_PARAMETERS = 8
MOST_ANY = 0.05  # of the annotated parameters and returns

# What is over the measure and known to be; who mends one takes it off the list.
TOO_MANY_PARAMETERS: dict[str, int] = {}

# `**name` in our own signatures: where a library hands over what only it knows, and Click its options.
CATCH_ALLS = {
    "benchmarks/timing/side.py: ask(**arguments)",  # becomes the keys of a JSON command
    "cli/commands/bench.py: command(**options)",
    "cli/commands/build.py: command(**options)",
    "cli/commands/compress.py: command(**options)",
    "cli/commands/export.py: command(**options)",
    "cli/commands/serve.py: command(**limits)",  # the fields of ServerSettings
    "cli/commands/sweep.py: command(**options)",
    "cli/commands/tune.py: command(**options)",
    "tune/stepwise/language_trainer.py: __init__(**arguments)",  # TRL's trainers
    "tune/stepwise/objectives/offline.py: __init__(**arguments)",
    "tune/stepwise/objectives/online.py: __init__(**arguments)",
    "tune/stepwise/objectives/online.py: scored(**_)",  # what TRL tells a reward
    "tune/training/evaluations.py: on_evaluate(**_)",
    "tune/training/interruption.py: on_epoch_end(**_)",
    "tune/training/interruption.py: on_step_end(**_)",
    "tune/training/ranks.py: on_optimizer_step(**_)",
    "tune/training/ranks.py: on_save(**_)",
    "tune/training/ranks.py: on_train_begin(**_)",
    "tune/training/steps.py: on_evaluate(**_)",
    "tune/training/steps.py: on_step_end(**_)",
    "tune/training/trainer.py: __init__(**arguments)",  # transformers' Trainer
}

SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
OTHERS = sorted(path for folder in ("tests", "docs") for path in (ROOT / folder).rglob("*.py"))


@dataclass(frozen=True)
class Import:
    """A module that a file imports, in a function or not."""

    place: str
    module: str


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(source: str, place: str) -> Iterator[Import]:
    """Every module imported in `source`: with `from x import y` both x.y and x count, since y may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place}:{node.lineno}: a relative import hides which folder it reaches"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            # A table of module names loads them as surely as an import does.
            names = re.findall(r"^edgetune\.[\w.]+$", node.value) if _is_text(node) else []
        yield from (Import(f"{place}:{node.lineno}", name) for name in names)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def folder_of(module: str) -> str | None:
    """The folder of the house that a module lies in; None for other people's modules and for `__version__`."""
    parts = module.split(".")
    if parts[0] != "edgetune" or parts[1:] == ["__version__"]:
        return None
    return parts[1] if len(parts) > 1 and parts[1] in FOLDERS[:-1] else "cli"


def backward(folder: str, source: str, place: str) -> list[str]:
    """The imports of a file in `folder` that point to its right."""
    allowed = FOLDERS[: FOLDERS.index(folder) + 1]
    found = ((one, folder_of(one.module)) for one in imports_of(source, place))
    return [f"{one.place}: {folder} imports {one.module}" for one, target in found if target not in (None, *allowed)]


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_to_the_left_only(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert [fault for path in files for fault in backward(folder, path.read_text("utf-8"), relative(path))] == []


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("serve", "import edgetune.tune.models.model"),
        ("serve", "from edgetune import tune"),
        ("serve", "from edgetune.recipe import Recipe"),
        ("serve", "import edgetune"),
        ("tune", "def f():\n    from edgetune.export.once.graph import Graph"),
        ("compress", "import importlib\nimportlib.import_module('edgetune.export.once.graph')"),
        ("compress", "importlib.import_module(f'edgetune.export.{name}')"),
        ("benchmarks", "from edgetune import recipe"),
    ],
)
def test_a_backward_arrow_is_seen(folder, source):
    assert len(backward(folder, source, "a.py")) == 1


@pytest.mark.parametrize(
    ("folder", "source"),
    [
        ("serve", "from edgetune import __version__"),
        ("tune", "from edgetune.serve.errors import DataError"),
        ("export", "import edgetune.export.once.graph"),
        ("cli", "from edgetune.benchmarks import bench\nfrom edgetune.recipe import Recipe"),
    ],
)
def test_a_forward_arrow_is_allowed(folder, source):
    assert backward(folder, source, "a.py") == []


def test_the_floor_imports_nothing_heavy():
    heavy = [
        f"{one.place}: {one.module}"
        for path in (ROOT / "serve").rglob("*.py")
        for one in imports_of(path.read_text("utf-8"), relative(path))
        if one.module.split(".")[0] in NEVER_ON_THE_FLOOR
    ]
    assert heavy == []


# Where tasks are known by name; everywhere else the code asks what a task, a head or a family can do.
TASK_TABLES = {"cli/tasks.py", "serve/heads/__init__.py", "serve/tasks_report.py"}


def shipped_modules() -> Iterator[Path]:
    """The modules of the package: without the laboratory and the peers."""
    return (path for path in SOURCES if not {"lab", "peers"} & set(path.relative_to(ROOT).parts))


def test_no_code_asks_for_a_task_by_its_name():
    from edgetune.tasks import TASKS

    naming = {
        relative(path)
        for path in shipped_modules()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and node.value in TASKS
    }
    assert {name for name in naming - TASK_TABLES if not name.startswith("tune/tasks/")} == set()


def test_no_code_imports_one_task():
    importing = {
        relative(path)
        for path in shipped_modules()
        for module in imports_of(path.read_text("utf-8"), relative(path))
        if re.match(r"edgetune\.tune\.tasks\.(text_|multi_label|regression|entities)", module.module)
    }
    assert {name for name in importing if not name.startswith("tune/tasks/")} == set()


def module_name(path: Path) -> str:
    """What a file of the house imports as."""
    folder, *inside = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["edgetune", *([] if folder == "cli" else [folder]), *inside]).removesuffix(".__init__")


def needed_imports(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports, those in functions too, but for what a type checker alone sees."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        yield from needed_imports(node)


def import_graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Which modules each module imports, of those that are given, by name; values are their source text."""
    graph: dict[str, set[str]] = {}
    for name, source in sources.items():
        graph[name] = set()
        for node in needed_imports(ast.parse(source)):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            else:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= inner & sources.keys() or {node.module or ""}
        graph[name] &= sources.keys() - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that reach each other, sorted: what two sets of reachable modules have in common."""
    reachable = {name: set(targets) for name, targets in graph.items()}
    changed = True
    while changed:
        changed = False
        for name, reached in reachable.items():
            wider = reached.union(*(reachable[target] for target in reached))
            changed = changed or wider != reached
            reachable[name] = wider
    groups = {
        tuple(sorted(other for other in reached if name in reachable[other]))
        for name, reached in reachable.items()
        if name in reached
    }
    return sorted(map(list, groups))


def test_no_imports_run_in_a_circle():
    sources = {module_name(path): path.read_text("utf-8") for path in shipped_modules()}
    assert circles(import_graph(sources)) == []


def test_a_circle_is_seen_even_inside_a_function_and_not_for_types_alone():
    sources = {
        "a": "from b import c",
        "b": "def f():\n    import c",
        "b.c": "import a",
        "c": "if TYPE_CHECKING:\n    import b\nimport d",
        "d": "x = 1",
    }
    assert import_graph(sources) == {"a": {"b.c"}, "b": {"c"}, "b.c": {"a"}, "c": {"d"}, "d": set()}
    assert circles(import_graph(sources)) == [["a", "b.c"]]


def functions_of(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def is_command(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether Click calls it: its parameters are the command's options, one a parameter."""
    return any(re.match(r"(\w+\.)?(command|group)\b", ast.unparse(one)) for one in function.decorator_list)


def test_files_are_short():
    lines = {relative(path): len(path.read_text("utf-8").splitlines()) for path in [*SOURCES, *OTHERS]}
    assert {name: count for name, count in lines.items() if count > MOST_FILE_LINES} == {}


def test_functions_are_short():
    lengths = {
        f"{relative(path)}: {function.name}": (function.end_lineno or 0) - function.lineno + 1
        for path in SOURCES
        for function in functions_of(path)
    }
    assert {name: length for name, length in lengths.items() if length > MOST_FUNCTION_LINES} == {}


def test_functions_take_few_parameters():
    counts = {
        f"{relative(path)}: {function.name}": len(function.args.posonlyargs) + len(function.args.args)
        for path in SOURCES
        for function in functions_of(path)
        if not is_command(function)
    }
    assert {name: count for name, count in counts.items() if count > MOST_PARAMETERS} == TOO_MANY_PARAMETERS


def test_signatures_name_what_they_take():
    found = {
        f"{relative(path)}: {function.name}(**{function.args.kwarg.arg})"
        for path in SOURCES
        for function in functions_of(path)
        if function.args.kwarg
    }
    assert found == CATCH_ALLS


def annotations_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.expr]:
    """The annotations of the parameters and of what is returned."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    annotations = [*(argument.annotation for argument in every if argument is not None), function.returns]
    return (annotation for annotation in annotations if annotation is not None)


def names_any(annotation: ast.expr) -> bool:
    """Whether `Any` stands in it, alone or within: Any, dict[str, Any]."""
    return any(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation))


def test_signatures_name_their_types():
    functions = [function for path in shipped_modules() for function in functions_of(path)]
    annotations = [annotation for function in functions for annotation in annotations_of(function)]
    assert sum(map(names_any, annotations)) / len(annotations) < MOST_ANY


def test_any_is_seen_wherever_it_stands():
    (function,) = ast.parse("def f(a: Any, b, *c: list[Any], d: int = 1, **e: str) -> dict[str, Any]: ...").body
    assert isinstance(function, ast.FunctionDef)
    assert [names_any(annotation) for annotation in annotations_of(function)] == [True, False, True, False, True]


def test_nothing_is_left_for_later():
    marks = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X"]) + r")\b")
    left = [relative(path) for path in [*SOURCES, *OTHERS] if marks.search(path.read_text("utf-8"))]
    assert left == []


def fresh(code: str, **environment: str) -> str:
    """What `code` prints in a fresh interpreter, which has no more of the environment than it needs."""
    kept = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "PYTHONPATH"}}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**kept, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


# What the floor depends on, and a package that msgspec takes if it is there.
FLOOR = {"edgetune", "msgspec", "numpy", "onnxruntime", "tokenizers", "typing_extensions"}

LOADED = """
import json, sys
before = set(sys.modules)
{code}
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
sys.stdout = sys.__stdout__
print(json.dumps(sorted(new - set(sys.stdlib_module_names))))
"""


def loaded(code: str) -> set[str]:
    """Top-level modules beyond the standard library that `code` imports in a fresh interpreter."""
    return set(json.loads(fresh(LOADED.format(code=code))))


def test_a_bundle_answers_on_the_floor_alone():
    code = f"from edgetune.serve import load\nload({str(BUNDLE)!r}).predict(['where is my parcel'])"
    found = loaded(code)
    assert found <= FLOOR
    assert {"edgetune", "numpy", "onnxruntime", "tokenizers"} <= found  # or nothing was loaded at all


def test_the_timed_bundle_is_no_heavier():
    code = (
        "from edgetune.benchmarks.timing.contestant import bundle_contestant\n"
        f"side = bundle_contestant({str(BUNDLE)!r}, 1, None)\nside.answer('where is my parcel')"
    )
    assert loaded(code) <= FLOOR


def test_verify_is_no_heavier_than_predict():
    code = (
        "import io; sys.stdout = io.StringIO()\nfrom edgetune.cli import root\n"
        f"root.main(['verify', {str(BUNDLE)!r}], standalone_mode=False)"
    )
    assert loaded(code) <= FLOOR | {"click"}


def test_help_loads_click_alone():
    code = (
        "import io; sys.stdout = io.StringIO()\nfrom edgetune.cli import root\n"
        "root.main(['--help'], standalone_mode=False)\nassert 'Commands:' in sys.stdout.getvalue()"
    )
    assert loaded(code) <= {"click", "edgetune", "msgspec", "typing_extensions"}


def test_a_bundle_is_inspected_without_a_runtime():
    code = (
        "import io; sys.stdout = io.StringIO()\nfrom edgetune.cli import root\n"
        f"root.main(['inspect', {str(BUNDLE)!r}], standalone_mode=False)"
    )
    assert loaded(code) <= {"click", "edgetune", "msgspec", "typing_extensions"}


TELEMETRY = """
import builtins, os, sys
real, seen = builtins.__import__, []
def watch(name, *rest):
    if name.split(".")[0] == "onnxruntime":
        seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
    return real(name, *rest)
builtins.__import__ = watch
from edgetune.serve import load
load({bundle!r}).predict(["where is my parcel"])
print(seen[0], len({{*seen}}))
"""


def test_telemetry_is_off_before_onnx_runtime_is_imported():
    assert fresh(TELEMETRY.format(bundle=str(BUNDLE))).split() == ["1", "1"]


def test_telemetry_is_left_as_the_user_set_it():
    assert fresh(TELEMETRY.format(bundle=str(BUNDLE)), ORT_DISABLE_TELEMETRY="0").split() == ["0", "1"]
