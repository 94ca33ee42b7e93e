"""How many cores and how much memory this process may really use: affinity mask and cgroup limits together.

A thread pool sized to the host, not to the container, is the commonest cause of a slow model server, and
neither `os.cpu_count` nor ONNX Runtime looks at the quota. Imports the standard library alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROC = Path("/proc")


def usable_cores(proc: Path = PROC) -> int:
    """The CPUs this process may use: the affinity mask, cut by the cgroup quota rounded up; at least 1."""
    allowed = affinity_cores()
    quotas = [_cpu_quota_v2(folder) for folder in _cgroup_folders(proc, "")]
    quotas += [_cpu_quota_v1(folder) for folder in _cgroup_folders(proc, "cpu")]
    return max(1, min([allowed, *(quota for quota in quotas if quota is not None)]))


def usable_memory_bytes(proc: Path = PROC) -> int | None:
    """Bytes of memory that this process may use: the machine's, cut by cgroup limits; None where unknown."""
    limits = [physical_memory_bytes(proc)]
    limits += [_number(folder / "memory.max") for folder in _cgroup_folders(proc, "")]
    limits += [_number(folder / "memory.limit_in_bytes") for folder in _cgroup_folders(proc, "memory")]
    return min((limit for limit in limits if limit is not None), default=None)


def affinity_cores() -> int:
    """The CPUs in this process's affinity mask, or all of them where the system keeps no such mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    count = getattr(os, "process_cpu_count", os.cpu_count)  # process_cpu_count came with Python 3.13
    return count() or 1


def physical_memory_bytes(proc: Path = PROC) -> int | None:
    """Bytes of memory of the machine, whoever may use them; None where the system does not say."""
    for line in _lines(proc / "meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _cgroup_folders(proc: Path, controller: str) -> Iterator[Path]:
    """This process's cgroup folder and those above it, for a v1 controller, or for v2 where it is ""."""
    group = _own_group(proc, controller)
    if group is None:
        return
    for root, mount_point in _cgroup_mounts(proc, controller):
        # A container may mount its own group alone while /proc still tells the host's path of it, and a
        # process outside its cgroup namespace is told "..": both mean that the mount point is what it sees.
        inside = group.relative_to(root) if group.is_relative_to(root) else PurePosixPath()
        parts = () if ".." in inside.parts else inside.parts
        for depth in range(len(parts), -1, -1):
            yield mount_point.joinpath(*parts[:depth])


def _own_group(proc: Path, controller: str) -> PurePosixPath | None:
    """The path of this process's group within the hierarchy of `controller` (lines of `id:names:path`)."""
    for line in _lines(proc / "self" / "cgroup"):
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return PurePosixPath(path)
    return None


def _cgroup_mounts(proc: Path, controller: str) -> Iterator[tuple[PurePosixPath, Path]]:
    """The part of the hierarchy that is mounted, and where, by proc(5)'s mountinfo."""
    for line in _lines(proc / "self" / "mountinfo"):
        place, _, kind = line.partition(" - ")
        filesystem, _, options = kind.split(" ", 2)
        is_v2 = not controller and filesystem == "cgroup2"
        is_v1 = controller and filesystem == "cgroup" and controller in options.split(",")
        if is_v2 or is_v1:
            root, mount_point = place.split(" ")[3:5]
            yield PurePosixPath(root), Path(mount_point)


def _cpu_quota_v2(folder: Path) -> int | None:
    """Cores by `cpu.max` ("150000 100000" is 1.5, so 2); None without a limit ("max 100000")."""
    words = " ".join(_lines(folder / "cpu.max")).split()
    if len(words) != 2 or words[0] == "max":
        return None
    return _round_up(int(words[0]), int(words[1]))


def _cpu_quota_v1(folder: Path) -> int | None:
    """Cores by `cpu.cfs_quota_us` over `cpu.cfs_period_us`; None without a limit (-1)."""
    quota, period = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    if quota is None or period is None or quota <= 0 or period <= 0:
        return None
    return _round_up(quota, period)


def _round_up(quota: int, period: int) -> int:
    return -(-quota // period)


def _number(file: Path) -> int | None:
    """The number in a file of one word; None where there is no such file or it holds a word ("max")."""
    word = "".join(_lines(file)).strip()
    return int(word) if word.lstrip("-").isdecimal() else None


def _lines(file: Path) -> list[str]:
    """The lines of a small file; none where it is missing or closed to us, which is how no limit looks."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
