"""What was found of one family, kept in a file: what was made, how it raced, where, and which targets it reached.

Apart from the page, so that targets are judged in one place, whoever shows them. Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.lab.language.artefacts import BLOCKS, GENAI, GENAI_G128, PYTORCH, Artefacts
from edgetune.benchmarks.stepwise.figures import RaceFigures, SideFigures, decoding
from edgetune.serve.report import Machine

LEAST_SPEEDUP, MOST_FILE, MOST_MEMORY = 6.0, 0.17, 0.25
FORBIDDEN = ("torch", "transformers", "onnx")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One family in one size."""

    size: str
    artefacts: Artefacts
    race: RaceFigures
    machine: Machine

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def open(cls, path: Path) -> Result:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def side(self, name: str) -> SideFigures | None:
        """A side's figures; None where it was not made, or did not finish."""
        found = self.race.sides.get(name)
        return None if found is None or found.reason else found

    def missing(self) -> dict[str, str]:
        """Why sides are not there: not made, or ended on the way."""
        ended = {name: one.reason for name, one in self.race.sides.items() if one.reason}
        return self.artefacts.reasons | ended


@dataclass(frozen=True)
class Target:
    """A figure of one graph with what it must reach.

    Attributes:
        figure: what is measured.
        must: the limit in words.
        measured: in words; empty where it could not be measured.
        reached: None where it could not be measured.
        remark: what the reader must know of it.
    """

    figure: str
    must: str
    measured: str = ""
    reached: bool | None = None
    remark: str = ""

    def verdict(self) -> str:
        """yes, no, or not measured."""
        return {None: "not measured", True: "yes", False: "**no**"}[self.reached]


def targets(result: Result, name: str) -> list[Target]:
    """What one of our graphs must reach, and whether it did."""
    alike = GENAI_G128 if name in BLOCKS else GENAI
    base, ours, other, same = (result.side(one) for one in (PYTORCH, name, GENAI, alike))
    missing = result.missing()
    return [
        _faster(f"tokens a second at batch 1, against {PYTORCH}", ours, base, LEAST_SPEEDUP),
        _faster(f"tokens a second at batch 1, against {GENAI} by default", ours, other, 1.0, missing.get(GENAI, "")),
        _faster(
            "tokens a second at batch 1, against the same in equal blocks", ours, same, 1.0, missing.get(alike, "")
        ),
        _share("weights' file, of the fp32 one", _size(ours), _size(base), MOST_FILE),
        _share("peak resident memory, of PyTorch's", _peak(ours), _peak(base), MOST_MEMORY),
        _without_torch(ours),
    ]


def _faster(figure: str, ours: SideFigures | None, other: SideFigures | None, least: float, remark: str = "") -> Target:
    must = f"at least {least:g} times"
    found = decoding(other, ours, 1) if ours and other else None
    if found is None or found.speedup is None or found.ci95 is None:
        return Target(figure, must, remark=remark)
    low, high = found.ci95
    undecided = low < least <= high
    return Target(
        figure,
        must,
        f"{found.speedup:.2f} times ({low:.2f} to {high:.2f})",
        found.speedup >= least,
        "the interval holds both answers" if undecided else "",
    )


def _share(figure: str, ours: int | None, base: int | None, most: float) -> Target:
    must = f"at most {most:g}"
    if ours is None or base is None:
        return Target(figure, must)
    return Target(figure, must, f"{ours / base:.3f} ({ours / 1e6:,.0f} of {base / 1e6:,.0f} MB)", ours / base <= most)


def _without_torch(ours: SideFigures | None) -> Target:
    figure, must = "modules of the runtime", f"without {', '.join(FORBIDDEN)}"
    if ours is None:
        return Target(figure, must)
    found = [name for name in FORBIDDEN if name in ours.modules]
    return Target(figure, must, f"with {', '.join(found)}" if found else "none of them", not found)


def _size(side: SideFigures | None) -> int | None:
    return side.size_bytes if side else None


def _peak(side: SideFigures | None) -> int | None:
    return side.memory.rss_peak_bytes if side else None
