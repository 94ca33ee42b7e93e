"""Every kind of bad input through the command line: the exit code, and a message that says what was found, what was
expected and what to do. Nothing ends in a traceback, and nothing that was there before is touched.
"""

import json
import os
import shutil
import subprocess

import pytest

ROWS = [(f"where is my card {n}", "card") for n in range(6)] + [(f"send the money {n}", "transfer") for n in range(6)]


def csv_of(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def base(tiny_base, tmp_path):
    """A copy of a tiny checkpoint, to damage."""
    return shutil.copytree(tiny_base("bert"), tmp_path / "base")


@pytest.fixture
def tune(edgetune, base, tmp_path, monkeypatch):
    """`tune(data, ...)` runs `edgetune tune` on the tiny base; the output would be `bundle`."""
    monkeypatch.chdir(tmp_path)

    def run(data, *arguments):
        return edgetune(
            "tune", "--base", "base", "--data", data, "--method", "probe", "--device", "cpu", "--out", "bundle",
            *arguments,
        )  # fmt: skip

    return run


def assert_told(ended, code, *facts):
    """The exit code, nothing on stdout but stage lines, and found, expected and to do on stderr."""
    assert ended.code == code, ended
    assert ended.err.startswith("Error: ")
    for fact in (*facts, "Expected: ", "To do: "):
        assert fact in ended.err, ended.err
    assert "Traceback" not in ended.err + ended.out


# The data.


def test_a_data_file_that_is_not_there(tune):
    assert_told(tune("missing.csv"), 1, "There is no file missing.csv.")


def test_a_data_file_that_cannot_be_opened(tune, tmp_path):
    (tmp_path / "loop.csv").symlink_to("loop.csv")
    assert_told(tune("loop.csv"), 1, "loop.csv cannot be read: Too many levels of symbolic links")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_data_file_that_may_not_be_read(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", ROWS).chmod(0)
    assert_told(tune("rows.csv"), 1, "rows.csv cannot be read: Permission denied")


def test_a_data_file_of_other_bytes(tune, tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and then nothing that Parquet knows")
    assert_told(tune("rows.parquet"), 1, "rows.parquet cannot be read as parquet")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "rows.csv is empty (0 bytes)."),
        (b" \n\n", "rows.csv is empty (3 bytes)."),
        (b"text,label\n", "rows.csv"),
    ],
)
def test_an_empty_data_file(tune, tmp_path, content, said):
    (tmp_path / "rows.csv").write_bytes(content)
    assert_told(tune("rows.csv"), 1, said)


def test_a_missing_column_lists_those_there_are(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", ROWS, header="message,topic")
    ended = tune("rows.csv", "--set", "data.text=body")
    assert_told(ended, 1, "rows.csv has no column 'body'.", "'message', 'topic'", "--set data.text=")


def test_one_class_only(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", ROWS[:6])
    assert_told(tune("rows.csv"), 1, "All 6 rows of rows.csv have the label 'card'.", "two classes or more")


def test_a_class_of_one_row_is_learnt_and_said(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", [*ROWS, ("what is this", "other")])
    ended = tune("rows.csv")
    assert ended.code == 0
    assert "1 label has one row only, which is learnt from, and none to judge by: 'other'." in ended.out


def test_classes_of_one_row(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", [(f"text {number}", f"class {number}") for number in range(8)])
    ended = tune("rows.csv")
    assert_told(ended, 1, "8 classes of the 8 of rows.csv with fewer than two rows", "two different rows for half")


def test_a_test_part_with_a_label_that_training_never_saw(tune, tmp_path):
    csv_of(tmp_path / "rows.csv", ROWS)
    csv_of(tmp_path / "held.csv", [("where is it", "card"), ("how much", "cost"), ("too much", "cost")])
    ended = tune("rows.csv", "--set", "data.test=held.csv")
    assert_told(ended, 1, "labels that no training row has: 'cost' (2 rows)")


def test_long_texts_are_cut_counted_and_reported(workshop):
    report = json.loads((workshop.folder / "bundle" / "report.json").read_text(encoding="utf-8"))
    assert report["data"]["truncated"] == 2
    assert report["data"]["tokens_max"] > 200
    assert "2 texts are longer than 96 tokens and are cut there." in report["data"]["findings"]


# The base.


def test_a_base_that_is_nowhere(tune, tmp_path, base):
    base.rename(tmp_path / "elsewhere")
    csv_of(tmp_path / "rows.csv", ROWS)
    assert_told(tune("rows.csv"), 1, "The base model 'base' was not found", "a folder with config.json")


def test_a_base_without_weights(tune, tmp_path, base):
    (base / "model.safetensors").unlink()
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "base has a config.json but no weights.")


def test_a_base_with_a_pickle_is_refused_and_opens_when_the_user_says_so(tune, tmp_path, base):
    import torch
    from safetensors.torch import load_file

    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    rows = csv_of(tmp_path / "rows.csv", ROWS)
    assert_told(tune(rows), 1, "only as a pickle (pytorch_model.bin), which can run code", "--allow-pickle")
    ended = tune(rows, "--allow-pickle")
    assert ended.code == 0, ended
    assert (tmp_path / "bundle.work" / "tune" / "model" / "model.safetensors").is_file()
    assert not list((tmp_path / "bundle.work").rglob("*.bin"))


@pytest.mark.parametrize("kind", ["vit", "nonesuch"])
def test_an_architecture_without_a_classifier(tune, tmp_path, base, kind):
    (base / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    ended = tune(csv_of(tmp_path / "rows.csv", ROWS))
    said = {"vit": "base is a 'vit' model", "nonesuch": "transformers cannot read"}[kind]
    assert_told(ended, 1, said)


def test_a_base_without_a_config(tune, tmp_path, base):
    (base / "config.json").unlink()
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "base has no config.json.")


def test_a_base_with_a_config_that_is_no_json(tune, tmp_path, base):
    (base / "config.json").write_text("{", encoding="utf-8")
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "config.json")


def test_a_base_with_damaged_weights(tune, tmp_path, base):
    with (base / "model.safetensors").open("r+b") as stream:
        stream.truncate(5000)
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "The weights of base cannot be opened")


def test_a_base_without_a_tokenizer(tune, tmp_path, base):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (base / name).unlink()
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "base")


# The output.


def test_an_output_that_is_no_bundle_is_left_as_it_was(tune, tmp_path):
    (tmp_path / "bundle" / "sub").mkdir(parents=True)
    (tmp_path / "bundle" / "thesis.txt").write_text("years of work", encoding="utf-8")
    before = contents(tmp_path / "bundle")
    ended = tune(csv_of(tmp_path / "rows.csv", ROWS))
    assert_told(ended, 1, "The output folder bundle exists and is no bundle (it has no manifest.json).")
    assert contents(tmp_path / "bundle") == before
    assert (tmp_path / "bundle" / "sub").is_dir()
    assert not (tmp_path / "bundle.work").exists()


def test_an_output_that_is_a_file(tune, tmp_path):
    (tmp_path / "bundle").write_text("years of work", encoding="utf-8")
    assert_told(tune(csv_of(tmp_path / "rows.csv", ROWS)), 1, "The output bundle is a file.")
    assert (tmp_path / "bundle").read_text(encoding="utf-8") == "years of work"


def test_an_output_below_a_file(tune, tmp_path):
    rows = csv_of(tmp_path / "rows.csv", ROWS)
    assert_told(tune(rows, "--out", "rows.csv/bundle"), 1, "The work folder rows.csv/bundle.work cannot be written to")


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(kilobytes)` is a folder with so much room; called again it has room anew."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(kilobytes):
        again = ["-o", f"remount,size={kilobytes}k"] if folder.is_mount() else ["-o", f"size={kilobytes}k"]
        done = subprocess.run(["mount", "-t", "tmpfs", *again, "tmpfs", str(folder)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a small tmpfs cannot be mounted: {done.stderr.strip()}")
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root and mount")
    yield sized
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_that_has_room_again_is_told_too(tmp_path):
    """safetensors removes what it wrote before it says that there was no room."""
    from rich.console import Console
    from safetensors import SafetensorError

    from edgetune.progress import StageLines
    from edgetune.serve.errors import WorkError
    from edgetune.work import StageRun, Work

    work = Work(tmp_path / "bundle.work", StageLines(Console()), fresh=False)

    def full(_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(WorkError, match=r"The stage tune cannot write to .*: No space left on device"):
        work.stage(StageRun("tune", [], full, lambda _: None, str))
    with pytest.raises(SafetensorError, match="a bug"):
        work.stage(StageRun("tune", [], lambda _: (_ for _ in ()).throw(SafetensorError("a bug")), lambda _: None, str))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kilobytes", "stage", "training"),
    [
        (12, "data", False),  # a Python write
        (80, "tune", False),  # safetensors' write
        (300, "tune", True),  # torch's write of a checkpoint
    ],
)
def test_a_disk_that_fills_up_is_told_and_the_same_command_continues(
    tune, small_disk, workshop, kilobytes, stage, training
):
    folder = small_disk(kilobytes)
    more = ("--method", "lora", "--set", "tune.epochs=2") if training else ()
    ended = tune(workshop.data, "--out", folder / "bundle", *more)
    assert_told(ended, 1, "No space left on device", f"The stage {stage}")
    assert not (folder / "bundle").exists()
    small_disk(20_000)
    ended = tune(workshop.data, "--out", folder / "bundle", *more)
    assert ended.code == 0, ended
    assert (folder / "bundle.work" / "tune" / "tuned.json").is_file()


@pytest.mark.slow
def test_a_disk_that_fills_up_while_packing_leaves_the_old_bundle(edgetune, small_disk, workshop):
    arguments = workshop.copy(small_disk(20_000))
    folder = small_disk(20_000)
    old = contents(folder / "bundle")
    used = sum(len(content) for content in contents(folder).values()) // 1024
    room = shutil.disk_usage(folder)
    small_disk(room.used // 1024 + 80)  # enough for the report in the work folder, not for the bundle
    ended = edgetune("build", *arguments)
    assert_told(ended, 1, "bundle cannot be written: No space left on device", "the work folder keeps what was built")
    assert used > 100
    assert contents(folder / "bundle") == old
    assert sorted(path.name for path in folder.iterdir()) == ["bundle", "bundle.work"]
    small_disk(20_000)
    assert edgetune("build", *arguments).code == 0
    assert edgetune("verify", folder / "bundle").code == 0


# A bundle.


@pytest.fixture
def bundle(workshop, tmp_path):
    """A copy of a whole bundle, to damage."""
    return shutil.copytree(workshop.folder / "bundle", tmp_path / "bundle")


COMMANDS = [("predict", "where is my card"), ("verify",), ("inspect",)]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "report.json"])
def test_a_bundle_with_a_changed_byte(edgetune, bundle, command, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    ended = edgetune(command[0], bundle, *command[1:])
    assert_told(ended, 1, f"{name} has changed bytes", "copy the bundle again")
    assert ended.out == ""


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_bundle_with_files_missing_names_all_of_them(edgetune, bundle, command):
    (bundle / "config.json").unlink()
    (bundle / "model.onnx").unlink()
    ended = edgetune(command[0], bundle, *command[1:])
    assert_told(ended, 1, "config.json is missing; ", "model.onnx is missing")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_bundle_of_a_newer_format(edgetune, bundle, command):
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "format": 3, "files": "elsewhere"}), encoding="utf-8")
    ended = edgetune(command[0], bundle, *command[1:])
    assert_told(ended, 1, "bundle has bundle format 3.", "install a newer edgetune")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_no_bundle_at_all(edgetune, tmp_path, command):
    assert_told(edgetune(command[0], tmp_path / "nowhere", *command[1:]), 1, "There is no folder", "check the path")
    (tmp_path / "empty").mkdir()
    ended = edgetune(command[0], tmp_path / "empty", *command[1:])
    assert ended.code == 1
    assert "empty is no bundle: it has no manifest.json." in ended.err
