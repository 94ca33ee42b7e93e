"""What is told of the machine, read from made-up /proc trees, and from the real one."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgetune import __version__
from edgetune.benchmarks.timing import machine
from edgetune.benchmarks.timing.machine import Gpu, cpu_name, describe_machine, find_gpu, instruction_sets, versions
from edgetune.benchmarks.timing.memory import settled_memory_used
from edgetune.serve.cores import usable_cores
from edgetune.serve.report import Machine

EPYC = """\
processor\t: 0
model name\t: AMD EPYC 9R45
flags\t\t: fpu sse2 avx2 avx512f avx512_bf16 avx512_vnni
processor\t: 1
model name\t: AMD EPYC 9R45
"""
RASPBERRY = """\
processor\t: 0
Features\t: fp asimd aes asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b

Model\t\t: Raspberry Pi 5 Model B Rev 1.0
"""
BARE_ARM = "Features\t: asimd asimddp sve i8mm bf16\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_gpu_by_nvml", lambda: None)
    monkeypatch.setattr(machine, "_gpu_by_torch", lambda: None)


def with_cpuinfo(proc: Path, text: str) -> Path:
    (proc / "cpuinfo").write_text(text)
    return proc


@pytest.mark.parametrize(
    ("cpuinfo", "name", "isa"),
    [
        (EPYC, "AMD EPYC 9R45", ["avx2", "avx512f", "avx512_vnni", "avx512_bf16"]),
        (RASPBERRY, "Raspberry Pi 5 Model B Rev 1.0", ["asimd", "asimddp"]),
        (
            BARE_ARM,
            f"{platform.machine()}, implementer 0x41, part 0xd4f",
            ["asimd", "asimddp", "sve", "i8mm", "bf16"],
        ),
    ],
)
def test_processor_and_instruction_sets(tmp_path: Path, cpuinfo: str, name: str, isa: list[str]) -> None:
    proc = with_cpuinfo(tmp_path, cpuinfo)
    assert cpu_name(proc) == name
    assert instruction_sets(proc) == isa


def test_a_board_without_a_model_in_cpuinfo_is_named_by_its_device_tree(tmp_path: Path) -> None:
    proc = with_cpuinfo(tmp_path, BARE_ARM)
    (proc / "device-tree").mkdir()
    (proc / "device-tree" / "model").write_text("NVIDIA Jetson Orin Nano\0")
    assert cpu_name(proc) == "NVIDIA Jetson Orin Nano"


def test_without_proc_python_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert cpu_name(tmp_path) == "arm"
    assert instruction_sets(tmp_path) == []


def test_gpu_by_the_drivers_files(tmp_path: Path, no_gpu: None) -> None:
    for slot in ("0000:17:00.0", "0000:65:00.0"):
        folder = tmp_path / "driver" / "nvidia" / "gpus" / slot
        folder.mkdir(parents=True)
        (folder / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 16\n")
    assert find_gpu(tmp_path) == Gpu(name="NVIDIA H200", memory_bytes=None, count=2)


def test_no_gpu_is_none(tmp_path: Path, no_gpu: None) -> None:
    assert find_gpu(tmp_path) is None


def test_gpu_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    assert find_gpu() == Gpu(name="NVIDIA L4", memory_bytes=24 * 2**30, count=1)
    assert nvml.shut_down == [True]


@pytest.mark.parametrize(
    ("visible", "handle"),
    [(None, 0), ("1,0", 1), ("GPU-5e", "GPU-5e"), ("MIG-7,GPU-5e", "MIG-7"), ("", None), ("-1", None)],
)
def test_the_device_is_the_one_that_cuda_calls_the_first(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, handle: str | int | None
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    nvml = SimpleNamespace(nvmlDeviceGetHandleByIndex=lambda index: index, nvmlDeviceGetHandleByUUID=lambda uuid: uuid)
    assert machine.visible_device(nvml) == handle


def test_torch_knows_the_device_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(uuid="12-34")
    cuda = SimpleNamespace(
        is_available=lambda: True, is_initialized=lambda: True, get_device_properties=lambda index: properties
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert machine.visible_device(SimpleNamespace(nvmlDeviceGetHandleByUUID=lambda uuid: uuid)) == "GPU-12-34"


def test_memory_in_use_is_read_once_it_stands_still() -> None:
    readings = iter([9, 8, 7, 7, 7, 7, 7, 7, 1])
    waited: list[float] = []
    assert settled_memory_used(lambda: next(readings), waited.append) == 7
    assert len(waited) == 7
    assert settled_memory_used(lambda: None, waited.append) is None
    restless = iter(range(100))
    assert settled_memory_used(lambda: next(restless), waited.append, seconds=0.5) == 5


def test_a_failing_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = fake_nvml()

    def fail(index: int) -> None:
        raise nvml.NVMLError(f"device {index} is lost")

    nvml.nvmlDeviceGetHandleByIndex = fail
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(machine, "_gpu_by_torch", lambda: None)
    assert find_gpu(tmp_path) is None
    assert nvml.shut_down == [True]


def test_without_nvml_torch_is_asked_if_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    device = SimpleNamespace(name="NVIDIA A10", total_memory=24)
    cuda = SimpleNamespace(
        is_available=lambda: True, get_device_properties=lambda index: device, device_count=lambda: 4
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert find_gpu() == Gpu(name="NVIDIA A10", memory_bytes=24, count=4)


def test_versions_leave_out_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("edgetune", "no-such-package-of-anyone"))
    assert versions() == {"python": platform.python_version(), "edgetune": __version__}


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = describe_machine(3)
    assert isinstance(found, Machine)
    assert found.threads == 3
    assert found.cores == usable_cores()
    assert found.cpu
    assert found.os == platform.platform()
    assert {"python", "edgetune", "numpy", "tokenizers"} <= found.versions.keys()


def test_describing_imports_no_torch() -> None:
    code = (
        "import sys; from edgetune.benchmarks.timing.machine import describe_machine; describe_machine(1);"
        "print([name for name in ('torch', 'transformers', 'onnxruntime', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def fake_nvml() -> SimpleNamespace:
    shut_down: list[bool] = []
    return SimpleNamespace(
        NVMLError=type("NVMLError", (Exception,), {}),
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: "handle",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=24 * 2**30),
        nvmlDeviceGetName=lambda handle: "NVIDIA L4",
        nvmlShutdown=lambda: shut_down.append(True),
        shut_down=shut_down,
    )
