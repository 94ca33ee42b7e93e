"""Tells what `make test-faults` tried, from the report that it leaves, as docs/reliability.md.

Run as `python -m benchmarks.lab.reliability .venv/faults.xml --markdown docs/reliability.md`. A test that failed or was
skipped is named as such; the counts are what the tests themselves wrote down when they had passed. Of a test that
stands in several reports the last one counts, so that some can be run again.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import click

from edgetune.benchmarks.timing.machine import describe_machine

_HEAD = """# Reliability

What `make test-faults` tried on {cpu} ({cores} cores, {os}, Python {python}), two tests beside each other,
{minutes:.0f} minutes of them together: {passed} tests passed, {failed} failed, {skipped} were skipped.{again}
`make test` has an example of each kind. This page is written by
`python -m benchmarks.lab.reliability .venv/faults.xml`.

| what was tried | how often | outcome |
|---|---|---|
"""


@dataclass(frozen=True)
class Case:
    """One test: its name in words, what it counted, how it ended, and the seconds it took."""

    name: str
    counts: dict[str, str]
    outcome: str
    seconds: float

    @classmethod
    def of(cls, element: ElementTree.Element) -> Case:
        """A test of a JUnit report."""
        counts = {item.get("name", ""): item.get("value", "") for item in element.iter("property")}
        ends = [name for name in ("failure", "error", "skipped") if element.find(name) is not None]
        name = element.get("name", "").removeprefix("test_").replace("_", " ")
        return cls(name, counts, ends[0] if ends else "passed", float(element.get("time", 0)))


def page(cases: list[Case], runs: int) -> str:
    """The page of a run of tests."""
    machine = describe_machine(1)
    ends = [case.outcome for case in cases]
    head = _HEAD.format(
        cpu=machine.cpu,
        cores=machine.cores,
        os=platform.system(),
        python=platform.python_version(),
        minutes=sum(case.seconds for case in cases) / 60,
        passed=ends.count("passed"),
        failed=ends.count("failure") + ends.count("error"),
        skipped=ends.count("skipped"),
        again=f" Of {runs} runs the last one of each test counts." if runs > 1 else "",
    )
    lines = []
    for case in cases:
        counts = ", ".join(f"{value} {what}" for what, value in case.counts.items()) or "once"
        lines.append(f"| {case.name} | {counts} | {case.outcome} |\n")
    return head + "".join(lines)


@click.command(help=__doc__)
@click.argument("reports", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--markdown", type=click.Path(path_type=Path), help="File to write the page to.")
def main(reports: tuple[Path, ...], markdown: Path | None) -> None:
    """Write the page."""
    cases = [Case.of(element) for report in reports for element in ElementTree.parse(report).iter("testcase")]
    text = page(list({case.name: case for case in cases}.values()), len(reports))
    if markdown is None:
        click.echo(text, nl=False)
        return
    part = markdown.with_name(f"{markdown.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(markdown)


if __name__ == "__main__":
    main()
