"""A bundle inside a layout's folder, byte for byte, with the packages that open it there.

For layouts whose server runs edgetune's own predictor; those whose server brings a runtime of its own spread the files
out instead. Needs the floor only.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from edgetune import __version__
from edgetune.export.layouts import copy_files
from edgetune.serve.bundle import MANIFEST_NAME, SIGNATURE_NAME, Bundle
from edgetune.serve.codecs import codec_parts, takes_files
from edgetune.serve.errors import BundleError
from edgetune.serve.heads import open_head

BUNDLE_FOLDER = "bundle"


def copy_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy the packed files of a bundle and its signature, and no others, into `folder`/bundle."""
    signature = [SIGNATURE_NAME] if (bundle.folder / SIGNATURE_NAME).is_file() else []
    copy_files(bundle, [*bundle.manifest.files, MANIFEST_NAME, *signature], folder / BUNDLE_FOLDER)


def bundle_faults(folder: Path) -> list[str]:
    """What is wrong with the bundle in `folder`/bundle, sizes and digests included."""
    try:
        Bundle.open(folder / BUNDLE_FOLDER)
    except BundleError as error:
        return [error.found]
    return []


def floor_requirement(bundle: Bundle) -> str:
    """The line of a requirements file that brings what opens the bundle, in the version that wrote the layout."""
    runtime = "gpu" if bundle.manifest.provider == "cuda" else "cpu"
    pictures = ",pictures" if takes_files(bundle.manifest.codec) else ""
    return f"edgetune[{runtime}{pictures}]=={__version__}"


def input_parts(bundle: Bundle) -> tuple[str, ...]:
    """Names of the texts of one input."""
    return codec_parts(bundle.manifest.codec)


def answer_schemas(bundle: Bundle) -> dict[str, Mapping[str, object]]:
    """What an answer in JSON always holds: the JSON Schema of each member."""
    schema = open_head(bundle.manifest.answer_heads[0]).schema
    return {name: schema["properties"][name] for name in schema["required"]}


def answer_fields(bundle: Bundle) -> dict[str, str]:
    """What an answer in JSON always holds: the JSON type (string, number, boolean, array, object) of each member."""
    return {name: str(member["type"]) for name, member in answer_schemas(bundle).items()}


def example_object(names: Iterable[str]) -> str:
    """An object with these members, as documentation shows it."""
    return "{" + ", ".join(f'"{name}": ...' for name in names) + "}"


def write_json(path: Path, value: object) -> None:
    """Write a JSON document: also what .yaml files get, JSON being YAML and the floor having no YAML writer."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, faults: list[str]) -> dict[str, object]:
    """The JSON object in a file; empty, with a fault added, where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        faults.append(f"{path.name} is missing")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        faults.append(f"{path.name} cannot be read as JSON: {error}")
        return {}
    if not isinstance(value, dict):
        faults.append(f"{path.name} holds no object")
        return {}
    return value


def read_source(path: Path, faults: list[str]) -> ast.Module:
    """The syntax tree of a Python file; empty, with a fault added, where it is missing or does not parse."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        faults.append(f"{path.name} is missing")
    except (OSError, ValueError, SyntaxError) as error:
        faults.append(f"{path.name} is no Python: {error}")
    return ast.Module(body=[], type_ignores=[])


def requirement_lines(path: Path, faults: list[str]) -> list[str]:
    """The requirements in a file, without comments; each must be pinned to one version."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        faults.append(f"{path.name} is missing")
        return []
    requirements = [line for line in (line.partition("#")[0].strip() for line in lines) if line]
    faults.extend(f"{path.name}: {line} is not pinned with ==" for line in requirements if "==" not in line)
    return requirements


def requirement_names(lines: list[str]) -> set[str]:
    """The packages that requirement lines name, in lower case with dashes."""
    return {re.split(r"[\[=<>~! ]", line)[0].lower().replace("_", "-") for line in lines}


def missing_requirements(lines: list[str], packages: tuple[str, ...]) -> list[str]:
    """A fault for each wanted package that no line brings; none where there are no lines, which is told elsewhere."""
    names = requirement_names(lines)
    return [f"requirements.txt does not bring {name}" for name in packages if lines and name not in names]
