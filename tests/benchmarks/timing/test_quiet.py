"""The verdict on a machine's quiet, from made-up samples and counters that are known by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgetune.benchmarks.timing.blocks import TimedBlocks
from edgetune.benchmarks.timing.load import LoadMeter
from edgetune.benchmarks.timing.quiet import Conditions, TimingVerdict, judge_timing

STEADY = {"base": [[7.0] * 20] * 10, "bundle": [[1.0] * 20] * 10}


def conditions(**known: object) -> Conditions:
    """A quiet machine of two cores, but for what is named."""
    quiet = {
        "blocks": STEADY,
        "cpu_share": {"base": 1.4, "bundle": 1.0},
        "others_cores": 0.1,
        "cores": 2,
        "threads": 2,
        "noise_ci95": [0.98, 1.03],
    }
    return Conditions(**{**quiet, **known})


def remark(**known: object) -> str:
    verdict = judge_timing(conditions(**known))
    assert verdict.valid == (verdict.remark == "")
    return verdict.remark


def test_a_quiet_machine_has_no_remark():
    assert judge_timing(conditions()) == TimingVerdict(True, "")


def test_what_is_not_known_is_not_held_against_the_machine():
    assert judge_timing(conditions(blocks={}, cpu_share={}, others_cores=None, noise_ci95=None)).valid


def test_the_busy_machine_whose_ratio_looked_sure():
    # 18,994 times faster, interval 18,305 to 19,625: the same in every block, so the ratio itself shows nothing.
    slow = {"base": [[5_698.2] * 20] * 10, "bundle": [[0.3] * 20] * 10}
    assert judge_timing(conditions(blocks=slow)).valid
    assert remark(blocks=slow, cpu_share={"base": 0.31, "bundle": 1.0}, others_cores=1.6) == (
        "The machine was too busy to judge speed: the base got a processor for 31% of the time that its calls took; "
        "other programs took 1.6 of 2 cores while 2 threads were timed."
    )


@pytest.mark.parametrize(
    ("others", "cores", "threads", "valid"),
    [
        (0.4, 2, 2, True),
        (0.6, 2, 2, False),  # more than half a core of two
        (1.0, 2, 1, True),  # one thread still has a core of its own
        (1.5, 2, 1, False),
        (30.0, 64, 16, True),
        (60.0, 64, 16, False),
    ],
)
def test_others_may_take_what_the_threads_leave(others: float, cores: int, threads: int, valid: bool):
    assert judge_timing(conditions(others_cores=others, cores=cores, threads=threads)).valid is valid


@pytest.mark.parametrize(
    ("interval", "valid"),
    [
        ([1.0, 1.0], True),
        ([1.04, 1.09], True),  # beside 1, but by no more than two processes of one program may differ
        ([1.2, 1.3], False),
        ([0.7, 0.8], False),
        ([0.8, 1.15], True),
        ([0.6, 1.4], False),  # holds 1, but says nothing
    ],
)
def test_a_bundle_is_as_fast_as_its_copy(interval: list[float], valid: bool):
    assert judge_timing(conditions(noise_ci95=interval)).valid is valid


def test_longer_texts_are_no_noise_but_one_side_alone_is():
    longer = [[1.0] * 20, [9.0] * 20] * 5
    assert judge_timing(conditions(blocks={"base": longer, "bundle": longer})).valid
    assert "blocks of the bundle differed 3.0 times" in remark(blocks={"base": STEADY["base"], "bundle": longer})
    # One block of ten that was disturbed is an accident.
    once = [[1.0] * 20] * 9 + [[9.0] * 20]
    assert judge_timing(conditions(blocks={"base": STEADY["base"], "bundle": once})).valid
    assert judge_timing(conditions(blocks={"bundle": longer})).valid  # nothing to hold it against


def write_counters(proc: Path, busy: int, own: dict[int, int]) -> None:
    """Counters in ticks: of every processor together, and of the watched processes."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    lines = ["cpu  9 9 9 9 9 9 9 9 9 9", *(f"cpu{core} 0 0 0 5000 70 0 0 0 0 0" for core in cores[1:])]
    lines.append(f"cpu{cores[0]} {busy} 0 0 5000 70 0 0 0 40 0")
    lines.append("cpu99999 88888 0 0 0 0 0 0 0 0 0")  # one that this process may not use
    (proc / "stat").write_text("\n".join([*lines, "ctxt 1"]))
    for process, ticks in own.items():
        (proc / str(process)).mkdir(exist_ok=True)
        (proc / str(process) / "stat").write_text(f"{process} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0")


def test_others_are_all_work_but_that_of_the_watched(tmp_path: Path):
    ticks, me = os.sysconf("SC_CLK_TCK"), os.getpid()
    moments = iter([100.0, 110.0])
    write_counters(tmp_path, 1000 * ticks, {me: 5 * ticks, 7: 50 * ticks})
    meter = LoadMeter([7], tmp_path, lambda: next(moments))
    # In ten seconds 20 s of work, 12 of them by process 7 and 2 by this one.
    write_counters(tmp_path, 1020 * ticks, {me: 7 * ticks, 7: 62 * ticks})
    assert meter.others() == pytest.approx(0.6)


def test_counters_that_never_move_are_not_known(tmp_path: Path):
    moments = iter([100.0, 110.0])
    write_counters(tmp_path, 1000, {os.getpid(): 5})
    meter = LoadMeter([], tmp_path, lambda: next(moments))
    assert meter.others() is None


def test_without_proc_the_load_average_stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 9.0, 9.0), raising=False)
    assert LoadMeter([7], tmp_path / "none").others() == pytest.approx(1.5)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.5, 9.0, 9.0), raising=False)
    assert LoadMeter([7], tmp_path / "none").others() == 0.0

    def unknown():
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown, raising=False)
    assert LoadMeter([7], tmp_path / "none").others() is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the kernel's counters are Linux's")
def test_a_real_burner_is_seen_unless_it_is_watched():
    """The burner works until it has taken half a second of processor time, however busy the machine is."""
    burn = (
        "import time, sys\nsys.stdin.readline()\nend = time.process_time() + 0.5\n"
        "while time.process_time() < end: pass\nprint('done', flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as burner:
        start = time.perf_counter()
        watching, blind = LoadMeter([burner.pid]), LoadMeter([])
        burner.stdin.write(b"go\n")
        burner.stdin.flush()
        assert burner.stdout.readline() == b"done\n"
        seen, rest = blind.others(), watching.others()
        wall = time.perf_counter() - start
        burner.stdin.close()
    if seen is not None and rest is not None:  # some containers' counters never move
        assert seen * wall > 0.2
        assert rest < seen


def test_the_blocks_of_a_cascade_differ_by_how_many_texts_are_easy():
    uneven = [[0.05] * 15 + [2.0] * 5, [0.05] * 5 + [2.0] * 15] * 5
    ms = {**STEADY, "cascade": uneven}
    known = {"answers": {}, "cpu_share": {}, "others_cores": 0.0, "threads": 1}
    assert "blocks of the cascade differed" in TimedBlocks(ms, **known).verdict().remark
    assert TimedBlocks(ms, **known, cascades=frozenset({"cascade"})).verdict() == TimingVerdict(True)
