"""Reading a report: the golden one back to the same bytes, and what is no report."""

from __future__ import annotations

import msgspec
import pytest

from edgetune.serve.errors import BundleError
from edgetune.serve.report import Report

from .conftest import GOLDEN


def test_a_report_is_written_as_it_was_read():
    """Every field of an older release's report keeps its value; what came since reads as nothing."""
    path = GOLDEN / "report.json"
    old, new = (msgspec.json.decode(raw) for raw in (path.read_bytes(), Report.load(path).to_json()))
    for before, after in zip(old["quality"]["stages"], new["quality"]["stages"], strict=True):
        assert {name: after.pop(name) for name in before} == before
        assert after == {"metrics": {}}
    names = ("baseline", "warning", "batched", "floor", "floor_remark", "comparisons")
    assert [new["quality"].pop(name) for name in names] == [None, "", None, [], "", []]
    assert new["training"].pop("memory") == []
    for document in (old, new):
        del document["quality"]["stages"]
    assert {name: new[name] for name in old if name != "candidates"} == {
        name: value for name, value in old.items() if name != "candidates"
    }
    for before, after in zip(old["candidates"], new["candidates"], strict=True):
        assert {name: after[name] for name in before} == before
    assert (new["proof"], new["why"], new["gains"]) == (None, "", [])
    assert Report.load(path).packed.scheme == old["chosen"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"name": "\xff"}', b'{"a":' + b"[" * 100_000])
def test_what_is_no_report_is_refused(tmp_path, content):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"report\.json is no report: "):
        Report.load(path)


def test_a_missing_report_is_told(tmp_path):
    with pytest.raises(BundleError, match="There is no report at"):
        Report.load(tmp_path / "report.json")


def test_a_newer_report_is_named(bundle_copy):
    bundle_copy.change("report.json", lambda report: report.update(format=2))
    with pytest.raises(BundleError, match="has report format 2") as caught:
        Report.load(bundle_copy.path("report.json"))
    assert caught.value.action == "install a newer edgetune"
