"""optimum-cli, as optimum's own wheel has it, finds `edgetune` among its commands and hands it all arguments."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgetune

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1"
OPTIMUM = "optimum==2.3.0"
CLI = "from optimum.commands.optimum_cli import main; main()"


def test_the_command_stands_where_optimum_looks():
    """Without optimum: the module's file is there, and `optimum` is no package that anything could take for it."""
    optimum = importlib.util.find_spec("optimum")
    if optimum is None:
        pytest.skip("edgetune runs from the checkout here, and is not installed")
    assert optimum.origin is None
    spec = importlib.util.find_spec("optimum.commands.register")
    assert spec is not None
    assert any((Path(place) / "edgetune.py").is_file() for place in spec.submodule_search_locations)


@pytest.fixture(scope="module")
def optimum_cli(tmp_path_factory):
    """`optimum_cli("edgetune", ...)`: the finished process, by optimum's wheel beside this environment's packages."""
    place = tmp_path_factory.mktemp("optimum")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, OPTIMUM]
    subprocess.run(pip, check=True, timeout=300)
    installed = Path(edgetune.__file__).parents[1]

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{installed}"}
        command = [sys.executable, "-c", CLI, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=place, timeout=300)

    return run


@pytest.mark.slow
@pytest.mark.servers
def test_optimum_runs_edgetune_as_its_own_command(optimum_cli):
    assert "edgetune" in optimum_cli("--help").stdout
    asked = optimum_cli("edgetune", "predict", GOLDEN, "where is my parcel", "--json")
    assert asked.returncode == 0, asked.stderr
    own = subprocess.run(
        [sys.executable, "-m", "edgetune", "predict", GOLDEN, "where is my parcel", "--json"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert json.loads(asked.stdout) == json.loads(own.stdout)
    wrong = optimum_cli("edgetune", "predict", GOLDEN / "none", "a text")
    assert (wrong.returncode, "Error:" in wrong.stderr) == (1, True)
