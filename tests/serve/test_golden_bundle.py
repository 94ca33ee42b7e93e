"""The golden bundle of format 1: what users have on their disks. It opens for ever.

A failure here means that a release cannot read bundles it promised to read, or that docs/bundle-format.md says what is
not so. Never make the bundle again to mend it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.bundle import Bundle, HeadSpec, Manifest, TensorSpec, Variant
from edgetune.serve.codecs import CODECS
from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.serve.engines.spec import CascadeSpec, EngineSpec
from edgetune.serve.golden import replay_golden
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import HEADS
from edgetune.serve.report import Report

TESTS = Path(__file__).parent.parent
FOLDER = TESTS / "golden" / "bundle-v1"
PAGE = (TESTS.parent / "docs" / "bundle-format.md").read_text("utf-8")

# What the bundle answered when it was made. Not from golden.json: that is compared with itself by replaying it.
ANSWERS = {
    "i still money card": "payment",
    "courier is you please was": "delivery",
    "reset my it today again not was it": "account",
    "where is my parcel": "delivery",
    "WHY was my card charged twice?!": "payment",
}


def table(heading: str, first: str) -> list[list[str]]:
    """The rows, without code marks, of the table below `heading` whose first column is called `first`."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = section.partition(f"\n| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture(scope="module")
def predictor():
    return load(FOLDER, threads=1, provider="cpu")


def raw(name: str) -> dict:
    return json.loads((FOLDER / name).read_text("utf-8"))


def test_it_opens_and_verifies(predictor):
    replay = replay_golden(predictor)
    assert replay.cases == 8
    assert replay.max_abs_diff <= replay.tolerance < 0.002


def test_it_answers_as_it_did(predictor):
    answers = predictor.predict(list(ANSWERS))
    assert [answer.label for answer in answers] == list(ANSWERS.values())


def test_its_first_scores_are_those_that_were_packed(predictor):
    found = predictor.scores(["i still money card"])[0]
    logits = np.array([-0.29195, -0.160678, 0.532066])
    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), atol=1e-4)


def test_the_files_are_those_of_the_page():
    names = [row[0] for row in table("Files", "file")]
    assert sorted(names) == sorted(path.name for path in FOLDER.iterdir())
    assert sorted(names) == sorted({*raw("manifest.json")["files"], "manifest.json"})


def test_the_manifest_has_the_keys_of_the_page_in_order():
    rows = table("The manifest", "key")
    # The golden bundle was written before these came: it opens for ever.
    later = {"runtime", "variants", "generation", "model_digest", "codec", "heads", "columns", "strip_inputs"}
    later |= {"engine", "cascade", "targets", "manifest_digest"}
    assert [row[0] for row in rows if row[0] not in later] == list(raw("manifest.json"))
    assert [row[0] for row in rows] == [field.name for field in msgspec.structs.fields(Manifest)]


def test_the_manifest_has_the_types_of_the_page():
    kinds = {"boolean": bool, "integer": int, "string": str, "list of": list, "object": dict}
    manifest = raw("manifest.json")
    for name, kind, _ in table("The manifest", "key"):
        wanted = next(type_ for word, type_ in kinds.items() if kind.startswith(word))
        if name in manifest:  # `runtime` and `variants` came after the golden bundle was written
            assert type(manifest[name]) is wanted, name


def test_a_variant_has_the_keys_of_the_page_in_order():
    assert [row[0] for row in table("Variants", "key")] == [field.name for field in msgspec.structs.fields(Variant)]


def test_engine_and_cascade_have_the_keys_of_the_page_in_order():
    for struct, name in ((EngineSpec, "engine key"), (CascadeSpec, "cascade key")):
        names = [row[0] for row in table("Engines and cascades", name)]
        assert names == [field.name for field in msgspec.structs.fields(struct)]


def test_a_head_has_the_keys_of_the_page_in_order():
    names = [row[0] for row in table("Codecs and heads", "head key")]
    assert names == [field.name for field in msgspec.structs.fields(HeadSpec)]


def test_picture_settings_have_the_keys_of_the_page_in_order():
    names = [row[0] for row in table("Codecs and heads", "picture key")]
    assert names == [field.name for field in msgspec.structs.fields(PictureSpec)]


def test_the_kinds_and_codecs_are_those_of_the_page():
    assert [row[0] for row in table("Codecs and heads", "kind")] == list(HEADS)
    assert [row[0] for row in table("Codecs and heads", "codec")] == list(CODECS)


def test_the_manifest_says_what_it_said():
    manifest = Bundle.open(FOLDER).manifest
    assert manifest.format == 1
    assert manifest.task == "text-classification"
    assert manifest.labels == ["account", "delivery", "payment"]
    assert manifest.max_tokens == 32
    assert (manifest.scheme, manifest.provider) == ("fp32", "cpu")
    assert sum(manifest.dtypes.values()) == pytest.approx(1, abs=1e-3)
    assert manifest.base.id == "tiny-bert"
    for digest in (manifest.base.digest, manifest.data_digest):
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", manifest.created)


def test_the_tensors_are_those_of_the_page():
    rows = {name: (dtype, shape.split(", ")) for name, dtype, shape, _ in table("The manifest", "tensor")}
    manifest = Bundle.open(FOLDER).manifest
    specs = [*manifest.inputs, *manifest.outputs]
    assert {spec.name for spec in specs} == set(rows)
    for spec in specs:
        dtype, shape = rows[spec.name]
        assert spec == TensorSpec(spec.name, dtype, [{"labels": 3}.get(size, size) for size in shape])


def test_the_golden_answers_have_the_keys_of_the_page():
    golden = raw("golden.json")
    names = [row[0] for row in table("The golden answers", "key")]
    assert list(golden) == ["tolerance", "cases"]
    # Only other heads and pairs have those that came later.
    assert all(list(case) == names[:4] for case in golden["cases"])
    assert names == [field.name for field in msgspec.structs.fields(GoldenCase)]


def test_its_report_opens():
    report = Report.load(FOLDER / "report.json")
    assert (report.format, report.chosen, report.machine.os) == (1, "fp32", "Linux")
    assert [stage.stage for stage in report.quality.stages] == ["base", "tuned", "merged", "onnx", "fp32"]


def test_its_files_tell_no_path_of_the_builder():
    for path in FOLDER.iterdir():
        assert not re.search(rb"/(?:home|root|tmp|Users|work)/", path.read_bytes()), path.name


def test_it_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 120_000
