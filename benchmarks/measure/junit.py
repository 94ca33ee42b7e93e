"""A checked budget as a JUnit file, which continuous integration shows: a test for each limit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree

from edgetune.benchmarks.measure.budget import Checked

# What XML 1.0 has no place for.
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(name: str, checks: Sequence[Checked]) -> str:
    """The file's text: a suite called after the bundle, a case for each limit, a failure for each that is not met."""
    failures = sum(not one.met for one in checks)
    counts = {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": _plain(f"edgetune check {name}"), **counts})
    for one in checks:
        attributes = {"classname": _plain(f"budget.{name}"), "name": one.name, "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", attributes)
        if not one.met:
            failure = ElementTree.SubElement(case, "failure", {"message": _plain(one.sentence), "type": "budget"})
            failure.text = _plain(f"{one.sentence}\nfrom {one.source}\n{one.remark}".rstrip())
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _plain(text: str) -> str:
    return _NO_XML.sub("\ufffd", text)
