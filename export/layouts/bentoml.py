"""A BentoML service around a bundle: service.py with a batchable API, and bentofile.yaml to build a Bento from.

By BentoML's documents (docs.bentoml.com: services, adaptive batching, Bento build options). The build file is JSON,
which is YAML, since the floor has no YAML writer.
"""

from __future__ import annotations

import ast
from pathlib import Path

from edgetune.export.layouts.embedded import (
    BUNDLE_FOLDER,
    answer_fields,
    bundle_faults,
    copy_bundle,
    example_object,
    floor_requirement,
    input_parts,
    missing_requirements,
    read_json,
    read_source,
    requirement_lines,
    write_json,
)
from edgetune.serve.bundle import Bundle

HELP = "BentoML service (service.py, bentofile.yaml) with adaptive batching around edgetune's predictor."
# BentoML reports its use to its makers unless it is told not to.
RUN = "pip install -r FOLDER/requirements.txt && cd FOLDER && BENTOML_DO_NOT_TRACK=True bentoml serve --host 127.0.0.1"

REQUIREMENT = "bentoml==1.4.39"

# Python's names of what an answer holds, by JSON's.
_TYPES = {"string": "str", "number": "float", "boolean": "bool", "array": "list[str]", "object": "dict[str, float]"}

_SERVICE = '''\
"""Answers POST /classify {"texts": [..., ...]} with [{ANSWER}, ...]; each text is of type {INPUT}."""

from pathlib import Path

import bentoml
from edgetune.serve import load
from pydantic import BaseModel

BUNDLE = Path(__file__).resolve().parent / "bundle"


class Answer(BaseModel):
{FIELDS}


@bentoml.service(workers=1, traffic={"timeout": 30})
class TextClassifier:
    def __init__(self) -> None:
        self.predictor = load(BUNDLE)

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=10000)
    def classify(self, texts: list[{INPUT}]) -> list[Answer]:
        answers = self.predictor.predict(texts) if texts else []
        return [Answer(**self.predictor.head.as_json(answer, None)) for answer in answers]
'''


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with service.py, bentofile.yaml, requirements.txt and the bundle."""
    copy_bundle(bundle, folder)
    (folder / "service.py").write_text(_service(bundle), encoding="utf-8")
    write_json(
        folder / "bentofile.yaml",
        {
            "service": "service:TextClassifier",
            "description": f"{bundle.manifest.name}: {bundle.manifest.task} with edgetune",
            "include": ["service.py", "requirements.txt", f"{BUNDLE_FOLDER}/*"],
            "python": {"requirements_txt": "requirements.txt"},
        },
    )
    requirements = f"{floor_requirement(bundle)}\n{REQUIREMENT}\n"
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")


def _service(bundle: Bundle) -> str:
    fields = answer_fields(bundle)
    words = {
        "{ANSWER}": example_object(fields),
        "{INPUT}": "str" if len(input_parts(bundle)) == 1 else "list[str]",
        "{FIELDS}": "\n".join(f"    {name}: {_TYPES[kind]}" for name, kind in fields.items()),
    }
    service = _SERVICE
    for word, text in words.items():
        service = service.replace(word, text)
    return service


def check(folder: Path) -> list[str]:
    """The faults of a folder: the service that the build file names, its batchable API, packages and bundle."""
    faults: list[str] = []
    build = read_json(folder / "bentofile.yaml", faults)
    service = read_source(folder / "service.py", faults)
    if build and service.body:
        faults += _service_faults(service, build.get("service"))
    included = build.get("include")
    for name in ("service.py", "requirements.txt", f"{BUNDLE_FOLDER}/*"):
        if build and (not isinstance(included, list) or name not in included):
            faults.append(f"bentofile.yaml does not include {name}")
    python = build.get("python")
    if build and (not isinstance(python, dict) or python.get("requirements_txt") != "requirements.txt"):
        faults.append("bentofile.yaml does not name requirements.txt")
    lines = requirement_lines(folder / "requirements.txt", faults)
    faults += missing_requirements(lines, ("bentoml", "edgetune"))
    return faults + bundle_faults(folder)


def _service_faults(service: ast.Module, named: object) -> list[str]:
    module, _, name = str(named).partition(":")
    classes = {node.name: node for node in service.body if isinstance(node, ast.ClassDef)}
    if module != "service" or name not in classes:
        return [f"bentofile.yaml names the service {named}, which service.py does not define"]
    faults = []
    if not any("bentoml.service" in ast.unparse(decorator) for decorator in classes[name].decorator_list):
        faults.append(f"{name} is not decorated with bentoml.service")
    functions = [node for node in classes[name].body if isinstance(node, ast.FunctionDef)]
    apis = [node for node in functions if "bentoml.api" in " ".join(map(ast.unparse, node.decorator_list))]
    if not apis:
        faults.append(f"{name} has no method decorated with bentoml.api")
    for api in apis:
        # A batchable API takes one list, and gives one.
        given = [ast.unparse(argument.annotation) for argument in api.args.args[1:] if argument.annotation]
        if given not in (["list[str]"], ["list[list[str]]"]) or not ast.unparse(
            api.returns or ast.Constant(None)
        ).startswith("list["):
            faults.append(f"{name}.{api.name} does not take a list of texts and give a list")
    return faults
