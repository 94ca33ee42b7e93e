"""The GPU benchmark on a CPU: its parts by hand, the whole script on a tiny model, and what it says without a GPU."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from benchmarks.lab import gpu_contestant, performance_gpu
from benchmarks.lab.gpu_contestant import BoundForward, answer, filled, session_forward, time_calls, torch_forward
from benchmarks.lab.gpu_race import (
    KINDS,
    REFERENCE,
    SHAPES,
    Measured,
    Workload,
    agreement,
    faster,
    measure_memory,
    race,
    time_block,
)
from benchmarks.lab.performance_gpu import check_device, main, measure, page, pairs, would_measure
from edgetune.benchmarks.timing.machine import Gpu, describe_machine
from edgetune.benchmarks.timing.side import ContestantProcess
from edgetune.serve.errors import ProviderError
from edgetune.tune.training.progress import Silent

ROWS = [[2, 11, 12, 3], [2, 21, 3], [2, 31, 32, 33, 34, 3]]


def counting(ids, mask):
    """Logits of a model that counts: real tokens, and the sum of their ids."""
    return np.stack([mask.sum(1), (ids * mask).sum(1)], axis=1).astype(np.float32)


def test_an_input_is_laid_out_of_real_ids_end_to_end():
    ids, mask = filled(ROWS, 2, 8)
    assert ids.tolist() == [[2, 11, 12, 3, 2, 21, 3, 2], [31, 32, 33, 34, 3, 2, 11, 12]]
    assert mask.tolist() == [[1] * 8] * 2
    assert ids.dtype == mask.dtype == np.int64


def test_answers_come_in_the_order_of_the_rows_from_the_shapes_that_are_timed():
    seen = []

    def forward(ids, mask):
        seen.append(ids.shape)
        assert (ids[mask == 0] == 9).all()
        assert (mask.sum(1) > 0).all()
        return counting(ids, mask)

    logits = answer(forward, ROWS, [(1, 4), (2, 4), (1, 8), (2, 8)], pad=9)
    assert logits == [[4.0, 28.0], [3.0, 26.0], [6.0, 135.0]]
    assert seen == [(2, 4), (2, 8)]


def test_calls_that_warm_up_are_not_counted(monkeypatch):
    monkeypatch.setattr(gpu_contestant, "WARM_MS", 0)
    calls = []
    times = time_calls(lambda *inputs: calls.append(inputs), *filled(ROWS, 1, 4), 5)
    assert (len(times), len(calls)) == (5, 5 + gpu_contestant.WARM_CALLS)
    assert min(times) >= 0


def test_bound_buffers_answer_as_a_plain_session_shape_after_shape(tiny_material):
    graph = tiny_material("bert")[1]
    plain, bound = session_forward(graph, "cpu"), BoundForward(graph, "cpu", 4)
    shapes = [(2, 8), (1, 16), (2, 8)]
    inputs = [filled([row[place:] for row in ROWS], *shape) for place, shape in enumerate(shapes)]
    found = [bound(*one) for one in inputs]
    for one, logits in zip(inputs, found, strict=True):
        np.testing.assert_array_equal(logits, plain(*one))
    # The third call filled the first one's buffers anew, and what the first gave is still its own.
    assert bound.shapes == 2
    assert not np.array_equal(found[0], found[2])


def test_pytorch_in_another_type_is_really_in_it(tiny_material):
    model = tiny_material("bert")[0].model.model_folder
    inputs = filled(ROWS, 2, 8)
    exact, half = (torch_forward(model, dtype, "cpu")(*inputs) for dtype in ("float32", "bfloat16"))
    assert exact.shape == half.shape == (2, 4)
    assert half.dtype == np.float32
    assert 0 < np.abs(exact - half).max() < 0.1 * np.abs(exact).max()
    np.testing.assert_array_equal(half.view(np.uint32) & 0xFFFF, 0)  # bf16 leaves the lower half of a float32 empty


def test_ratios_and_agreement_by_hand():
    shape = (1, 16)
    slow, fast = Measured(blocks={shape: [[4.0] * 20] * 2}), Measured(blocks={shape: [[2.0] * 20] * 2})
    assert faster(fast, slow, shape) == (2.0, 2.0, 2.0)
    assert faster(fast, slow, (8, 16)) is None
    slow.logits, fast.logits = [[1.0, 0.0], [0.0, 1.0]], [[1.5, 0.0], [1.0, 0.75]]
    assert agreement(fast, slow) == (0.5, 1.0)
    fast.logits = [[1.5, 0.0], [float("nan"), 1.0]]
    assert agreement(fast, slow) == (0.5, float("inf"))
    assert agreement(Measured(), slow) is None


def test_without_a_gpu_it_says_what_it_would_measure(monkeypatch, tmp_path):
    monkeypatch.setattr(performance_gpu, "find_gpu", lambda: None)
    found = CliRunner().invoke(main, ["--work", str(tmp_path), "--markdown", str(tmp_path / "page.md")])
    assert found.exit_code == 1
    assert "no NVIDIA GPU" in found.stderr
    assert would_measure() in found.stderr
    assert all(name in found.stderr for name in KINDS)
    assert "batches of 1, 8 and 32 texts by 16, 64 and 128 tokens" in found.stderr
    assert not (tmp_path / "page.md").exists()


def test_a_gpu_that_torch_cannot_use_is_told_apart(monkeypatch):
    import torch

    monkeypatch.setattr(performance_gpu, "find_gpu", lambda: Gpu("NVIDIA X", 1, 1))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ProviderError, match="torch cannot use it"):
        check_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_device("cuda")


def test_a_missing_work_folder_is_an_error_of_the_tool(tmp_path):
    found = CliRunner().invoke(main, ["--work", str(tmp_path), "--device", "cpu"])
    assert found.exit_code == 1
    assert found.stderr.startswith("Error: ")


def test_a_side_is_described_to_its_process(tmp_path):
    workload = Workload(
        "cuda", tmp_path, {"fp16": tmp_path / "h" / "model.onnx"}, {"bf16": "no"}, tmp_path, 4, 0, SHAPES
    )
    command = workload.side("fused fp16, CUDA graphs").command("")
    settings = json.loads(command[-1])
    assert command[:4] == [sys.executable, "-m", "benchmarks.lab.gpu_contestant", "--side"]
    assert (settings["captured"], settings["device"], settings["runtime"]) == (True, "cuda", "onnx")
    assert settings["graph"] == str(tmp_path / "h" / "model.onnx")
    assert [workload.absent(name) for name in KINDS] == ["", "", "", "", "", "no"]


@pytest.mark.slow
def test_a_side_that_does_not_open_keeps_its_reason_and_the_others_go_on(tiny_material, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.lab.gpu_race.KINDS", {one: KINDS[one] for one in ("fused fp16", REFERENCE)})
    material = tiny_material("bert")[0]
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    model = material.model.model_folder
    workload = Workload("cpu", model, {"fp16": tmp_path / "broken.onnx"}, {}, rows, 4, 0, [(1, 8)])
    found = race(workload, samples=20)
    assert "cannot open" in found["fused fp16"].reason
    assert (found["fused fp16"].blocks, found["fused fp16"].logits) == ({}, None)
    assert [len(block) for block in found[REFERENCE].blocks[1, 8]] == [20]
    assert np.asarray(found[REFERENCE].logits).shape == (3, 4)
    assert found[REFERENCE].torch_peak_bytes is found[REFERENCE].device_rise_bytes is None


def test_memory_is_the_rise_while_one_side_ran_every_shape(tiny_material, tmp_path, monkeypatch):
    material, graph = tiny_material("bert")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    model = material.model.model_folder
    workload = Workload("cpu", model, {"fp16": graph, "bf16": tmp_path / "none.onnx"}, {}, rows, 4, 0, [(1, 8), (2, 8)])
    used = iter([1000, 1250, 1000])
    monkeypatch.setattr("benchmarks.lab.gpu_race.settled_memory_used", lambda: next(used))
    found, absent = Measured(), Measured()
    measure_memory(workload, "fused fp16", found)
    measure_memory(workload, "fused bf16", absent)
    # A side in ONNX Runtime has no torch, whose counter would say nothing of its memory.
    assert (found.device_rise_bytes, found.torch_peak_bytes, found.reason) == (250, None, "")
    assert (absent.device_rise_bytes, absent.torch_peak_bytes) == (None, None)
    assert "none.onnx" in absent.reason


def test_a_side_that_ends_on_the_way_leaves_the_race_with_its_reason(tiny_material, tmp_path):
    material, graph = tiny_material("bert")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps(ROWS))
    workload = Workload("cpu", material.model.model_folder, {"fp16": graph}, {}, rows, 4, 0, [(1, 8)])
    name, measured = "fused fp16", {"fused fp16": Measured()}
    with ContestantProcess(workload.side(name), "") as process:
        running = {name: process}
        time_block(running, measured, (1, 8))
        time_block(running, measured, (1, 4096))  # more tokens than the model has positions
        time_block(running, measured, (1, 8))
    assert running == {}
    assert [len(block) for block in measured[name].blocks[1, 8]] == [20]
    assert (1, 4096) not in measured[name].blocks
    assert "ended: " in measured[name].reason


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_script_runs_on_a_cpu(tiny_material, toy_dataset, tmp_path, monkeypatch):
    dataset, shapes = toy_dataset(), ((1, 16), (8, 64), (8, 128))
    monkeypatch.setattr(performance_gpu, "SHAPES", shapes)
    work = tmp_path / "x.work"
    shutil.copytree(tiny_material("bert")[0].model.folder, work / "tune")
    (work / "data").mkdir()
    dataset.save(work / "data")
    before = sorted(work.rglob("*"))
    text = measure(work, "cpu", 40, Silent())
    assert sorted(work.rglob("*")) == before
    assert "**No GPU was used: this is a trial of the script" in text
    assert "x; GPU: none used; " in text
    latency, ratios, sides = tables(text)
    assert list(latency) == ["1 x 16", "8 x 64", "8 x 128"]
    # fp32 and bf16 in PyTorch and the fp16 graph run on a CPU; 128 tokens are more than the model takes.
    measured = [name in (REFERENCE, "PyTorch bf16", "fused fp16") for name in KINDS]
    timed = r"\d+\.\d{3} \(\d+\.\d{3}\)"
    for shape in ("1 x 16", "8 x 64"):
        assert [bool(re.fullmatch(timed, cell)) for cell in latency[shape]] == measured
    assert latency["8 x 128"] == ["not measured"] * len(KINDS)
    assert [cell != "not measured" for cell in ratios["1 x 16"]] == [
        pair == ("fused fp16", "PyTorch bf16") for pair in pairs()
    ]
    assert all(row[:2] == ["not measured"] * 2 for row in sides.values())
    assert sides[REFERENCE][3:] == ["100.00%", "0", ""]
    assert sides["fused fp16"][2:4] == [sides[REFERENCE][2], "100.00%"]
    assert 0 < float(sides["fused fp16"][4]) < 0.01
    assert sides["fused bf16"] == ["not measured"] * 5 + ["needs a GPU"]


def tables(text):
    """The page's tables, each as the other cells by the first."""
    parts = [part.splitlines()[2:] for part in text.split("\n\n") if part.startswith("|")]
    rows = [[[cell.strip() for cell in line[1:-1].split("|")] for line in part] for part in parts]
    return [{cells[0]: cells[1:] for cells in part} for part in rows]


def test_the_page_names_machine_and_gpu(toy_dataset):
    machine = describe_machine(2)
    workload = Workload("cuda", Path("model"), {}, {}, Path("rows"), 4, 0, SHAPES)
    measured = {name: Measured() for name in KINDS}
    measured["fused fp16"].torch_peak_bytes = 12_300_000
    measured["fused bf16"].reason = "no | kernel\nfor it"
    text = page(replace(machine, gpu="NVIDIA X"), workload, measured, toy_dataset(), "banking77")
    assert f"banking77; GPU: NVIDIA X; {machine.cpu}, 2 cores; torch " in text
    assert "No GPU was used" not in text
    assert "| fused fp16 | 12 | not measured |" in text
    assert "| no \\| kernel for it |" in text
    assert " 0 |" not in text
