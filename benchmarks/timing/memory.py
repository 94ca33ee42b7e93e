"""Peak memory of this process, in bytes: the kernel's own counters, None where there is no such counter or device."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from edgetune.benchmarks.timing.machine import visible_device
from edgetune.serve.report import Memory

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def process_memory() -> Memory:
    """What this process has taken so far: VmHWM and the file-backed share, and GPU memory where there is a GPU."""
    fields = _status_fields()
    return Memory(
        rss_peak_bytes=fields.get("VmHWM"),
        rss_file_bytes=fields.get("RssFile"),
        gpu_peak_bytes=_torch_gpu_peak(),
        gpu_device_bytes=None,
    )


def reset_peak() -> None:
    """Start the peak counter anew (Linux: clear_refs); elsewhere the peak is that of the whole process."""
    if _CLEAR.exists():
        _CLEAR.write_text("5")


def _status_fields() -> dict[str, int]:
    if not _STATUS.exists():
        return {}
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in lines if len(parts) == 3 and parts[2] == "kB"}


def _torch_gpu_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def device_memory_used() -> int | None:
    """Bytes in use on the NVIDIA GPU that this process is shown first, by all processes together; None without one.

    NVML's figure per process reads 0 inside containers, so only the rise of the whole device says something.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except (ImportError, OSError) as error:
        del error
        return None
    except pynvml.NVMLError:
        return None
    try:
        handle = visible_device(pynvml)
        return None if handle is None else int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def settled_memory_used(
    read: Callable[[], int | None] | None = None, wait: Callable[[float], None] = time.sleep, seconds: float = 5.0
) -> int | None:
    """As `device_memory_used`, once it has not changed for half a second: a driver frees what a process had late.

    Args:
        read: gives bytes in use; None takes `device_memory_used`.
        wait: sleeps for so many seconds.
        seconds: after so many the last reading is taken, as it is.
    """
    read = read or device_memory_used
    last, alike = read(), 0
    for _ in range(round(seconds / 0.1)):
        if last is None or alike == 5:
            break
        wait(0.1)
        used = read()
        alike, last = (alike + 1 if used == last else 0), used
    return last
