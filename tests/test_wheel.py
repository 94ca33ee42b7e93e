"""The wheel as a user of a bundle has it: installed with [cpu] alone, into an environment where nothing else is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent
BUNDLE = ROOT / "tests" / "golden" / "bundle-v1"
PACKED = ("cli", "serve", "tune", "compress", "export", "benchmarks")
NEVER_INSTALLED = ("torch", "transformers", "onnx", "pandas", "pydantic", "scipy", "sklearn", "rich")

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Fresh:
    """An environment with the wheel in it, and the copy of the sources that the wheel was built from."""

    folder: Path

    @property
    def source(self) -> Path:
        return self.folder / "source"

    def run(self, name: str, *arguments: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment in an empty folder; it must succeed."""
        return _succeed([self._scripts / name, *arguments], cwd=self.folder / "empty", **options)

    @property
    def _scripts(self) -> Path:
        return self.folder / "venv" / ("Scripts" if os.name == "nt" else "bin")

    def make(self) -> None:
        # A copy, since setuptools leaves a build folder where it works; benchmarks/peers is not shipped.
        for name in PACKED:
            ignored = shutil.ignore_patterns("__pycache__", "peers", "lab")
            shutil.copytree(ROOT / name, self.source / name, ignore=ignored)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.source / name)
        # Isolated: the setuptools that Python 3.11 puts into a new environment is too old for this pyproject.toml.
        wheels = self.folder / "wheels"
        _succeed([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, self.source])
        (wheel,) = wheels.glob("*.whl")
        venv.create(self.folder / "venv", with_pip=False)  # a pip of its own would take seconds to unpack
        install = [sys.executable, "-m", "pip", "--python", self._scripts / "python", "install", "--quiet"]
        _succeed([*install, "--constraint", ROOT / "constraints.txt", f"{wheel}[cpu]"])
        (self.folder / "empty").mkdir()


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Fresh:
    """Made once, also where pytest-xdist runs several workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"
    with FileLock(f"{folder}.lock"):
        if not (folder / "empty").is_dir():
            shutil.rmtree(folder, ignore_errors=True)
            Fresh(folder).make()
    return Fresh(folder)


def _succeed(command: list[str | Path], **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "ORT_"))}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=600, env=environment, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


def test_the_wheel_holds_every_module_and_nothing_else(fresh):
    code = "import edgetune, pathlib; print(pathlib.Path(edgetune.__file__).parent)"
    installed = Path(fresh.run("python", "-c", code).stdout.strip())
    found = {path.relative_to(installed).as_posix() for path in installed.rglob("*.py")}
    wanted = {
        path.relative_to(fresh.source).as_posix().removeprefix("cli/")
        for name in PACKED
        for path in (fresh.source / name).rglob("*.py")
        if not {"peers", "lab"} & set(path.parts)  # for the checkout alone
    }
    # Its place is optimum's, for optimum-cli.
    wanted.remove("optimum/edgetune.py")
    assert (installed.parent / "optimum" / "commands" / "register" / "edgetune.py").is_file()
    assert found == wanted
    assert (installed / "py.typed").is_file()
    (licence,) = installed.parent.glob("edgetune-*.dist-info/licenses/LICENSE")
    assert licence.read_bytes() == (ROOT / "LICENSE").read_bytes()
    for page in ("report.html.jinja", "report-style.css.jinja", "stepwise-report.html.jinja"):
        assert (installed / "benchmarks" / "report" / page).is_file()


def test_no_heavy_package_is_installed(fresh):
    code = f"import importlib.util as u, json; print(json.dumps([n for n in {NEVER_INSTALLED!r} if u.find_spec(n)]))"
    assert json.loads(fresh.run("python", "-c", code).stdout) == []


def test_it_predicts(fresh):
    done = fresh.run("edgetune", "predict", BUNDLE, "where is my parcel", "i still money card")
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [(label, text) for label, _, text in lines] == [
        ("delivery", "where is my parcel"),
        ("payment", "i still money card"),
    ]


def test_it_predicts_from_standard_input_as_json(fresh):
    answers = json.loads(fresh.run("edgetune", "predict", BUNDLE, "--json", input="reset my it today again\n").stdout)
    assert [answer["label"] for answer in answers] == ["account"]


def test_it_verifies_and_inspects(fresh):
    assert json.loads(fresh.run("edgetune", "verify", BUNDLE, "--json").stdout)["golden"]["cases"] == 8
    assert json.loads(fresh.run("edgetune", "inspect", BUNDLE, "--json").stdout)["report"]["chosen"] == "fp32"


def test_help_and_doctor_work_without_the_build_extra(fresh):
    assert "Commands:" in fresh.run("edgetune", "--help").stdout
    facts = json.loads(fresh.run("edgetune", "doctor", "--json").stdout)
    assert facts["extras"]["base"]["complete"]
    assert facts["extras"]["cpu"]["complete"]
    assert not facts["extras"]["build"]["complete"]


def test_a_build_names_the_extra_it_needs(fresh):
    with pytest.raises(AssertionError) as caught:
        fresh.run("edgetune", "build", "--base", "b", "--data", "d.csv")
    assert "pip install 'edgetune[build]'" in str(caught.value)
    assert "Traceback" not in str(caught.value)
