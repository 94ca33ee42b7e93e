"""Reading a report: the golden one back to the same bytes, and what is no report."""

from __future__ import annotations

import pytest

from edgetune.serve.errors import BundleError
from edgetune.serve.report import Report

from .conftest import GOLDEN


def test_a_report_is_written_as_it_was_read():
    path = GOLDEN / "report.json"
    assert Report.load(path).to_json() == path.read_bytes()


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
