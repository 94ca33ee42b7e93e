"""The cores and memory that a process may use, read from made-up /proc and cgroup trees."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetune.serve import cores
from edgetune.serve.cores import usable_cores, usable_memory_bytes

GIB = 2**30
V1_NO_LIMIT = 9223372036854771712


@dataclass(frozen=True)
class FakeSystem:
    """A /proc of a machine with 16 GiB, and the place where its cgroup files lie."""

    proc: Path
    cgroup: Path

    def mount(self, *lines: str) -> None:
        """Write mountinfo lines, in which CGROUP stands for the cgroup folder."""
        text = "".join(line.replace("CGROUP", str(self.cgroup)) + "\n" for line in lines)
        (self.proc / "self" / "mountinfo").write_text(text)

    def group(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("\n".join(lines) + "\n")

    def write(self, path: str, text: str) -> None:
        file = self.cgroup / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    monkeypatch.setattr(cores, "affinity_cores", lambda: 8)
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal:       {16 * GIB // 1024} kB\nMemFree:        1 kB\n")
    return FakeSystem(proc=proc, cgroup=tmp_path / "cgroup")


def mount_v2(system: FakeSystem, root: str = "/") -> None:
    system.mount(
        "23 1 0:2 / / rw,relatime - ext4 /dev/vda rw",
        f"31 23 0:28 {root} CGROUP ro,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate",
    )


def mount_v1(system: FakeSystem, root: str = "/") -> None:
    system.mount(
        f"32 31 0:29 {root} CGROUP/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct",
        f"35 31 0:32 {root} CGROUP/memory rw,relatime - cgroup cgroup rw,memory",
        "41 31 0:38 / CGROUP/unified rw,relatime - cgroup2 cgroup2 rw",
    )


def test_without_cgroups_the_affinity_mask_and_the_machine_count(system: FakeSystem) -> None:
    assert usable_cores(system.proc) == 8
    assert usable_memory_bytes(system.proc) == 16 * GIB


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", 8),
        ("400000 100000", 4),
        ("150000 100000", 2),  # a core and a half: two threads keep it busy
        ("10000 100000", 1),
        ("3200000 100000", 8),  # more than the mask allows
    ],
)
def test_v2_quota_is_rounded_up_and_cut_by_the_mask(system: FakeSystem, cpu_max: str, expected: int) -> None:
    mount_v2(system)
    system.group("0::/")
    system.write("cpu.max", cpu_max)
    assert usable_cores(system.proc) == expected


def test_v2_limits_of_every_ancestor_hold(system: FakeSystem) -> None:
    mount_v2(system)
    system.group("0::/kubepods/pod1/box")
    system.write("kubepods/pod1/box/cpu.max", "max 100000")
    system.write("kubepods/pod1/cpu.max", "200000 100000")
    system.write("kubepods/cpu.max", "600000 100000")
    system.write("kubepods/pod1/box/memory.max", "max")
    system.write("kubepods/pod1/memory.max", str(3 * GIB))
    assert usable_cores(system.proc) == 2
    assert usable_memory_bytes(system.proc) == 3 * GIB


def test_limits_of_a_neighbour_do_not_count(system: FakeSystem) -> None:
    mount_v2(system)
    system.group("0::/mine")
    system.write("mine/cpu.max", "max 100000")
    system.write("theirs/cpu.max", "100000 100000")
    assert usable_cores(system.proc) == 8


@pytest.mark.parametrize("path", ["/docker/abc", "/../..", "/not/mounted/here"])
def test_the_mount_point_counts_where_the_path_is_the_hosts(system: FakeSystem, path: str) -> None:
    mount_v2(system, root="/docker/abc" if path == "/docker/abc" else "/")
    system.group(f"0::{path}")
    system.write("cpu.max", "300000 100000")
    system.write("memory.max", str(GIB))
    assert usable_cores(system.proc) == 3
    assert usable_memory_bytes(system.proc) == GIB


def test_a_group_below_a_container_whose_own_part_is_mounted(system: FakeSystem) -> None:
    mount_v2(system, root="/docker/abc")
    system.group("0::/docker/abc/job")
    system.write("cpu.max", "500000 100000")
    system.write("job/cpu.max", "200000 100000")
    assert usable_cores(system.proc) == 2


def test_v1_quota_and_memory_limit(system: FakeSystem) -> None:
    mount_v1(system, root="/docker/abc")
    system.group("4:memory:/docker/abc", "3:cpu,cpuacct:/docker/abc", "0::/")
    system.write("cpu,cpuacct/cpu.cfs_quota_us", "250000")
    system.write("cpu,cpuacct/cpu.cfs_period_us", "100000")
    system.write("memory/memory.limit_in_bytes", str(2 * GIB))
    assert usable_cores(system.proc) == 3
    assert usable_memory_bytes(system.proc) == 2 * GIB


def test_v1_without_limits(system: FakeSystem) -> None:
    mount_v1(system)
    system.group("4:memory:/box", "3:cpu,cpuacct:/", "0::/")
    system.write("cpu,cpuacct/cpu.cfs_quota_us", "-1")
    system.write("cpu,cpuacct/cpu.cfs_period_us", "100000")
    system.write("memory/box/memory.limit_in_bytes", str(V1_NO_LIMIT))
    assert usable_cores(system.proc) == 8
    assert usable_memory_bytes(system.proc) == 16 * GIB


def test_memory_falls_back_on_sysconf_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert usable_memory_bytes(tmp_path) == 4096 * 1000


def test_memory_is_unknown_where_the_system_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf_names", {})
    assert usable_memory_bytes(tmp_path) is None


def test_without_an_affinity_mask_all_cores_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
    assert cores.affinity_cores() == 5
    monkeypatch.setattr(os, "process_cpu_count", lambda: None)
    assert cores.affinity_cores() == 1


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity mask on this system")
def test_this_process_never_gets_more_than_its_mask() -> None:
    assert 1 <= usable_cores() <= len(os.sched_getaffinity(0))


def test_this_machine_has_memory() -> None:
    memory = usable_memory_bytes()
    assert memory is not None
    assert memory > 100 * 2**20
