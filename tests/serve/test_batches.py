"""Batches of columns: answers beside the rows they belong to, gaps, and a folder of Parquet answered by a local Ray."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.batches import BatchAnswers
from edgetune.serve.errors import InputError

from .conftest import GOLDEN

TEXTS = ["where is my parcel", "i still money card", "reset my it today again"]
LABELS = ["delivery", "payment", "account"]
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_answers_stand_beside_their_rows():
    answers = BatchAnswers(str(GOLDEN), columns="body")
    batch = {"body": np.array(TEXTS, dtype=object), "label": np.array([1, 2, 3])}
    added = answers(batch)
    assert list(added) == ["body", "label", "predicted_label", "predicted_score", "predicted_truncated"]
    assert added["predicted_label"].tolist() == LABELS
    expected = load(GOLDEN, threads=1).predict(TEXTS)
    assert added["predicted_score"].tolist() == [answer.score for answer in expected]
    assert added["predicted_truncated"].tolist() == [False] * 3
    assert added["label"] is batch["label"]


def test_a_cascade_says_who_answered(cascade_bundle):
    batch = {"text": ["where is my parcel", "", "card login"]}
    added = BatchAnswers(str(cascade_bundle), columns=["text"])(batch)
    assert added["predicted_answered_by"].tolist() == ["static", None, "fp32"]


def test_rows_without_a_text_keep_their_place():
    answers = BatchAnswers(str(GOLDEN), columns=["body"], prefix="")
    gaps = [None, TEXTS[0], float("nan"), " ", TEXTS[1]]
    assert answers({"body": gaps})["label"].tolist() == [None, LABELS[0], None, None, LABELS[1]]
    assert answers({"body": [None, ""]})["score"].tolist() == [None, None]
    assert answers({"body": []})["label"].tolist() == []
    with pytest.raises(InputError, match="Text 1 is of type int"):
        answers({"body": ["card", 3]})


def test_the_columns_are_those_of_training_unless_named(bundle_copy):
    with pytest.raises(InputError, match="0 columns are named for text"):
        BatchAnswers(str(bundle_copy.folder))
    bundle_copy.change_manifest(lambda manifest: manifest.update(columns=["Review Text"]))
    answers = BatchAnswers(str(bundle_copy.folder))
    assert answers({"Review Text": TEXTS})["predicted_label"].tolist() == LABELS
    with pytest.raises(InputError, match="has no column 'Review Text'; its columns are 'text'"):
        answers({"text": TEXTS})
    with pytest.raises(InputError, match="has a column 'predicted_label' already"):
        answers({"Review Text": TEXTS, "predicted_label": LABELS})


@pytest.mark.parametrize(("kind", "members"), [("labels", ["labels", "truncated"]), ("number", ["value", "truncated"])])
def test_other_heads_and_pairs(kind_bundle, kind, members):
    answers = BatchAnswers(str(kind_bundle(kind, "text-pair")), columns=["a", "b"])
    added = answers({"a": TEXTS, "b": [*TEXTS[1:], None]})
    predictor = answers.predictor
    expected = [predictor.head.as_json(one, None) for one in predictor.predict(list(itertools.pairwise(TEXTS)))]
    for name in members:
        assert added[f"predicted_{name}"].tolist() == [*(row[name] for row in expected), None]


@pytest.mark.servers
def test_a_folder_of_parquet_is_answered_by_ray(tmp_path, bundle_copy):
    """The example of the documentation as it stands there, on a local Ray."""
    pytest.importorskip("ray.data")
    import pyarrow.parquet

    bundle_copy.change_manifest(lambda manifest: manifest.update(columns=["text"]))
    shutil.copytree(bundle_copy.folder, tmp_path / "bundles" / "x")
    (tmp_path / "messages").mkdir()
    for number in range(4):
        rows = {"text": [*TEXTS, None], "number": [number] * 4}
        pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "messages" / f"{number}.parquet")
    code = re.search(r"```python\n(import ray\n.*?)```", PAGE.read_text("utf-8"), re.DOTALL)[1]
    code = code.replace("bundles/x", str(tmp_path / "bundles" / "x")).replace("concurrency=4", "concurrency=2")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": "/tmp"}
    code = f"import ray; ray.init(num_cpus=3, include_dashboard=False)\n{code}"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    answered = pyarrow.parquet.read_table(tmp_path / "answered").to_pylist()
    assert sorted(row["number"] for row in answered) == sorted([0, 1, 2, 3] * 4)
    found = {(row["text"], row["predicted_label"]) for row in answered}
    assert found == {*zip(TEXTS, LABELS, strict=True), (None, None)}
