"""A language model's report and what its bundle's manifest adds: read, refused, and as their pages tell them."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path

import msgspec
import pytest

from edgetune.serve.bundle import Manifest
from edgetune.serve.errors import BundleError
from edgetune.serve.stepwise import report
from edgetune.serve.stepwise.golden import GenerationCase
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.serve.stepwise.spec import GenerationSpec

TESTS = Path(__file__).parent.parent.parent
SAMPLE = TESTS / "benchmarks" / "stepwise" / "sample_report.json"
REPORT_PAGE = (TESTS.parent / "docs" / "report-format.md").read_text("utf-8").partition("\n## Language models\n")[2]
BUNDLE_PAGE = (TESTS.parent / "docs" / "bundle-format.md").read_text("utf-8").partition("\n## Language models\n")[2]
VALUES = {
    name: value
    for name, value in inspect.getmembers(report, inspect.isclass)
    if issubclass(value, msgspec.Struct) and value.__module__ == report.__name__
}


def table(page: str, first: str) -> list[list[str]]:
    """The rows, without code marks, of the first table of `page` whose first column is called `first`."""
    lines = page.partition(f"\n| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def nullable(value: type[msgspec.Struct]) -> set[str]:
    """The fields of a struct that may be None."""
    return {one.name for one in msgspec.structs.fields(value) if type(None) in typing.get_args(one.type)}


def test_a_report_is_written_as_it_was_read(tmp_path):
    found = LanguageReport.load(SAMPLE)
    path = tmp_path / "report.json"
    path.write_bytes(found.to_json())
    assert LanguageReport.load(path) == found
    assert found.packed is found.proof
    assert msgspec.structs.replace(found, proof=None).packed.scheme == found.chosen
    assert msgspec.structs.replace(found, proof=None, candidates=[]).packed is None


def test_a_report_from_before_these_fields_opens_without_them(tmp_path):
    told = msgspec.json.decode(SAMPLE.read_bytes())
    del told["why"], told["skipped"], told["quality"]["answers"], told["quality"]["answer_tokens"]
    told["samples"] = [{"prompt": "Hello", "base": "a", "tuned": "b", "bundle": "c"}]
    path = tmp_path / "report.json"
    path.write_bytes(msgspec.json.encode(told))
    found = LanguageReport.load(path)
    assert (found.why, found.skipped, found.quality.answers, found.quality.answer_tokens) == ("", {}, 0, 0)
    assert found.samples == [report.SampleAnswers(prompt="Hello", base="a", tuned="b", bundle="c")]
    assert found.samples[0].reference is None


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"name": "\xff"}', b'{"a":' + b"[" * 100_000])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"report\.json is no report: "):
        LanguageReport.load(path)


def test_a_missing_and_a_newer_report_are_told(tmp_path):
    with pytest.raises(BundleError, match="There is no report at"):
        LanguageReport.load(tmp_path / "report.json")
    newer = msgspec.structs.replace(LanguageReport.load(SAMPLE), format=2)
    (tmp_path / "report.json").write_bytes(newer.to_json())
    with pytest.raises(BundleError, match="has report format 2") as caught:
        LanguageReport.load(tmp_path / "report.json")
    assert caught.value.action == "install a newer edgetune"


def test_the_page_has_a_section_for_every_value():
    assert sorted(re.findall(r"^### (\w+)$", REPORT_PAGE, re.MULTILINE)) == sorted(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_the_page_names_every_field_in_order(name):
    rows = table(REPORT_PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0], "field")
    own = list(VALUES[name].__annotations__)  # what it inherits stands in the section of what it inherits from
    assert [row[0] for row in rows] == own
    assert {row[0] for row in rows if row[1].endswith("or null")} == nullable(VALUES[name]) & set(own)


def test_the_page_names_every_key_of_the_decoder_in_order():
    rows = table(BUNDLE_PAGE, "generation key")
    assert [row[0] for row in rows] == [field.name for field in msgspec.structs.fields(GenerationSpec)]
    assert {row[0] for row in rows if row[1].endswith("or null")} == nullable(GenerationSpec)
    assert "generation" in nullable(Manifest)


def test_the_page_names_every_key_of_a_golden_case():
    assert [row[0] for row in table(BUNDLE_PAGE, "golden key")] == [
        field.name for field in msgspec.structs.fields(GenerationCase)
    ]
