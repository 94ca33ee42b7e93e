"""Pictures as rows: every layout is read alike, copies do not deceive, and damaged files are refused by name."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.serve.errors import DataError, RecipeError
from edgetune.task_choice import choose_task
from edgetune.tune.data.augmentation import AugmentRecipe, augmented
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.data.pictures import thumbnail
from edgetune.tune.data.pixels import PixelFeatures
from edgetune.tune.tasks import TASKS
from tests.golden.pictures import picture_bytes

PICTURES = TASKS["image-classification"]


def noise(seed: int, size: int = 40) -> Image.Image:
    draw = np.random.default_rng(seed)
    cells = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((size, size), Image.Resampling.BICUBIC)


def write_classes(folder: Path, each: int = 10, first: int = 0) -> Path:
    for place, label in enumerate(("cat", "dog")):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            noise(first + 1_000 * place + number).save(folder / label / f"{number}.png")
    return folder


def loaded(path: Path, **recipe) -> Dataset:
    return Dataset.load(DataRecipe(path=str(path), **recipe), PICTURES, seed=0)


def rows_of(dataset: Dataset) -> set[tuple[str, str]]:
    parts = (dataset.train, dataset.validation, dataset.test)
    return {
        (Path(str(text)).name, dataset.labels[target])
        for part in parts
        for text, target in zip(part.texts, part.targets, strict=True)
    }


@pytest.fixture
def classes(tmp_path):
    return write_classes(tmp_path / "photos")


def test_folders_by_class(classes):
    (classes / "cat" / "notes.txt").write_text("", "utf-8")
    (classes / "cat" / "Thumbs.db").write_bytes(b"x")
    (classes / "cat" / "notes.txt").unlink()
    dataset = loaded(classes)
    assert dataset.labels == ("cat", "dog")
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.test)] == [14, 3, 3]
    assert all(Path(text).is_absolute() for text in dataset.train.texts)
    assert dataset.columns.texts == ("image",)
    assert any("Left out 1 file that are no pictures" in finding for finding in dataset.findings)
    assert choose_task({"data": {"path": str(classes)}, "base": "x"}).task == "image-classification"


@pytest.mark.parametrize("layout", ["classes", "parts", "table"])
def test_a_folder_is_read_alike_by_its_relative_name(tmp_path, monkeypatch, layout):
    folder = write_classes(tmp_path / "set" / ("train" if layout == "parts" else "."))
    if layout == "table":
        lines = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(folder.glob("*/*.png"))]
        (tmp_path / "set" / "rows.csv").write_text("image,label\n" + "\n".join(lines) + "\n", "utf-8")
    name = "set/rows.csv" if layout == "table" else "set"
    expected = loaded(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert loaded(Path(name)).train == expected.train


def test_parts_first(tmp_path):
    write_classes(tmp_path / "set" / "train")
    write_classes(tmp_path / "set" / "test", each=4, first=500)
    dataset = loaded(tmp_path / "set")
    assert len(dataset.test) == 8
    assert all("/test/" in str(text) for text in dataset.test.texts)
    assert choose_task({"data": {"path": str(tmp_path / "set")}}).task == "image-classification"


@pytest.mark.parametrize("kind", ["csv", "jsonl", "metadata"])
def test_tables_name_files_from_their_own_folder(classes, tmp_path, kind, monkeypatch):
    monkeypatch.chdir("/")
    files = [(f"{path.parent.name}/{path.name}", path.parent.name) for path in sorted(classes.glob("*/*.png"))]
    if kind == "jsonl":
        path = classes / "rows.jsonl"
        path.write_text("\n".join(json.dumps({"picture": name, "kind": label}) for name, label in files), "utf-8")
    else:
        path = classes / ("metadata.csv" if kind == "metadata" else "rows.csv")
        head = "file_name,label" if kind == "metadata" else "photo,animal"
        path.write_text("\n".join([head, *(f"{name},{label}" for name, label in files)]), "utf-8")
    source = classes if kind == "metadata" else path
    dataset = loaded(source)
    assert rows_of(dataset) == {(Path(name).name, label) for name, label in files}
    assert all(Path(str(text)).is_file() for text in dataset.train.texts)
    assert choose_task({"data": {"path": str(source)}}).task == "image-classification"


def test_pictures_of_the_datasets_library(tmp_path):
    import datasets

    contents = [(picture_of(seed), seed % 2) for seed in range(20)]
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"img": [{"bytes": content, "path": None} for content, _ in contents], "label": [n for _, n in contents]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    saved.save_to_disk(tmp_path / "saved")
    saved.to_parquet(tmp_path / "rows.parquet")
    for source in (tmp_path / "saved", tmp_path / "rows.parquet"):
        dataset = loaded(source)
        assert dataset.labels == ("cat", "dog")
        assert len(dataset.train) == 14
        assert all(str(text).startswith("data:image;base64,") for text in dataset.train.texts)


def picture_of(seed: int) -> bytes:
    content = io.BytesIO()
    noise(seed).save(content, format="PNG")
    return content.getvalue()


def test_the_digest_is_of_contents_and_not_of_places(classes, tmp_path):
    first = loaded(classes)
    shutil.copytree(classes, tmp_path / "elsewhere")
    assert loaded(tmp_path / "elsewhere").digest == first.digest
    first.save(tmp_path)
    assert Dataset.open(tmp_path) == first
    noise(77).save(tmp_path / "elsewhere" / "cat" / "0.png")
    assert loaded(tmp_path / "elsewhere").digest != first.digest


def test_damaged_files_are_all_named(classes):
    whole = (classes / "cat" / "1.png").read_bytes()
    (classes / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (classes / "dog" / "2.png").write_bytes(b"")
    Image.new("1", (9_000, 9_000)).save(classes / "dog" / "3.png")
    with pytest.raises(DataError) as caught:
        loaded(classes)
    assert caught.value.found.startswith("3 of 20 pictures cannot be read:")
    for words in ("cat/1.png cannot be read", "dog/2.png is no picture", "dog/3.png has 9,000 x 9,000 pixels"):
        assert words in caught.value.found


def test_a_row_that_names_no_file_is_refused(classes):
    path = classes / "rows.csv"
    path.write_text("image,label\ncat/0.png,cat\nnowhere.png,dog\n", "utf-8")
    with pytest.raises(DataError, match=r"1 of 2 pictures cannot be read: There is no file .*nowhere\.png"):
        loaded(path)
    path.write_text("image,label\nhttps://example.org/a.png,cat\nhttps://example.org/b.png,dog\n", "utf-8")
    with pytest.raises(DataError, match="names pictures by address"):
        loaded(path)


def test_copies_leave_the_training_part_and_are_counted(tmp_path):
    write_classes(tmp_path / "train")
    write_classes(tmp_path / "test", each=4, first=500)
    shutil.copyfile(tmp_path / "train" / "cat" / "0.png", tmp_path / "train" / "cat" / "again.png")
    shutil.copyfile(tmp_path / "test" / "dog" / "1.png", tmp_path / "train" / "dog" / "leak.png")
    noise(500, size=64).save(tmp_path / "train" / "cat" / "larger.png")  # a picture of the test part in another size
    recipe = {"train": str(tmp_path / "train"), "test": str(tmp_path / "test")}
    dataset = Dataset.load(DataRecipe(**recipe), PICTURES, seed=0)
    names = {Path(str(text)).name for text in (*dataset.train.texts, *dataset.validation.texts)}
    assert not {"again.png", "leak.png"} & names or "0.png" not in names
    assert "leak.png" not in names
    assert "larger.png" not in {Path(str(text)).name for text in dataset.train.texts}
    sentences = " ".join(dataset.findings)
    assert "Removed 1 picture from the training data that stand there twice." in sentences
    assert "Removed 1 picture of the training data that also stand in a part that judges." in sentences
    whole = Dataset.load(DataRecipe(**recipe, clean={"deduplicate": False}), PICTURES, seed=0)
    assert len(whole.train) + len(whole.validation) == len(dataset.train) + len(dataset.validation) + 3 - (
        "larger.png" in {Path(str(text)).name for text in dataset.validation.texts}
    )


def test_one_file_under_two_labels_is_refused(classes):
    shutil.copyfile(classes / "cat" / "0.png", classes / "dog" / "same.png")
    with pytest.raises(
        DataError, match=r"stand there twice, under two labels: .*0\.png is 'cat' and .*same\.png is 'dog'"
    ):
        loaded(classes)


def test_plain_pictures_are_not_taken_for_copies_of_each_other(tmp_path):
    for place, label in enumerate(("dark", "light")):
        (tmp_path / label).mkdir()
        for number in range(10):
            Image.new("RGB", (20, 20), (100 * place + number,) * 3).save(tmp_path / label / f"{number}.png")
    dataset = loaded(tmp_path)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 20


def test_deep_pictures_fix_the_range(classes):
    for number, path in enumerate(sorted(classes.glob("*/*.png"))):
        draw = np.random.default_rng(number)
        Image.fromarray(draw.integers(100, 4_000, (20, 20)).astype(np.uint16)).save(path)
    dataset = loaded(classes)
    low, high = dataset.depth_range
    assert 100 <= low < 150
    assert 3_900 < high <= 4_000
    assert any("more than 8 bits a channel" in finding for finding in dataset.findings)


def test_keys_of_texts_are_refused_and_that_of_pictures_elsewhere(classes, toy_csv):
    with pytest.raises(RecipeError, match=r"data\.text is given"):
        loaded(classes, text="image")
    with pytest.raises(RecipeError, match=r"data\.image is given"):
        Dataset.load(DataRecipe(path=str(toy_csv), image="text"), TASKS["text-classification"], seed=0)


def test_a_table_without_pictures_is_refused(toy_csv):
    with pytest.raises(DataError, match="none names files such as"):
        Dataset.load(DataRecipe(path=str(toy_csv)), PICTURES, seed=0)


def test_variations_depend_on_their_seed_alone():
    picture = noise(1, size=64)
    recipe = AugmentRecipe(crop=0.5, colour=0.3, flip=True)
    first = augmented(picture, (32, 24), 2, recipe, (0, 1, 2))
    assert first.shape == (32, 24, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(first, augmented(picture, (32, 24), 2, recipe, (0, 1, 2)))
    assert not np.array_equal(first, augmented(picture, (32, 24), 2, recipe, (0, 2, 2)))
    plain = augmented(picture, (64, 64), 2, AugmentRecipe(crop=1, colour=0), (0, 1, 2))
    assert np.array_equal(plain, np.asarray(picture))
    mirrored = [
        augmented(picture, (64, 64), 2, AugmentRecipe(crop=1, colour=0, flip=True), (0, 0, n)) for n in range(8)
    ]
    assert {np.array_equal(each, np.asarray(picture)) for each in mirrored} == {True, False}
    assert all(
        np.array_equal(each, np.asarray(picture)) or np.array_equal(each[:, ::-1], np.asarray(picture))
        for each in mirrored
    )


def test_a_linear_model_sees_thumbnails(classes):
    names = sorted(map(str, classes.glob("*/*.png")))
    features = PixelFeatures(len(names)).transform(names)
    assert features.shape == (20, 16 * 16 * 3)
    assert np.linalg.norm(features.toarray(), axis=1) == pytest.approx(np.ones(20), abs=1e-4)


def test_thumbnails_are_small_data_urls(classes):
    url = thumbnail(str(classes / "cat" / "0.png"))
    assert url.startswith("data:image/jpeg;base64,")
    assert len(url) < 8_000
    assert picture_bytes("red")  # and are made of files of any kind
