"""The stages alone stop where they say, and a later command keeps what is finished; what changed is made again."""

import json
import os
import shutil

import pytest

from edgetune.tune.seal import begin
from edgetune.work import locked

STAGES = ["data", "tune", "export", "compress", "bench"]


def states(work):
    """When each stage's files were written, and its entry in stages.json."""
    record = json.loads((work / "stages.json").read_text(encoding="utf-8"))
    times = {
        name: {str(path.relative_to(work)): path.stat().st_mtime_ns for path in (work / name).rglob("*")}
        for name in STAGES
        if (work / name).is_dir()
    }
    return {name: (record.get(name), times.get(name)) for name in STAGES}


def kept(ended):
    """The stages that were kept, and those that ran, by the lines."""
    lines = [line.split() for line in ended.out.splitlines() if line.startswith("✓")]
    return [words[1] for words in lines if words[2] == "kept"], [words[1] for words in lines if words[2] != "kept"]


def test_a_second_identical_build_changes_nothing_but_the_pack(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    work, bundle = tmp_path / "bundle.work", tmp_path / "bundle"
    before, contents = states(work), {path.name: path.read_bytes() for path in bundle.iterdir()}
    ended = edgetune("build", *arguments)
    assert ended.code == 0, ended
    assert kept(ended) == (STAGES, ["pack"])
    assert states(work) == before
    assert {path.name for path in bundle.iterdir()} == set(contents)
    changed = [name for name, content in contents.items() if (bundle / name).read_bytes() != content]
    # The recipe is written with its output, which lies elsewhere in this test; the manifest has its digest.
    # So has the bill of materials the time of packing.
    assert set(changed) <= {"recipe.yaml", "manifest.json", "sbom.cdx.json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "stage"),
    [
        ("seed=5", "data"),
        ("tune.class_weights=balanced", "tune"),
        ("compress.schemes=[fp32]", "compress"),
    ],
)
def test_a_changed_section_makes_its_stage_again_and_those_after_it(edgetune, workshop, tmp_path, setting, stage):
    arguments = workshop.copy(tmp_path)
    work = tmp_path / "bundle.work"
    before = states(work)
    command = "compress" if stage == "compress" else "tune"
    ended = edgetune(command, *arguments, "--set", setting)
    assert ended.code == 0, ended
    first = STAGES.index(stage)
    assert kept(ended) == (STAGES[:first], STAGES[first : STAGES.index(command) + 1])
    after = states(work)
    for name in STAGES[:first]:
        assert after[name] == before[name]
    assert after[stage][0]["digest"] != before[stage][0]["digest"]


def test_the_same_rows_in_another_file_or_at_another_time_are_read_again_and_not_tuned_again(
    edgetune, workshop, tmp_path
):
    arguments = workshop.copy(tmp_path)
    elsewhere = shutil.copy(workshop.data, tmp_path / "toy.csv")
    ended = edgetune("tune", *arguments, "--data", elsewhere)
    assert ended.code == 0, ended
    assert kept(ended) == (["tune"], ["data"])
    os.utime(elsewhere, (1, 1))
    assert kept(edgetune("tune", *arguments, "--data", elsewhere)) == (["tune"], ["data"])
    rows = elsewhere.read_text(encoding="utf-8").splitlines(keepends=True)
    elsewhere.write_text("".join(rows[:-1]), encoding="utf-8")
    assert kept(edgetune("tune", *arguments, "--data", elsewhere)) == ([], ["data", "tune"])


def test_a_project_that_moved_goes_on_where_it_was(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    shutil.copy(workshop.data, tmp_path / "toy.csv")
    shutil.copytree(workshop.base, tmp_path / "base")
    ended = edgetune("build", *arguments, "--base", tmp_path / "base", "--data", tmp_path / "toy.csv")
    assert ended.code == 0, ended
    assert kept(ended) == (STAGES[1:], ["data", "pack"])
    assert edgetune("verify", tmp_path / "bundle").code == 0


@pytest.mark.parametrize(
    ("stage", "file", "damage"),
    [
        ("data", "dataset.json", "cut"),
        ("tune", "model/model.safetensors", "flip"),
        ("export", "model.onnx", "remove"),
    ],
)
def test_a_damaged_stage_is_made_again(edgetune, workshop, tmp_path, stage, file, damage):
    arguments = workshop.copy(tmp_path)
    path = tmp_path / "bundle.work" / stage / file
    content = path.read_bytes()
    cut = len(content) // 2
    damaged = {
        "flip": content[:cut] + bytes([content[cut] ^ 1]) + content[cut + 1 :],
        "cut": content[:cut],
        "remove": None,
    }[damage]
    path.unlink() if damaged is None else path.write_bytes(damaged)
    ended = edgetune("export", *arguments)
    assert ended.code == 0, ended
    before = STAGES[: STAGES.index(stage)]
    assert kept(ended)[0][: len(before)] == before
    assert kept(ended)[1][0] == stage
    assert path.read_bytes() == content
    # What stands behind is made again only where the result is another, as of a tuning that took other seconds.
    assert (kept(ended)[1] == ["data"]) == (stage == "data")


def test_fresh_makes_everything_again(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    work = tmp_path / "bundle.work"
    ended = edgetune("tune", *arguments, "--fresh")
    assert ended.code == 0, ended
    assert kept(ended) == ([], ["data", "tune"])
    # What comes after is forgotten too.
    assert {path.name for path in work.iterdir()} == {
        *("data", "tune", "stages.json", "plan.json", "build.log", "build.lock")
    }


def test_a_stage_whose_files_are_of_other_settings_is_not_taken_for_finished(edgetune, workshop, tmp_path):
    """As when a build with other settings was killed between its renaming and its note."""
    arguments = workshop.copy(tmp_path)
    begin(tmp_path / "bundle.work" / "compress", "another")
    ended = edgetune("compress", *arguments)
    assert kept(ended) == (["data", "tune", "export"], ["compress"])


def test_a_torn_record_only_means_that_stages_run_again(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    (tmp_path / "bundle.work" / "stages.json").write_text('{"data": {"dig', encoding="utf-8")
    ended = edgetune("tune", *arguments)
    assert ended.code == 0, ended
    assert kept(ended) == ([], ["data", "tune"])


def test_two_builds_never_share_a_work_folder(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    work = tmp_path / "bundle.work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.name != "build.log"}
    with locked(work):
        ended = edgetune("tune", *arguments, "--fresh")
        other = edgetune("tune", *workshop.there(tmp_path / "elsewhere"))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        f"Error: Another build is working in {work}.\nExpected: one build at a time in a work folder\n"
        "To do: wait until it has ended, or choose another --out\n"
    )
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.name != "build.log"} == before
    assert other.code == 0
    assert kept(edgetune("tune", *arguments)) == (["data", "tune"], [])  # the lock went with the build that held it


def test_a_lock_ends_with_its_process(edgetune, started, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    work = tmp_path / "bundle.work"
    holding = (
        "import sys, time; from pathlib import Path; from edgetune.work import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('locked', flush=True); time.sleep(300)"
    )
    process = started(work, driver=holding)
    assert process.stdout.readline() == "locked\n"
    assert edgetune("tune", *arguments).code == 1
    process.kill()
    process.wait()
    assert edgetune("tune", *arguments).code == 0
