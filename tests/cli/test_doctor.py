"""`edgetune doctor`: the facts it tells, the problems it finds, what mends them, and its exit codes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgetune import __version__, diagnosis, extras, problems
from edgetune.benchmarks.timing.machine import Gpu
from edgetune.commands import doctor
from edgetune.diagnosis import Diagnosis, RuntimeFacts, TorchFacts
from edgetune.extras import Extra
from edgetune.problems import Problem, find_problems
from edgetune.providers import CPU, CUDA, SQUARE_GRAPH, ProviderTrial

H200 = Gpu(name="NVIDIA H200", memory_bytes=141 * 10**9, count=1)
COMPLETE = Extra(complete=True, missing=(), do=None)
METADATA = [
    "click>=8.2",
    'onnxruntime>=1.23; extra == "cpu"',
    'onnxruntime-gpu>=1.23; extra == "gpu"',
    'onnxruntime-gpu>=1.23; (sys_platform == "linux" or sys_platform == "win32") and extra == "build"',
    'onnxruntime>=1.23; (sys_platform != "linux" and sys_platform != "win32") and extra == "build"',
    'starlette>=0.46; extra == "serve"',
    'pillow>=11; extra == "pictures"',
    'torch>=2.10; extra == "build"',
    'transformers<6,>=5.20; extra == "build"',
    'scipy>=1.13; extra == "compare"',
    'trl>=1.10; extra == "llm"',
    'sacrebleu>=2.5; extra == "llm"',
    'cleanlab>=2.7; extra == "review"',
    'optuna>=4.4; extra == "sweep"',
    'model-signing>=1.1; extra == "sign"',
    'pytest>=8.4; extra == "dev"',
]


def runtime(**changes: Any) -> RuntimeFacts:
    whole = RuntimeFacts(
        wheels={"onnxruntime-gpu": "1.31.1"},
        version="1.31.1",
        error=None,
        telemetry_off=True,
        providers={CPU: ProviderTrial(True, None), CUDA: ProviderTrial(True, None)},
    )
    return replace(whole, **changes)


def healthy(**changes: Any) -> Diagnosis:
    """A machine with nothing wrong; `changes` make something wrong."""
    whole = Diagnosis(
        edgetune="0.1.0",
        python="3.11.7",
        os="Linux",
        extras=dict.fromkeys(extras.EXTRAS, COMPLETE),
        onnxruntime=runtime(),
        torch=TorchFacts(version="2.13.0", error=None, cuda=True, cuda_build="13.0", cuda_reason=None),
        cpu="AMD EPYC",
        cores=4,
        host_cores=64,
        omp_num_threads=None,
        memory_bytes=8 * 10**9,
        isa=["avx2", "avx512_vnni"],
        int8_fast=True,
        bf16_fast=False,
        gpu=None,
        free_disk_bytes=10**11,
        targets={"x86-64-v3": "emulated: Haswell-noTSX by QEMU"},
        hub={},
    )
    return replace(whole, **changes)


def install(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Make exactly these packages installed, in a Linux x86-64 environment; `_` in a name stands for `-`."""
    installed = {"click": "8.5.1"} | {name.replace("_", "-"): version for name, version in versions.items()}
    monkeypatch.setattr(extras, "installed_version", installed.get)
    monkeypatch.setattr(extras, "has_gpu_wheel", lambda: True)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: METADATA)


def run(monkeypatch: pytest.MonkeyPatch, found: Diagnosis, *arguments: str) -> Result:
    monkeypatch.setattr(doctor, "diagnose", lambda: found)
    return CliRunner().invoke(doctor.command, list(arguments))


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    """What doctor tells of the machine and environment that the tests run in."""
    result = CliRunner().invoke(doctor.command, ["--json"])
    told: dict[str, Any] = json.loads(result.stdout)
    has_error = any(problem["level"] == "error" for problem in told["problems"])
    assert result.exit_code == (1 if has_error else 0)
    return told


def test_json_tells_the_whole_diagnosis(real: dict[str, Any]) -> None:
    assert real.keys() == {*Diagnosis.__dataclass_fields__, "problems"}
    assert real["edgetune"] == __version__
    assert real["extras"].keys() == set(extras.EXTRAS)
    assert real["extras"]["base"] == {"complete": True, "missing": [], "do": None}
    assert real["onnxruntime"]["telemetry_off"] is True
    assert 1 <= real["cores"] <= real["host_cores"]


def test_the_cpu_provider_works(real: dict[str, Any]) -> None:
    assert real["onnxruntime"]["providers"][CPU] == {"works": True, "reason": None}


def test_cuda_does_not_work_without_a_gpu(real: dict[str, Any]) -> None:
    if real["gpu"] is not None or CUDA not in real["onnxruntime"]["providers"]:
        pytest.skip("there is a GPU, or a wheel that does not know CUDA")
    trial = real["onnxruntime"]["providers"][CUDA]
    assert trial["works"] is False
    assert trial["reason"]
    assert "\n" not in trial["reason"]


def test_a_failing_provider_writes_nothing(real: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    assert diagnosis.runtime_facts().providers[CPU].works
    assert capfd.readouterr() == ("", "")


def test_the_graph_is_what_onnx_would_write() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(SQUARE_GRAPH)
    onnx.checker.check_model(model, full_check=True)
    assert [(node.op_type, *node.input, *node.output) for node in model.graph.node] == [("MatMul", "x", "x", "y")]


def test_a_healthy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, healthy(gpu=H200))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "Nothing is wrong."
    assert "cores                     4 may be used, of 64" in result.stdout
    assert "int8                      fast (avx512_vnni)" in result.stdout
    assert "bf16                      slow: torch would emulate it" in result.stdout
    assert "GPU                       NVIDIA H200, 141.0 GB" in result.stdout


def test_a_note_exits_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, healthy(omp_num_threads="64,2"))
    assert result.exit_code == 0
    assert result.stdout.endswith(
        "Note: OMP_NUM_THREADS=64 is more than the 4 cores that may be used.\n  To do: export OMP_NUM_THREADS=4\n"
    )


def test_an_error_exits_with_1_in_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    nothing = runtime(wheels={}, version=None, providers={})
    result = run(monkeypatch, healthy(onnxruntime=nothing, torch=None), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"] == [
        {
            "level": "error",
            "what": "No ONNX Runtime is installed: no bundle can answer.",
            "do": 'pip install "edgetune[cpu]"',
        }
    ]


def test_both_wheels_together_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.31.1", onnxruntime_gpu="1.31.1", torch="2.13.0", transformers="5.23.0")
    (problem,) = find_problems(healthy(onnxruntime=runtime(wheels=extras.runtime_wheels())))
    assert problem == Problem(
        "error",
        "onnxruntime and onnxruntime-gpu are both installed and overwrite each other.",
        'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "edgetune[build]"',
    )


def test_a_base_install_lacks_every_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    assert extras.installed_extras() == {
        "base": COMPLETE,
        "cpu": Extra(False, ("onnxruntime>=1.23",), 'pip install "edgetune[cpu]"'),
        "gpu": Extra(False, ("onnxruntime-gpu>=1.23",), 'pip install "edgetune[gpu]"'),
        "serve": Extra(False, ("starlette>=0.46",), 'pip install "edgetune[serve]"'),
        "pictures": Extra(False, ("pillow>=11",), 'pip install "edgetune[pictures]"'),
        "build": Extra(
            False,
            ("onnxruntime-gpu>=1.23", "torch>=2.10", "transformers<6,>=5.20"),
            'pip install "edgetune[build]"',
        ),
        "compare": Extra(False, ("scipy>=1.13",), 'pip install "edgetune[compare]"'),
        "llm": Extra(False, ("trl>=1.10", "sacrebleu>=2.5"), 'pip install "edgetune[llm]"'),
        "review": Extra(False, ("cleanlab>=2.7",), 'pip install "edgetune[review]"'),
        "sweep": Extra(False, ("optuna>=4.4",), 'pip install "edgetune[sweep]"'),
        "sign": Extra(False, ("model-signing>=1.1",), 'pip install "edgetune[sign]"'),
    }


def test_what_language_models_need_is_told_and_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime_gpu="1.31.1", torch="2.13.0", transformers="5.23.0", trl="1.16.0")
    result = run(monkeypatch, healthy(extras=extras.installed_extras()))
    line = next(line for line in result.stdout.splitlines() if line.startswith("  [llm]"))
    assert line.split("  ")[-1].strip() == 'missing sacrebleu>=2.5; to have it: pip install "edgetune[llm]"'
    assert result.stdout.splitlines()[-1] == "Nothing is wrong."


def test_an_edge_install_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.31.1")
    found = extras.installed_extras()
    assert found["cpu"] == COMPLETE
    assert found["gpu"].do is None
    (problem,) = find_problems(healthy(extras=found, torch=None, onnxruntime=runtime(wheels={"onnxruntime": "1"})))
    assert problem.level == "note"
    # [build] brings onnxruntime-gpu here, which would break the wheel that is installed.
    assert problem.do == 'pip uninstall -y onnxruntime && pip install "edgetune[build]"'


@pytest.mark.parametrize(
    ("torch", "transformers", "missing"),
    [
        ("2.10.0+cpu", "5.20", ()),
        ("2.9.1", "5.23.0", ("torch>=2.10 (2.9.1 is installed)",)),
        ("2.13.0", "6.0.0", ("transformers<6,>=5.20 (6.0.0 is installed)",)),
    ],
)
def test_versions_out_of_range(
    monkeypatch: pytest.MonkeyPatch, torch: str, transformers: str, missing: tuple[str, ...]
) -> None:
    install(monkeypatch, onnxruntime_gpu="1.31.1", torch=torch, transformers=transformers)
    assert extras.installed_extras()["build"].missing == missing


def test_an_incomplete_build_extra_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime_gpu="1.31.1", torch="2.13.0")
    assert find_problems(healthy(extras=extras.installed_extras())) == [
        Problem("error", "[build] is incomplete: transformers<6,>=5.20.", 'pip install "edgetune[build]"')
    ]


def test_an_old_wheel_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime_gpu="1.20.0", torch="2.13.0", transformers="5.23.0")
    assert find_problems(healthy(extras=extras.installed_extras())) == [
        Problem(
            "error",
            "ONNX Runtime is too old: onnxruntime-gpu>=1.23 (1.20.0 is installed).",
            'pip install "edgetune[gpu]"',
        )
    ]


@pytest.mark.parametrize(
    ("changes", "level", "what", "do"),
    [
        (
            {"onnxruntime": runtime(version=None, error="libonnxruntime.so is missing", providers={})},
            "error",
            "ONNX Runtime does not import: libonnxruntime.so is missing.",
            "pip uninstall -y onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
        (
            {"onnxruntime": runtime(providers={CPU: ProviderTrial(False, "illegal instruction")})},
            "error",
            "ONNX Runtime does not answer on the CPU: illegal instruction.",
            "pip uninstall -y onnxruntime-gpu && pip install onnxruntime-gpu",
        ),
        (
            {"onnxruntime": runtime(telemetry_off=False)},
            "note",
            "ONNX Runtime's telemetry is on.",
            "export ORT_DISABLE_TELEMETRY=1",
        ),
        (
            {"torch": TorchFacts("2.13.0", "libgomp.so.1 is missing", False, None, None)},
            "error",
            "torch 2.13.0 does not import: libgomp.so.1 is missing.",
            "pip install --force-reinstall torch",
        ),
        (
            {"torch": TorchFacts("2.13.0+cpu", None, False, None, None), "gpu": H200},
            "note",
            "torch 2.13.0+cpu is built without CUDA: training does not use the NVIDIA H200.",
            "pip uninstall -y torch && pip install torch",
        ),
        (
            {"torch": TorchFacts("2.13.0", None, False, "13.0", "the driver is too old"), "gpu": H200},
            "note",
            "torch does not reach the NVIDIA H200: the driver is too old.",
            "install a driver for CUDA 13.0; see whether CUDA_VISIBLE_DEVICES hides the GPU",
        ),
        (
            {
                "onnxruntime": runtime(
                    providers={
                        CPU: ProviderTrial(True, None),
                        CUDA: ProviderTrial(False, "no libcublas.so.13"),
                    }
                ),
                "gpu": H200,
            },
            "note",
            "ONNX Runtime does not reach the NVIDIA H200: no libcublas.so.13.",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            {"int8_fast": False},
            "note",
            "This CPU has neither VNNI nor a dot product: int8 gains less.",
            "build with the --target of this CPU's class, and measure the bundle here",
        ),
        (
            {"free_disk_bytes": 10**9},
            "note",
            "Only 1.0 GB are free in this folder; a build may need more.",
            "free some, or build with --out on another disk",
        ),
    ],
)
def test_each_problem_says_what_to_do(changes: dict[str, Any], level: Any, what: str, do: str) -> None:
    assert find_problems(healthy(**changes)) == [Problem(level, what, do)]


def test_a_cpu_wheel_beside_a_gpu_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, onnxruntime="1.31.1")
    monkeypatch.setattr(problems, "has_gpu_wheel", lambda: True)
    cpu_only = runtime(wheels={"onnxruntime": "1.31.1"}, providers={CPU: ProviderTrial(True, None)})
    (problem,) = find_problems(healthy(onnxruntime=cpu_only, gpu=H200))
    assert problem.level == "note"
    assert problem.do == 'pip uninstall -y onnxruntime && pip install "edgetune[gpu]"'


def test_errors_come_first() -> None:
    broken = TorchFacts("2.13.0", "libgomp.so.1 is missing", False, None, None)
    found = find_problems(healthy(onnxruntime=runtime(telemetry_off=False), torch=broken))
    assert [problem.level for problem in found] == ["error", "note"]


def test_without_onnx_runtime_and_torch_the_facts_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr(diagnosis, "installed_version", lambda name: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = diagnosis.diagnose()
    assert found.onnxruntime == RuntimeFacts({}, None, None, True, {})
    assert found.torch is None


def test_telemetry_that_the_user_turned_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert diagnosis.runtime_facts().telemetry_off is False
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_hub_settings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(monkeypatch, healthy(hub={"HF_HUB_OFFLINE": "1", "HF_HOME": "/models"}))
    assert "HF_HUB_OFFLINE            1\n  HF_HOME                   /models\n" in result.stdout
