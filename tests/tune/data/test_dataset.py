"""Whole data sets: every layout loads, parts are split off or kept, faults of labels are refused."""

import json

import datasets
import pytest
from pydantic import ValidationError

from edgetune.serve.errors import DataError, WorkError
from edgetune.tune.data import sources
from edgetune.tune.data.dataset import DataRecipe, Dataset, Part
from edgetune.tune.tasks import TASKS


def csv_of(path, rows, header="text,label"):
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8")
    return str(path)


def pairs(count, labels=("neg", "pos"), stem="text"):
    return [(f"{stem} {n}", labels[n % len(labels)]) for n in range(count)]


def load(seed=0, label_order=None, **recipe):
    return Dataset.load(DataRecipe(**recipe), TASKS["text-classification"], seed=seed, label_order=label_order)


def sizes(dataset):
    return len(dataset.train), len(dataset.validation), len(dataset.test)


def fault(**recipe):
    with pytest.raises(DataError) as caught:
        load(**recipe)
    return caught.value


def test_one_file_is_split_by_class(tmp_path):
    path = csv_of(tmp_path / "a.csv", pairs(40))
    dataset = load(path=path)
    assert sizes(dataset) == (28, 6, 6)
    assert [part.targets.count(0) for part in (dataset.train, dataset.validation, dataset.test)] == [14, 3, 3]
    assert (dataset.labels, dataset.source) == (("neg", "pos"), path)
    assert (dataset.columns.texts[0], dataset.columns.labels[0]) == ("text", "label")
    assert dataset.findings == (
        "Read 40 rows from a.csv.",
        "Text column 'text' and label column 'label' were guessed.",
        "Split 40 rows by class with seed 0: 28 training rows, 6 validation rows, 6 test rows.",
    )
    texts = dataset.train.texts + dataset.validation.texts + dataset.test.texts
    assert sorted(texts) == sorted(text for text, _ in pairs(40))


def test_the_same_seed_gives_the_same_digest_and_another_does_not(tmp_path):
    path = csv_of(tmp_path / "a.csv", pairs(40))
    assert load(path=path) == load(path=path)
    assert load(path=path).digest != load(path=path, seed=1).digest
    assert load(path=path).digest.startswith("sha256:")


def test_a_given_test_part_leaves_at_most_a_thousand_rows_for_validation(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(8000))
    test = csv_of(tmp_path / "test.csv", pairs(10, stem="other"))
    dataset = load(train=train, test=test)
    assert sizes(dataset) == (7000, 1000, 10)
    assert dataset.test.texts == tuple(f"other {n}" for n in range(10))
    assert dataset.findings[-1] == (
        "Split 8,000 rows by class with seed 0: 7,000 training rows, 1,000 validation rows."
    )


def test_a_given_test_part_of_a_small_file_leaves_the_share_of_validation(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(170))
    test = csv_of(tmp_path / "test.csv", pairs(10, stem="other"))
    assert sizes(load(path=train, test=test)) == (140, 30, 10)


def test_a_given_validation_part_leaves_the_share_of_test(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(170))
    validation = csv_of(tmp_path / "dev.csv", pairs(10, stem="other"))
    assert sizes(load(path=train, validation=validation)) == (140, 10, 30)


@pytest.mark.parametrize(
    "names", [("train", "dev", "test"), ("train", "valid", "test"), ("train", "validation", "test")]
)
def test_a_folder_of_parts_is_taken_as_it_is(tmp_path, names):
    for name, count in zip(names, (8, 4, 6), strict=True):
        csv_of(tmp_path / f"{name}.csv", pairs(count, stem=name))
    assert sizes(load(path=str(tmp_path))) == (8, 4, 6)


def test_a_given_part_goes_before_that_of_the_folder(tmp_path):
    (tmp_path / "parts").mkdir()
    for name in ("train", "dev", "test"):
        csv_of(tmp_path / "parts" / f"{name}.csv", pairs(8, stem=name))
    mine = csv_of(tmp_path / "mine.csv", pairs(2, stem="mine"))
    assert sizes(load(path=str(tmp_path / "parts"), test=mine)) == (8, 8, 2)


def test_a_short_test_file_follows_the_training_file_about_its_header(tmp_path):
    (tmp_path / "train.csv").write_text("".join(f"{text},{label}\n" for text, label in pairs(20)), encoding="utf-8")
    (tmp_path / "test.csv").write_text("fine,pos\ndull,neg\n", encoding="utf-8")
    dataset = load(path=str(tmp_path))
    assert dataset.test == Part(("fine", "dull"), (1, 0))


def class_folders(folder, count=10):
    for text, label in pairs(count, stem=folder.name):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{text}.txt").write_text(text + "\r\nline two\n", encoding="utf-8")


def test_a_folder_of_classes_has_a_row_a_file(tmp_path):
    class_folders(tmp_path)
    (tmp_path / "pos" / "empty.txt").touch()
    dataset = load(path=str(tmp_path))
    assert sum(sizes(dataset)) == 10
    assert dataset.labels == ("neg", "pos")
    assert all(text.endswith("\nline two") for text in dataset.train.texts)
    assert "Dropped 1 row without text from the training data." in dataset.findings


def test_parts_of_class_folders_are_read(tmp_path):
    class_folders(tmp_path / "train", 8)
    class_folders(tmp_path / "test", 4)
    dataset = load(path=str(tmp_path))
    assert (len(dataset.train) + len(dataset.validation), len(dataset.test)) == (8, 4)


def saved(rows):
    names = ["neg", "pos"]
    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=names))
    columns = {"text": [text for text, _ in rows], "label": [names.index(label) for _, label in rows]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def no_bars():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("no_bars")
def test_a_saved_data_set_is_opened_with_its_class_names(tmp_path):
    saved(pairs(20)).save_to_disk(tmp_path / "one")
    one = load(path=str(tmp_path / "one"))
    assert (sum(sizes(one)), one.labels) == (20, ("neg", "pos"))
    parts = {
        "train": saved(pairs(8)),
        "validation": saved(pairs(4, stem="v")),
        "test": saved(pairs(6, stem="t")),
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "three")
    assert sizes(load(path=str(tmp_path / "three"))) == (8, 4, 6)


def test_a_hub_data_set_is_loaded_through_the_library(tmp_path, monkeypatch):
    asked = []

    def from_hub(name):
        asked.append(name)
        return datasets.DatasetDict(train=saved(pairs(20)), test=saved(pairs(6, stem="t")))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    dataset = load(path="someone/reviews")
    assert asked == ["someone/reviews"]
    assert (sum(sizes(dataset)), len(dataset.test)) == (26, 6)


def test_a_name_that_is_neither_here_nor_on_the_hub_says_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = fault(path="someone/reviews").found
    assert "There is neither a file nor a folder someone/reviews here" in found
    assert "from the hub" in found


def test_a_hidden_test_part_is_left_out_and_split_off(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(40))
    test = csv_of(tmp_path / "test.csv", [("a", ""), ("b", "")])
    dataset = load(path=train, test=test)
    assert sizes(dataset) == (28, 6, 6)
    assert "The test part is left out: 0 of its rows have a text and a label." in dataset.findings


def test_labels_that_are_all_minus_one_are_hidden_where_training_has_none(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(40))
    test = csv_of(tmp_path / "test.csv", [("a", "-1"), ("b", "-1")])
    dataset = load(path=train, test=test)
    assert sizes(dataset) == (28, 6, 6)
    assert "The test part is left out: all of its labels are -1, as hidden ones are." in dataset.findings
    signed = csv_of(tmp_path / "signed.csv", [(f"text {n}", str(n % 3 - 1)) for n in range(30)])
    assert len(load(path=signed, test=test).test.texts) == 2  # a class like any other


@pytest.mark.parametrize(
    ("words", "order", "expected"),
    [
        (("10", "9", "-1"), None, ("-1", "9", "10")),
        (("b", "B", "é"), None, ("B", "b", "é")),
        (("10", "9", "x"), None, ("10", "9", "x")),
        (("neg", "pos"), ("pos", "neg"), ("pos", "neg")),
        (("neg", "pos"), ("LABEL_0", "LABEL_1"), ("neg", "pos")),
        (("neg", "pos"), ("pos", "neg", "other"), ("neg", "pos")),
    ],
)
def test_labels_are_in_a_fixed_order(tmp_path, words, order, expected):
    path = csv_of(tmp_path / "a.csv", pairs(30, words))
    dataset = load(path=path, label_order=order)
    assert dataset.labels == expected
    rows = dict(pairs(30, words))
    assert all(rows[t] == expected[n] for t, n in zip(dataset.train.texts, dataset.train.targets, strict=True))


def test_save_and_open_give_the_same_data_set_and_write_one_file(tmp_path):
    path = csv_of(tmp_path / "a.csv", [*pairs(39), ("line \u2028 sep 快", "pos")])
    dataset = load(path=path)
    folder = tmp_path / "work" / "data"
    folder.mkdir(parents=True)
    dataset.save(folder)
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert set(first) == {"dataset.json"}
    assert Dataset.open(folder) == dataset
    Dataset.open(folder).save(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first


def test_open_refuses_what_is_missing_or_changed(tmp_path):
    with pytest.raises(WorkError, match=r"holds no data set: .*No such file"):
        Dataset.open(tmp_path)
    load(path=csv_of(tmp_path / "a.csv", pairs(40))).save(tmp_path)
    saved = tmp_path / "dataset.json"
    whole = saved.read_text(encoding="utf-8")
    saved.write_text(whole.replace("text 1", "text one", 1), encoding="utf-8")
    with pytest.raises(WorkError, match="its rows are not those that were saved") as caught:
        Dataset.open(tmp_path)
    assert caught.value.action == "run `edgetune build --fresh` again"
    saved.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(WorkError, match="holds no data set: Input data was truncated"):
        Dataset.open(tmp_path)


def unlabeled_of(tmp_path, name, content, **recipe):
    """The unlabeled texts and findings of a data set of 40 labelled rows, with those of a test file of 4."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    rows = {"path": csv_of(tmp_path / "a.csv", pairs(40)), "test": csv_of(tmp_path / "t.csv", pairs(4, stem="test"))}
    return load(**rows, unlabeled=str(tmp_path / name), **recipe)


@pytest.mark.parametrize(
    ("name", "content", "source"),
    [
        ("more.txt", "one, two\nthree\n", "more.txt"),
        ("more.csv", 'text,other\n"one, two",5\nthree,6\n', "more.csv, column 'text'"),
        ("more.tsv", "anything\none, two\nthree\n", "more.tsv, column 'anything'"),
        ("more.jsonl", '{"text": "one, two"}\n{"text": "three", "label": "x"}\n', "more.jsonl, column 'text'"),
    ],
)
def test_unlabeled_texts_are_read_from_what_rows_are_read_from(tmp_path, name, content, source):
    dataset = unlabeled_of(tmp_path, name, content)
    assert dataset.unlabeled == ("one, two", "three")
    assert f"Read 2 unlabeled rows from {source}." in dataset.findings


def test_unlabeled_texts_are_cleaned_and_never_those_of_the_held_out_parts(tmp_path):
    trained = unlabeled_of(tmp_path, "none.txt", "unlike all others\n")
    validation, train = trained.validation.texts[0], trained.train.texts[0]
    lines = [" new ", "", "NEW", "TEST  1", validation, train.upper(), "\ufeffnewer\0", "test 9"]
    dataset = unlabeled_of(tmp_path, "more.txt", "first\n" + "\n".join(lines))
    assert dataset.unlabeled == ("first", "new", "newer", "test 9")
    assert dataset.findings[-4:] == (
        "Read 9 unlabeled rows from more.txt.",
        "Dropped 1 unlabeled row without text.",
        "Removed 2 unlabeled rows that also stand in the validation or test part.",
        "Removed 2 unlabeled rows that stand twice or in the training data.",
    )
    assert (dataset.train, dataset.validation, dataset.test) == (trained.train, trained.validation, trained.test)
    as_they_are = unlabeled_of(
        tmp_path, "more.txt", "first\n" + "\n".join(lines), clean={"deduplicate": False, "normalize": False}
    )
    assert as_they_are.unlabeled == ("first", " new ", "NEW", train.upper(), "\ufeffnewer\0", "test 9")


def test_unlabeled_texts_are_saved_opened_and_in_the_digest(tmp_path):
    plain = load(
        path=str(csv_of(tmp_path / "a.csv", pairs(40))), test=csv_of(tmp_path / "t.csv", pairs(4, stem="test"))
    )
    dataset = unlabeled_of(tmp_path, "more.txt", "line \u2028 sep 快\r\nother\r\n")
    other = unlabeled_of(tmp_path, "other.txt", "something else\n")
    assert (plain.unlabeled, dataset.unlabeled) == ((), ("line \u2028 sep 快", "other"))
    assert len({plain.digest, dataset.digest, other.digest}) == 3
    dataset.save(tmp_path)
    assert Dataset.open(tmp_path) == dataset
    saved = tmp_path / "dataset.json"
    saved.write_text(saved.read_text(encoding="utf-8").replace("sep", "set"), encoding="utf-8")
    with pytest.raises(WorkError, match="its rows are not those that were saved"):
        Dataset.open(tmp_path)
    plain.save(tmp_path)
    assert Dataset.open(tmp_path) == plain


def test_unlabeled_texts_without_the_text_column_or_file_are_refused(tmp_path):
    with pytest.raises(DataError, match="no column 'text'"):
        unlabeled_of(tmp_path, "more.csv", "words,place\nhello there,5\nso long,6\n")
    path = csv_of(tmp_path / "a.csv", pairs(40))
    assert fault(path=path, unlabeled=str(tmp_path / "none.txt")).found == f"There is no file {tmp_path / 'none.txt'}."


def test_one_class_is_refused(tmp_path):
    found = fault(path=csv_of(tmp_path / "a.csv", pairs(5, ("pos",)))).found
    assert found == f"All 5 rows of {tmp_path / 'a.csv'} have the label 'pos'."


def test_classes_of_one_row_are_learnt_and_listed_where_the_others_have_more(tmp_path):
    dataset = load(path=csv_of(tmp_path / "a.csv", [*pairs(10), ("one", "rare"), ("two", "rarer")]))
    assert {"one", "two"} <= set(dataset.train.texts)
    assert dataset.findings[-1] == (
        "2 labels have one row only, which is learnt from, and none to judge by: 'rare', 'rarer'."
    )


def test_classes_of_one_row_are_refused_where_most_are(tmp_path):
    error = fault(path=csv_of(tmp_path / "a.csv", [*pairs(4), *((f"row {n}", f"class {n}") for n in range(3))]))
    assert error.found == (
        f"3 classes of the 5 of {tmp_path / 'a.csv'} with fewer than two rows: 'class 0', 'class 1', 'class 2'."
    )
    assert "for half of the classes" in error.expected


def test_one_training_row_a_class_is_enough_where_both_other_parts_are_given(tmp_path):
    train = csv_of(tmp_path / "train.csv", [("one", "a"), ("two", "b")])
    test = csv_of(tmp_path / "test.csv", [("t", "a"), ("u", "b")])
    dev = csv_of(tmp_path / "dev.csv", [("v", "a"), ("w", "b")])
    assert "fewer than two training and validation rows: 'a', 'b'" in fault(path=train, test=test).found
    assert sizes(load(path=train, test=test, validation=dev)) == (2, 2, 2)


def test_labels_that_are_numbers_and_hardly_repeat_are_those_of_a_regression(tmp_path):
    error = fault(path=csv_of(tmp_path / "a.csv", [(f"text {n}", n * 0.137) for n in range(40)]))
    assert "The labels are numbers that hardly repeat, as those of a regression." in error.found
    assert "--task text-regression" in error.action


@pytest.mark.parametrize("rows", [2, 3, 4])
def test_two_to_four_rows_a_class_leave_rows_to_choose_and_to_judge_by(tmp_path, rows):
    texts = [(f"text {n} of {kind}", f"class {kind}") for kind in range(12) for n in range(rows)]
    dataset = load(path=csv_of(tmp_path / "a.csv", texts))
    assert set(dataset.train.targets) == set(range(12))
    assert min(len(dataset.validation), len(dataset.test)) >= rows
    assert sum(sizes(dataset)) == 12 * rows
    assert len(dataset.train) > len(dataset.validation) + len(dataset.test)


def test_without_a_share_for_the_test_part_the_validation_rows_judge_and_that_is_said(tmp_path):
    dataset = load(path=csv_of(tmp_path / "a.csv", pairs(40)), split=(0.8, 0.2, 0.0))
    assert sizes(dataset) == (32, 8, 8)
    assert dataset.test == dataset.validation
    assert "the validation rows, which choose the model, judge it as well" in dataset.findings[-1]


def test_without_a_share_for_validation_some_training_rows_choose(tmp_path):
    dataset = load(path=csv_of(tmp_path / "a.csv", pairs(100)), split=(0.8, 0.0, 0.2))
    assert sizes(dataset) == (72, 8, 20)
    given = load(
        train=csv_of(tmp_path / "b.csv", pairs(100)),
        test=csv_of(tmp_path / "c.csv", pairs(10, stem="other")),
        split=(0.8, 0.0, 0.2),
    )
    assert sizes(given) == (90, 10, 10)


def test_labels_that_look_alike_or_like_no_value_are_said(tmp_path):
    labels = ("Positive", "positive", "positive\u200b", "Caf\u00e9", "Cafe\u0301", "NULL", "other")
    rows = pairs(70, labels)
    findings = load(path=csv_of(tmp_path / "a.csv", rows)).findings
    assert findings[-2:] == (
        "Labels differ in case, spacing, invisible signs or normalisation alone, and are classes of their own: "
        r"'Cafe\u0301' (10), 'Caf\xe9' (10); 'Positive' (10), 'positive' (10), 'positive\u200b' (10). "
        "Make them one in the data if they are.",
        "Labels look like no value, and are classes as they stand: 'NULL' (10). Empty those cells if so.",
    )


def test_labels_that_training_never_saw_are_listed_with_their_rows(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(20))
    test = csv_of(tmp_path / "test.csv", [("a", "new"), ("b", "new"), ("c", "odd"), ("d", "pos")])
    found = fault(path=train, test=test).found
    assert found == "The test part has labels that no training row has: 'new' (2 rows), 'odd' (1 row)."


def test_training_rows_that_all_stand_in_the_test_part_are_refused(tmp_path):
    path = csv_of(tmp_path / "a.csv", pairs(20))
    assert "Removed 20 rows from the training data" in fault(path=path, test=path).found


def test_a_part_without_the_column_is_refused_by_name(tmp_path):
    train = csv_of(tmp_path / "train.csv", pairs(20))
    test = csv_of(tmp_path / "test.csv", pairs(4), header="text,intent")
    error = fault(path=train, test=test)
    assert error.found == "test.csv has no column 'label'."
    assert "'text', 'intent'" in error.expected


def test_a_folder_of_no_known_layout_says_what_it_holds(tmp_path):
    (tmp_path / "notes.md").touch()
    error = fault(path=str(tmp_path))
    assert "it holds notes.md" in error.found
    assert "one sub-folder of .txt files or of pictures a class" in error.expected


def test_a_folder_with_two_files_for_a_part_or_none_for_training(tmp_path):
    csv_of(tmp_path / "test.csv", pairs(4))
    assert "has no training part: it has test" in fault(path=str(tmp_path)).found
    csv_of(tmp_path / "test.tsv", pairs(4))
    assert "two files for the test part: test.csv and test.tsv" in fault(path=str(tmp_path)).found


def test_a_saved_folder_that_is_damaged_is_refused(tmp_path):
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    assert "looks like a saved data set and cannot be opened" in fault(path=str(tmp_path)).found


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({}, "neither path nor train is given"),
        ({"path": "a.csv", "train": "b.csv"}, "both path (a.csv) and train (b.csv) are given"),
        ({"path": "a", "split": (0.7, 0.2, 0.2)}, "must be 0 or more, sum to 1"),
        ({"path": "a", "split": (0.0, 0.5, 0.5)}, "leave some for training"),
        ({"path": "a", "colour": "red"}, "Extra inputs are not permitted"),
        ({"path": "a", "delimiter": ", "}, "at most 1 character"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(recipe, message):
    with pytest.raises(ValidationError) as caught:
        DataRecipe(**recipe)
    assert message in str(caught.value)


def test_every_field_of_the_recipe_is_described():
    schema = DataRecipe.model_json_schema()
    assert all(field.get("description") for field in schema["properties"].values())
    assert json.loads(json.dumps(schema))["additionalProperties"] is False


def test_a_path_with_a_known_suffix_is_never_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_read_hub", lambda name: pytest.fail("asked the hub"))
    assert fault(path=str(tmp_path / "none.csv")).found == f"There is no file {tmp_path / 'none.csv'}."
