"""The targets, judged on figures known by hand, and the page that tells them; nothing is timed here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.lab.language.artefacts import (
    FP32,
    GENAI,
    GENAI_G128,
    INT4,
    INT4_G128,
    INT4_ONE,
    INT8,
    PYTORCH,
    Artefacts,
)
from benchmarks.lab.language.language_models import main, measured, prepared
from benchmarks.lab.language.page import MARKERS, page, place
from benchmarks.lab.language.results import Result, targets
from edgetune.benchmarks.stepwise.figures import RaceFigures, SideFigures
from edgetune.benchmarks.stepwise.recipe import GenerationBenchmarkRecipe
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.report import Machine, Memory

MACHINE = Machine(
    cpu="a CPU", cores=2, threads=1, isa=["avx2"], gpu=None, os="Linux", memory_bytes=None, versions={"torch": "2.13"}
)


def figures(name: str, step: list[float], **settings: object) -> SideFigures:
    """A side that decodes with these ms a step at batch 1; megabytes of file and peak as said."""
    size, peak = settings.pop("size", 100), settings.pop("peak", 100)
    return SideFigures(
        side=name,
        first_ms={16: step},
        step_ms={1: step, 4: step},
        memory=Memory(rss_peak_bytes=peak * 10**6),
        size_bytes=size * 10**6,
        cold_start_ms=[70.0],
        **settings,
    )


def result(*sides: SideFigures, size: str = "60M", **reasons: str) -> Result:
    return Result(
        size=size,
        artefacts=Artefacts(family="Llama", parameters=62_000_000, reasons=reasons, coverage={INT4: "42 matrices"}),
        race=RaceFigures(
            sides={one.side: one for one in sides},
            prompt_tokens=[16],
            batches=[1, 4],
            decode_prompt_tokens=16,
            new_tokens=64,
            rounds=3,
            threads=1,
        ),
        machine=MACHINE,
    )


NAMES = (FP32, INT4_G128, INT4, INT8, INT4_ONE, GENAI, GENAI_G128)
BASE = figures(PYTORCH, [20.0, 20.0, 20.0], size=240, peak=600, modules=["torch", "transformers"], answer=[1, 2, 3])
FULL = figures(FP32, [10.0, 10.0, 10.0], size=240, peak=340, answer=[1, 2, 3], modules=["onnxruntime"])
FAST = figures(INT4, [2.5, 2.5, 2.5], size=40, peak=150, modules=["onnxruntime"], answer=[1, 9, 9])
LEAN = figures(INT4_ONE, [4.0, 4.0, 4.0], size=41, peak=151, modules=["onnxruntime", "torch"])
COARSE = figures(INT4_G128, [2.0, 2.0, 2.0], size=32, peak=144, modules=["onnxruntime"])
OTHER = figures(GENAI, [2.0, 2.5, 3.0])
ALIKE = figures(GENAI_G128, [1.9, 1.9, 1.9])


def test_targets_reached_to_the_limit():
    found = targets(result(BASE, FULL, FAST, OTHER), INT4)
    assert [(one.measured, one.verdict()) for one in found] == [
        ("8.00 times (8.00 to 8.00)", "yes"),
        ("1.00 times (0.80 to 1.20)", "yes"),
        ("1.00 times (0.80 to 1.20)", "yes"),
        ("0.167 (40 of 240 MB)", "yes"),
        ("0.250 (150 of 600 MB)", "yes"),
        ("none of them", "yes"),
    ]
    # The rounds of the two overlap: the median is on the right side, the interval on both.
    assert [one.remark for one in found] == ["", *2 * ["the interval holds both answers"], "", "", ""]


def test_groups_of_128_race_against_the_default_and_against_their_like():
    found = targets(result(BASE, COARSE, OTHER, ALIKE), INT4_G128)
    assert [(one.measured, one.verdict()) for one in found[1:3]] == [
        ("1.25 times (1.00 to 1.50)", "yes"),
        ("0.95 times (0.95 to 0.95)", "**no**"),
    ]
    assert "default" in found[1].figure
    assert "equal blocks" in found[2].figure


def test_targets_missed_stay_with_their_figures():
    found = targets(result(BASE, LEAN, OTHER, ALIKE), INT4_ONE)
    assert [(one.measured, one.verdict()) for one in found] == [
        ("5.00 times (5.00 to 5.00)", "**no**"),
        ("0.62 times (0.50 to 0.75)", "**no**"),
        ("0.47 times (0.47 to 0.47)", "**no**"),
        ("0.171 (41 of 240 MB)", "**no**"),
        ("0.252 (151 of 600 MB)", "**no**"),
        ("with torch", "**no**"),
    ]


def test_what_did_not_run_is_neither_reached_nor_missed():
    ended = SideFigures(side=INT4, reason="killed")
    found = targets(result(BASE, ended, **{GENAI: "not supported"}), INT4)
    assert [one.reached for one in found] == [None] * 6
    assert {one.verdict() for one in found} == {"not measured"}
    assert found[1].remark == "not supported"


def test_the_page_tells_every_figure_and_every_gap():
    ended = figures(INT8, [3.0], reason="it was killed")
    text = page(
        [result(BASE, FULL, FAST, ended, **{GENAI: "not supported", INT4_ONE: "no graph"})], ["Beside a build."]
    )
    assert text.startswith(MARKERS.start)
    assert text.rstrip().endswith(MARKERS.end)
    assert "Beside a build." in text
    assert "were never trained" in text
    told = "| Llama, 60M | tokens a second at batch 1, against PyTorch fp32 | at least 6 times |"
    assert f"{told}  | not measured | 8.00 times" in text
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    # 64 tokens were asked of each; batch 4 counts all its rows; of what is quantized no agreement is told.
    assert lines[PYTORCH].split(" | ")[1:] == [
        "240", "20.0", "50.0", "200.0", "1.00 (1.00 to 1.00)", "600", "", "70", "3 of 3 |"
    ]  # fmt: skip
    assert lines[FP32].endswith("| 3 of 3 |")
    assert lines[INT4].endswith("| 70 |  |")
    assert INT8 not in lines
    for gap in (f"{INT8}: it was killed", f"{GENAI}: not supported", f"{INT4_ONE}: no graph"):
        assert f"- Llama, 60M, {gap}" in text
    assert "In the files: int4: 42 matrices." in text


def test_the_page_keeps_what_stands_around_the_table(tmp_path):
    path = tmp_path / "language-models.md"
    place(path, page([result(BASE)], []))
    path.write_text("# Ours\n\nBefore.\n\n" + path.read_text().partition("\n\n")[2] + "After.\n")
    place(path, page([result(BASE, FAST)], []))
    once = path.read_text()
    place(path, page([result(BASE, FAST)], []))
    assert path.read_text() == once
    assert once.startswith("# Ours\n\nBefore.\n\n" + MARKERS.start)
    assert once.endswith(MARKERS.end + "\nAfter.\n")
    assert once.count(MARKERS.start) == 1
    assert "8.00 times" in once


def test_results_in_the_work_folder_are_not_measured_again(tmp_path):
    kept = result(BASE, FAST, OTHER)
    for family in ("llama-60M", "gpt-2-60M"):
        (tmp_path / "work" / family).mkdir(parents=True)
        kept.save(tmp_path / "work" / family / "result.json")
    assert Result.open(tmp_path / "work" / "llama-60M" / "result.json") == kept
    page_file = tmp_path / "page.md"
    said = ["--only", "Llama", "--only", "GPT-2", "--work", str(tmp_path / "work"), "--markdown", str(page_file)]
    ran = CliRunner().invoke(main, said)
    assert (ran.exit_code, ran.output) == (0, "")
    assert page_file.read_text().count("8.00 times (8.00 to 8.00)") == 2
    # What was not asked for this time, but measured before, stays on the page.
    (tmp_path / "work" / "phi-500M").mkdir()
    result(BASE, FAST, size="500M").save(tmp_path / "work" / "phi-500M" / "result.json")
    assert CliRunner().invoke(main, said[2:]).exit_code == 0
    assert page_file.read_text().count("8.00 times (8.00 to 8.00)") == 3
    assert "| Llama, 500M |" in page_file.read_text()


def test_a_family_that_cannot_be_made_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(command, **settings):
        return subprocess.CompletedProcess(command, 137, "", "loading\nKilled\n")

    monkeypatch.setattr("benchmarks.lab.language.language_models.subprocess.run", broken)
    with pytest.raises(EdgetuneError, match="making it ended with 137: Killed"):
        prepared("Phi", "500M", tmp_path / "phi-500M")
    (tmp_path / "llama-60M").mkdir()
    result(BASE, FAST).save(tmp_path / "llama-60M" / "result.json")
    ran = CliRunner().invoke(main, ["--only", "Phi", "--only", "Llama", "--work", str(tmp_path)])
    assert ran.exit_code == 0
    assert "**Phi, 60M, failed**: making it ended with 137: Killed" in ran.output
    assert "| Llama, 60M |" in ran.output


@pytest.mark.parametrize("keep", [False, True])
def test_models_are_thrown_away_when_their_figures_are_kept(tmp_path: Path, monkeypatch, keep):
    folder = tmp_path / "llama-60M"
    made = Artefacts(family="Llama", parameters=1, reasons=dict.fromkeys(NAMES, "no"))
    (folder / "model").mkdir(parents=True)
    (folder / "artefacts.json").write_bytes(msgspec.json.encode(made))
    raced = result(BASE).race
    monkeypatch.setattr("benchmarks.lab.language.language_models.race", lambda *_: raced)
    recipe = GenerationBenchmarkRecipe(threads=1)
    found = measured("Llama", "60M", folder, recipe, keep=keep)
    assert (found.race, found.artefacts, found.size) == (raced, made, "60M")
    assert found.machine.threads == 1
    names = sorted(one.name for one in folder.iterdir())
    assert names == (["artefacts.json", "model", "result.json"] if keep else ["result.json"])
    assert measured("Llama", "60M", folder, recipe) == found
