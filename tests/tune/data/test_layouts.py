"""Data sets as people bring them: a column of parts, competitions' folders, clones from the hub, JSON documents of any
shape, and labels in lists."""

import json

import datasets
import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS


def csv_of(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8")
    return str(path)


def pairs(count, labels=("neg", "pos"), stem="text"):
    return [(f"{stem} {n}", labels[n % len(labels)]) for n in range(count)]


def load(**recipe):
    return Dataset.load(DataRecipe(**recipe), TASKS["text-classification"], seed=0)


def sizes(dataset):
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def fault(**recipe):
    with pytest.raises(DataError) as caught:
        load(**recipe)
    return caught.value


def saved(rows):
    return datasets.Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


@pytest.fixture(autouse=True)
def no_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def lines(path, *rows):
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def divided(count, part):
    return [f"text {n},{'ab'[n % 2]},{part(n)}" for n in range(count)]


@pytest.mark.parametrize(
    "names", [("train", "validation", "test"), ("Train", "dev", "TEST"), ("training", "val", "test")]
)
def test_a_column_of_parts_is_obeyed_and_said(tmp_path, names):
    path = lines(tmp_path / "a.csv", "text,label,split", *divided(40, lambda n: names[(n // 2) % 4 // 2 + (n > 35)]))
    dataset = load(path=path)
    assert sizes(dataset) == (20, 16, 4)
    assert dataset.test.texts == ("text 36", "text 37", "text 38", "text 39")
    assert (
        "Column 'split' of a.csv divides its rows: 20 train rows, 16 validation rows, 4 test rows." in dataset.findings
    )
    assert dataset.columns.labels == ("label",)


def test_a_column_of_training_and_test_rows_leaves_the_validation_part_to_split(tmp_path):
    path = lines(tmp_path / "a.csv", "text,intent,set", *divided(60, lambda n: ("train", "test")[n % 10 > 7]))
    dataset = load(path=path)
    assert sizes(dataset) == (40, 8, 12)
    assert all(int(text.split()[1]) % 10 > 7 for text in dataset.test.texts)


def test_a_column_of_parts_that_leaves_a_label_without_training_rows_is_not_obeyed_and_that_is_said(tmp_path):
    rows = divided(40, lambda n: "test" if n > 30 else "train") + [f"new {n},c,test" for n in range(20)]
    dataset = load(path=lines(tmp_path / "a.csv", "text,label,split", *rows))
    assert (sizes(dataset), dataset.labels) == ((42, 9, 9), ("a", "b", "c"))
    finding = next(finding for finding in dataset.findings if "not obeyed" in finding)
    assert finding.startswith(
        "Column 'split' of a.csv names parts and is not obeyed: The test part has labels that no training row has"
    )


def test_files_of_parts_go_before_a_column_of_parts(tmp_path):
    rows = divided(20, lambda n: ("train", "test")[n % 4 // 2])
    lines(tmp_path / "train.csv", "text,label,split", *rows)
    lines(tmp_path / "test.csv", "text,label,split", *(row.replace("text", "other") for row in rows))
    assert len(load(path=str(tmp_path)).test) == 20


def test_a_test_part_without_labels_is_left_out_and_said(tmp_path):
    csv_of(tmp_path / "train.csv", pairs(40))
    lines(tmp_path / "test.csv", "id,text", *(f"{n},other {n}" for n in range(10)))
    lines(tmp_path / "sample_submission.csv", "id,label", "0,neg")
    dataset = load(path=str(tmp_path))
    assert sizes(dataset) == (28, 6, 6)
    assert "test.csv has no column 'label': its 10 rows are left out." in dataset.findings


def test_a_test_part_that_is_named_must_have_labels(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(40))
    test = lines(tmp_path / "test.csv", "id,text", *(f"{n},other {n}" for n in range(10)))
    assert "test.csv has no column 'label'" in fault(train=train, test=test).found


@pytest.mark.parametrize("folder", [".", "data", "plain_text"])
@pytest.mark.parametrize("ending", ["", "-0a1b2c3d4e5f6a7b"])
def test_pieces_of_a_part_are_joined_in_their_order(tmp_path, folder, ending):
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    for piece in (1, 0):
        rows = saved(pairs(40)[20 * piece : 20 * piece + 20])
        rows.to_parquet(str(tmp_path / folder / f"train-{piece:05}-of-00002{ending}.parquet"))
    saved(pairs(6, stem="other")).to_parquet(str(tmp_path / folder / f"test-00000-of-00001{ending}.parquet"))
    dataset = load(path=str(tmp_path))
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (40, 6)
    assert dataset.findings[0].startswith("Read 40 rows from")


def test_missing_pieces_and_pointers_are_named(tmp_path):
    (tmp_path / "data").mkdir()
    piece = tmp_path / "data" / "train-00000-of-00002.parquet"
    saved(pairs(4)).to_parquet(str(piece))
    assert "has 1 files of the train part" in fault(path=str(tmp_path)).found
    pointer = piece.with_name("train-00001-of-00002.parquet")
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", encoding="utf-8")
    error = fault(path=str(tmp_path))
    assert (error.found, "git lfs pull" in error.action) == (f"{pointer} is a pointer of Git LFS.", True)


def test_several_folders_of_parts_are_a_question(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        csv_of(tmp_path / name / "train.csv", pairs(40))
    assert fault(path=str(tmp_path)).found == f"{tmp_path} has 2 folders with parts: one, two."


ROWS = [{"text": text, "label": label} for text, label in pairs(40)]
ORIENTS = {
    "records": ROWS,
    "columns": {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("text", "label")},
    "index": {str(n): row for n, row in enumerate(ROWS)},
    "named index": {f"row {n}": row for n, row in enumerate(ROWS)},
    "split": {"columns": ["text", "label"], "index": list(range(40)), "data": [list(row.values()) for row in ROWS]},
    "table": {"schema": {"fields": [{"name": "text"}]}, "data": ROWS},
    "lists": {name: [row[name] for row in ROWS] for name in ("text", "label")},
    "values": [list(row.values()) for row in ROWS],
    "under a key": {"version": "1.0", "rows": ROWS},
}


@pytest.mark.parametrize("orient", ORIENTS)
def test_every_orient_of_pandas_is_read(tmp_path, orient):
    path = lines(tmp_path / "a.json", json.dumps(ORIENTS[orient]))
    dataset = load(path=path)
    assert dataset.digest == load(path=lines(tmp_path / "b.json", json.dumps(ROWS))).digest
    assert dataset.columns.texts == (("column_1",) if orient == "values" else ("text",))
    assert any("a.json holds" in finding for finding in dataset.findings) == (orient != "records")


@pytest.mark.parametrize("orient", ["records", "columns", "split"])
def test_parts_in_one_document_are_parts(tmp_path, orient):
    parts = {"train": ORIENTS[orient], "dev": ROWS[:4], "test": [{"text": "other", "label": "neg"}]}
    dataset = load(path=lines(tmp_path / "a.json", json.dumps(parts)))
    assert sizes(dataset) == (36, 4, 1)
    assert "a.json holds the parts train, dev, test." in dataset.findings


def test_what_is_no_part_beside_parts_is_said(tmp_path):
    parts = {"train": [list(row.values()) for row in ROWS], "val": ROWS[:4], "oos_train": [["odd", "oos"]]}
    parts["val"] = [list(row.values()) for row in ROWS[:4]]
    dataset = load(path=lines(tmp_path / "a.json", json.dumps(parts)))
    assert "a.json holds the parts train, val; not read: oos_train." in dataset.findings
    assert len(dataset.validation) == 4


def test_lists_are_no_texts(tmp_path):
    intents = [{"tag": f"tag {n % 3}", "patterns": [f"hello {n}", "hi there"]} for n in range(12)]
    error = fault(path=lines(tmp_path / "a.json", json.dumps({"intents": intents})))
    assert "no column looks like texts" in error.found


@pytest.mark.parametrize("folder", [".", "default", "data"])
def test_folders_that_are_named_as_a_part_hold_its_pieces(tmp_path, folder):
    for part, count in (("train", 40), ("test", 6)):
        place = tmp_path / folder / part
        place.mkdir(parents=True)
        (place / "_SUCCESS").touch()
        for piece in range(2):
            csv_of(place / f"part-{piece:05}.csv", pairs(count, stem=part)[piece::2])
    dataset = load(path=str(tmp_path))
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (40, 6)


@pytest.mark.parametrize("write", [json.dumps, str])
def test_labels_in_lists_of_one_are_the_labels(tmp_path, write):
    rows = [{"text": text, "label": write([label])} for text, label in pairs(40)]
    rows.append({"text": "not yet labelled", "label": "[]"})
    dataset = load(path=lines(tmp_path / "a.jsonl", *map(json.dumps, rows)))
    assert dataset.labels == ("neg", "pos")
    assert "The column 'label' holds lists of one label in 41 rows: the label is taken." in dataset.findings
    assert "Dropped 1 row without label from the training data." in dataset.findings


@pytest.mark.parametrize(
    ("label", "found", "action"),
    [
        (["card", "cash"], "lists of labels, in 1 row several", "--task multi-label-classification"),
        ({"id": 1, "name": "card"}, "objects in 1 row", "a column of its own"),
        ([{"label": 3, "user": 1}], "objects in 1 row", "a column of its own"),
    ],
)
def test_lists_and_objects_are_no_classes(tmp_path, label, found, action):
    rows = [{"text": text, "label": [name]} for text, name in pairs(40)] + [{"text": "odd", "label": label}]
    error = fault(path=lines(tmp_path / "a.jsonl", *map(json.dumps, rows)))
    assert found in error.found
    assert action in error.action
