"""What building from a program returns: folder and figures, shown as a table in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune.serve.predictor import Predictor
    from edgetune.serve.report import Report
    from edgetune.serve.stepwise.generator import Generator
    from edgetune.serve.stepwise.report import LanguageReport
    from edgetune.terminal import Row


@dataclass(frozen=True, repr=False)
class BuildResult:
    """A bundle that was built and measured; a notebook shows it as the table of base against bundle.

    Attributes:
        folder: the bundle.
        work: the work folder, from which a later build continues.
        report: all that was measured: a `LanguageReport` for a language model, a `Report` for any other.
    """

    folder: Path
    work: Path
    report: Report | LanguageReport

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of the table: what was measured, base, bundle, and how the bundle differs."""
        return report_rows(self.report)

    def load(self, *, threads: int | None = None, provider: str = "auto") -> Predictor | Generator:
        """The bundle, opened for answering, as `edgetune.load` does."""
        from edgetune.api.bundle import load

        return load(self.folder, threads=threads, provider=provider)

    def __repr__(self) -> str:
        return f"Bundle {self.folder}: {self.report.verdict}"

    def _repr_html_(self) -> str:
        decision = self.report.decision
        remarks = (
            decision.sentence if decision else "",
            self.report.verdict,
            self.report.timing_remark,
            f"Bundle: {self.folder}",
        )
        return html_table(("", "base (PyTorch)", "bundle", "change"), self.rows, remarks)


@dataclass(frozen=True)
class TuneResult:
    """A tuned and merged model.

    Attributes:
        folder: the model, as `transformers` opens it.
        work: the work folder, from which a later build continues.
        method: what was handed on, such as probe or lora.
        figures: held-out figures by name: the gate's metric on the validation part as "validation", or the perplexity
            of base and tuned model.
    """

    folder: Path
    work: Path
    method: str
    figures: Mapping[str, float]

    @classmethod
    def of(cls, summary: Mapping[str, Any], work: Path) -> TuneResult:
        """From what the tune stage says to scripts."""
        figures: dict[str, float] = {}
        for name, value in summary.items():
            if isinstance(value, Mapping):
                figures |= {f"{inner} {name}": float(figure) for inner, figure in value.items()}
            elif name not in ("folder", "method"):
                figures[name] = float(value)
        return cls(Path(summary["folder"]), work, summary["method"], figures)


def report_rows(report: Report | LanguageReport) -> tuple[Row, ...]:
    """The rows of a report's table, by its task."""
    from edgetune.tasks import TASKS

    rows: tuple[Row, ...] = TASKS[report.task].load("figures")(report)
    return rows


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], remarks: Iterable[str]) -> str:
    """A table whose first column names its rows, and sentences below it; all are texts and none is HTML."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th>{escape(name)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, *cells in rows
    )
    below = "".join(f"<p>{escape(remark)}</p>" for remark in remarks if remark)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
