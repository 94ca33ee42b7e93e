"""A build that is killed at any moment continues with the same command, and never leaves half a bundle."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

STAGES = ["data", "tune", "export", "compress", "bench"]

# Kills its own process as SIGKILL does, at the n-th call of a function: no handler runs, no file is closed.
KILLED_AT = """
import importlib, os, signal, sys
module, _, name = {place!r}.rpartition(":")
holder = importlib.import_module(module)
*inner, name = name.split(".")
for part in inner:
    holder = getattr(holder, part)
function, calls = getattr(holder, name), []
def killed(*arguments, **options):
    calls.append(1)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*arguments, **options)
setattr(holder, name, killed)
from edgetune.cli import main
main()
"""


def record(work):
    return json.loads((work / "stages.json").read_text(encoding="utf-8"))


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "place", "call"),
    [
        ("data", "edgetune.tune.data.dataset:Dataset.save", 1),
        # Ctrl-C while training has its own test below, and a kill there tests/tune/training/test_training.py.
        pytest.param("tune", "edgetune.tune.tuning:TunedModel.save", 1, marks=pytest.mark.long),
        pytest.param("export", "edgetune.export.once.export:count_nodes", 1, marks=pytest.mark.long),
        pytest.param("compress", "edgetune.compress.candidate:Candidate.of", 2, marks=pytest.mark.long),
        pytest.param("bench", "edgetune.benchmarks.bench:race", 1, marks=pytest.mark.long),
    ],
)
def test_a_build_killed_in_a_stage_continues(cut, started, edgetune, workshop, tmp_path, stage, place, call):
    arguments = workshop.copy(tmp_path)
    shutil.rmtree(tmp_path / "bundle")
    work = tmp_path / "bundle.work"
    if stage == "data":
        shutil.rmtree(work)
    else:
        cut(work, STAGES[STAGES.index(stage) - 1])
        if stage == "compress":
            shutil.rmtree(work / "trials")  # else the search would find what it made, and make nothing
    done = {name: times(work / name) for name in STAGES[: STAGES.index(stage)]}
    before = record(work) if done else {}
    command = stage if stage != "data" else "tune"
    process = started(command, *arguments, driver=KILLED_AT.format(place=place, call=call))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (work / f"{stage}.part").is_dir()
    assert not (work / stage).exists()
    assert (record(work) if done else {}) == before
    ended = edgetune(command, *arguments)
    assert ended.code == 0, ended
    for name, entry in done.items():
        assert f"✓ {name:<9} kept" in ended.out
        assert times(work / name) == entry
        assert record(work)[name] == before[name]
    assert not list(work.glob("*.part"))
    # A stage's command stops at its stage, and a later one goes on from there.
    finished = STAGES[: STAGES.index(command) + 1]
    assert [name for name in STAGES if name in record(work)] == finished
    assert [name for name in STAGES if (work / name).exists()] == finished
    assert not (tmp_path / "bundle").exists()
    if stage != "bench":
        assert ended.out.endswith(f"Done up to {command}. The work folder is {work}.\n")
        assert json.loads(edgetune(command, *arguments, "--json").out)["stage"] == command
    if stage == "bench":  # what follows takes no time; that "compress" goes on from an export is its own case above
        made = {name: (record(work)[name], times(work / name)) for name in finished}
        later = edgetune("build", *arguments)
        assert later.code == 0, later
        assert all(f"✓ {name:<9} kept" in later.out for name in finished)
        assert {name: (record(work)[name], times(work / name)) for name in finished} == made
    assert (tmp_path / "bundle").exists() is (stage == "bench")


@pytest.mark.slow
def test_ctrl_c_while_training_keeps_a_checkpoint_and_the_same_command_continues_from_it(
    started, edgetune, workshop, tmp_path
):
    arguments = workshop.copy(tmp_path)
    settings = ("--method", "full", "--set", "tune.patience=200", "--set", "tune.batch_size=8")
    process = started("tune", *arguments, *settings, "--set", "tune.epochs=120")
    for line in process.stdout:
        if line.startswith("  epoch 2:"):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, out + err
    step = int(err.split("Training was stopped at step ")[1].split(";")[0])
    work = tmp_path / "bundle.work"
    assert 18 <= step < 120 * 9
    assert err.startswith(
        f"Error: Training was stopped at step {step}; its checkpoint is kept. What is finished is kept"
    )
    command = next(line for line in err.splitlines() if line.startswith("To do: "))
    assert command.startswith("To do: edgetune tune ") or "-c tune " in command
    assert command.endswith(" continues")
    assert all(argument in command for argument in (*settings, str(tmp_path / "bundle")))
    assert "Traceback" not in err
    checkpoint = work / "tune.part" / "checkpoints" / f"checkpoint-{step}"
    assert json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"] == step
    # The same command goes on behind that step, and trains what is left.
    process = started("tune", *arguments, *settings, "--set", "tune.epochs=120")
    said = [line for line, _ in zip(process.stdout, range(5), strict=False)]
    assert len(said) == 5, (said, process.communicate())
    assert f"  training continues from checkpoint-{step}\n" in said
    epoch = next(line for line in said if line.startswith("  epoch "))
    assert int(epoch.split()[1].rstrip(":")) == step // 9 + 1


@pytest.mark.slow
def test_ctrl_c_outside_of_training_says_how_to_continue(cut, started, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    cut(tmp_path / "bundle.work", "compress")
    process = started("bench", *arguments)
    deadline = time.monotonic() + 120
    while (
        not (tmp_path / "bundle.work" / "bench.part" / "plain" / "golden.json").is_file()
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert err.startswith("Error: The build was stopped. What is finished is kept in ")
    assert err.rstrip().endswith(" continues")


# Packing: fast enough to be done in a fork, and killed there between any two of its steps.


def killed_after(steps, bundle, draft, extra):
    """Pack in a forked process that is killed after so many writes, copies and renames; whether it came to its end."""
    from edgetune.export.once import pack

    child = os.fork()
    if child == 0:
        left = [steps]

        def counted(function):
            def call(*arguments, **options):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return function(*arguments, **options)

            return call

        Path.rename, Path.write_bytes = counted(Path.rename), counted(Path.write_bytes)
        pack.shutil.copyfile, pack.shutil.rmtree = counted(shutil.copyfile), counted(shutil.rmtree)
        pack.finish_bundle(draft, bundle, extra)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_packing_killed_at_any_step_leaves_the_old_bundle_or_the_new_one(workshop, tmp_path):
    from edgetune.benchmarks.bench import Benched
    from edgetune.export.once.pack import restore_bundle
    from edgetune.serve.bundle import Bundle

    draft = Benched.open(workshop.folder / "bundle.work" / "bench").draft
    bundle = tmp_path / "bundle"
    found = []
    for steps in range(60):
        for path in tmp_path.iterdir():
            shutil.rmtree(path)
        shutil.copytree(workshop.folder / "bundle", bundle)
        ended = killed_after(steps, bundle, draft, {"report.json": b"{}", "mark.txt": b"new"})
        restore_bundle(bundle)  # what the next build begins with
        Bundle.open(bundle)  # checks every digest
        found.append((bundle / "mark.txt").is_file())
        if ended:
            break
    assert ended
    assert found == sorted(found)
    assert set(found) == {False, True}
    # The bundle that was packed at last leaves nothing beside it.
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_build_begins_by_putting_back_a_bundle_that_was_moved_away(edgetune, workshop, tmp_path):
    arguments = workshop.copy(tmp_path)
    (tmp_path / "bundle").rename(tmp_path / ".bundle.old")
    ended = edgetune("tune", *arguments)
    assert ended.code == 0, ended
    assert edgetune("verify", tmp_path / "bundle").code == 0
    assert not (tmp_path / ".bundle.old").exists()


def test_a_rename_that_fails_puts_the_old_bundle_back(workshop, tmp_path, monkeypatch):
    from edgetune.benchmarks.bench import Benched
    from edgetune.export.once.pack import finish_bundle
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.errors import WorkError

    draft = Benched.open(workshop.folder / "bundle.work" / "bench").draft
    bundle = shutil.copytree(workshop.folder / "bundle", tmp_path / "bundle")
    renaming = Path.rename

    def refused(self, target):
        if self.name.endswith(".part"):
            raise PermissionError(13, "Permission denied")
        return renaming(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(WorkError, match="cannot be written: Permission denied"):
        finish_bundle(draft, bundle, {})
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    Bundle.open(bundle)
