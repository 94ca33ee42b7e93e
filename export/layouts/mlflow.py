"""An MLflow model with the python_function flavour: `mlflow.pyfunc.load_model`, `mlflow models serve`, registries.

By MLflow's documents (mlflow.org/docs/latest/ml/model: MLmodel, signature, environment files;
api_reference/python_api/mlflow.pyfunc.html: the filesystem format). Its YAML files are written as JSON, which is YAML,
since the floor has no YAML writer.
"""

from __future__ import annotations

import ast
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.export.layouts.embedded import (
    BUNDLE_FOLDER,
    answer_fields,
    answer_schemas,
    bundle_faults,
    copy_bundle,
    floor_requirement,
    input_parts,
    missing_requirements,
    read_json,
    read_source,
    requirement_lines,
    write_json,
)
from edgetune.serve.bundle import Bundle

HELP = "MLflow model with the python_function flavour: a column of texts in, answers out."
# MLflow reports its use to its makers unless it is told not to.
RUN = (
    "pip install -r FOLDER/requirements.txt && "
    "MLFLOW_DISABLE_TELEMETRY=true mlflow models serve -m FOLDER --env-manager local --port 5000"
)

# mlflow-skinny is MLflow without its tracking server, plots and scikit-learn, which nothing here uses.
REQUIREMENTS = ("mlflow-skinny==3.17.2", "pandas==2.3.3")

_LOADER = "edgetune_pyfunc"
_ENVIRONMENTS = {"conda": "conda.yaml", "virtualenv": "python_env.yaml"}
_EXAMPLE, _SERVED_EXAMPLE = "input_example.json", "serving_input_example.json"
# MLflow's types of single values in an answer, by JSON's.
_TYPES = {"string": "string", "number": "double", "integer": "long", "boolean": "boolean"}

_CODE = '''\
"""Opens the bundle for mlflow.pyfunc: texts in, a frame with the columns COLUMNS out."""

import pandas
from edgetune.serve import load


class TextClassifier:
    def __init__(self, folder):
        self.predictor = load(folder)

    def predict(self, model_input, params=None):
        """Answer the texts of a frame, which MLflow makes of whatever the signature lets in."""
        columns = [model_input[part].tolist() for part in self.predictor.codec.parts]
        inputs = columns[0] if len(columns) == 1 else list(zip(*columns))
        rows = [self.predictor.head.as_json(answer, None) for answer in self.predictor.predict(inputs)]
        return pandas.DataFrame(rows, index=model_input.index)


def _load_pyfunc(path):
    return TextClassifier(path)
'''


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with MLmodel, environment files, code/, input examples and the bundle as the model's data."""
    copy_bundle(bundle, folder)
    (folder / "code").mkdir()
    (folder / "code" / f"{_LOADER}.py").write_text(
        _CODE.replace("COLUMNS", " and ".join(answer_fields(bundle))), encoding="utf-8"
    )
    requirements = [floor_requirement(bundle), *REQUIREMENTS]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    python = platform.python_version()
    pip = {"pip": ["-r requirements.txt"]}
    write_json(
        folder / _ENVIRONMENTS["conda"],
        {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", pip]},
    )
    write_json(
        folder / _ENVIRONMENTS["virtualenv"],
        {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]},
    )
    given = bundle.golden().cases[0].input
    split = {"columns": list(input_parts(bundle)), "data": [[given] if isinstance(given, str) else list(given)]}
    write_json(folder / _EXAMPLE, split)
    write_json(folder / _SERVED_EXAMPLE, {"dataframe_split": split})
    write_json(folder / "MLmodel", _mlmodel(bundle, python))


def _mlmodel(bundle: Bundle, python: str) -> dict[str, object]:
    return {
        "flavors": {
            "python_function": {
                "loader_module": _LOADER,
                "code": "code",
                "data": BUNDLE_FOLDER,
                "env": _ENVIRONMENTS,
                "python_version": python,
            }
        },
        "model_size_bytes": bundle.size_bytes,
        "utc_time_created": bundle.manifest.created[:19].replace("T", " "),
        "signature": {
            "inputs": json.dumps(_columns({key: {"type": "string"} for key in input_parts(bundle)})),
            "outputs": json.dumps(_columns(answer_schemas(bundle))),
            "params": None,
        },
        "saved_input_example_info": {
            "artifact_path": _EXAMPLE,
            "serving_input_path": _SERVED_EXAMPLE,
            "type": "dataframe",
            "pandas_orient": "split",
        },
        "metadata": {"edgetune_bundle": bundle.manifest.name, "labels": bundle.manifest.labels},
    }


def _columns(schemas: Mapping[str, Mapping[str, Any]]) -> list[dict[str, object]]:
    return [{**_type(schema), "name": name, "required": True} for name, schema in schemas.items()]


def _type(schema: Mapping[str, Any]) -> dict[str, object]:
    """MLflow's type of what a JSON Schema tells of: a value, a list, an object of named members, or a map of scores."""
    if schema["type"] == "array":
        return {"type": "array", "items": _type(schema["items"])}
    if schema["type"] == "object" and "properties" in schema:
        members = {name: {**_type(member), "required": True} for name, member in schema["properties"].items()}
        return {"type": "object", "properties": members}
    if schema["type"] == "object":
        return {"type": "map", "values": _type(schema["additionalProperties"])}
    return {"type": _TYPES[schema["type"]]}


def check(folder: Path) -> list[str]:
    """The faults of a folder: the flavour and what it names, the signature, the example, packages and bundle."""
    faults: list[str] = []
    model = read_json(folder / "MLmodel", faults)
    if model:
        flavors = model.get("flavors")
        flavor = flavors.get("python_function") if isinstance(flavors, dict) else None
        if isinstance(flavor, dict):
            faults += _flavor_faults(folder, flavor)
        else:
            faults.append("MLmodel has no flavour python_function")
        faults += _signature_faults(model.get("signature")) + _example_faults(folder, model)
    lines = requirement_lines(folder / "requirements.txt", faults)
    faults += missing_requirements(lines, ("mlflow-skinny", "pandas", "edgetune"))
    return faults + bundle_faults(folder)


def _flavor_faults(folder: Path, flavor: dict[str, object]) -> list[str]:
    """loader_module is required; code, data and env are paths relative to the folder."""
    faults: list[str] = []
    for key in ("code", "data"):
        path = flavor.get(key)
        if not isinstance(path, str) or not (folder / path).is_dir():
            faults.append(f"MLmodel: {key} is {path}, no folder here")
    environments = flavor.get("env")
    for kind in _ENVIRONMENTS:
        path = environments.get(kind) if isinstance(environments, dict) else None
        if not isinstance(path, str):
            faults.append(f"MLmodel: env has no {kind}")
        else:
            read_json(folder / path, faults)
    loader = read_source(folder / str(flavor.get("code")) / f"{flavor.get('loader_module')}.py", faults)
    functions = {node.name: len(node.args.args) for node in loader.body if isinstance(node, ast.FunctionDef)}
    if functions.get("_load_pyfunc") != 1:
        faults.append(f"{flavor.get('loader_module')} has no _load_pyfunc(path), which MLflow calls")
    return faults


def _signature_faults(signature: object) -> list[str]:
    """Inputs and outputs are JSON documents within the document."""
    faults = []
    for key in ("inputs", "outputs"):
        text = signature.get(key) if isinstance(signature, dict) else None
        try:
            columns = json.loads(text) if isinstance(text, str) else None
        except ValueError:
            columns = None
        types = [*_TYPES.values(), "array", "object", "map"]
        if not isinstance(columns, list) or not all(
            isinstance(column, dict) and column.get("type") in types and column.get("name") for column in columns
        ):
            faults.append(f"MLmodel: signature.{key} is no JSON list of columns with type and name")
    return faults


def _example_faults(folder: Path, model: dict[str, object]) -> list[str]:
    faults: list[str] = []
    example_info = model.get("saved_input_example_info")
    if not isinstance(example_info, dict):
        return ["MLmodel has no saved_input_example_info"]
    example = read_json(folder / str(example_info.get("artifact_path")), faults)
    served = read_json(folder / str(example_info.get("serving_input_path")), faults)
    columns = example.get("columns")
    if not faults and (
        not isinstance(columns, list) or columns[:1] not in (["text"], ["image"]) or not example.get("data")
    ):
        faults.append(f"{_EXAMPLE} is no frame with the column text or image")
    if not faults and served.get("dataframe_split") != example:
        faults.append(f"{_SERVED_EXAMPLE} is not the request for that example")
    return faults
