"""The page on language models: the targets of each family, the race behind them, and what could not be shown.

The table stands between two markers, so that what people write around it stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab.language.artefacts import FP32, INT4, INT4_G128, PYTORCH
from benchmarks.lab.language.results import Result, targets
from benchmarks.lab.real_data import table
from edgetune.benchmarks.stepwise.figures import SideFigures, agreement, decoding

_VERSIONS = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu", "onnxruntime-genai", "onnxruntime-genai-cuda")


@dataclass(frozen=True)
class Markers:
    """The comments between which a program writes its part of a page.

    Attributes:
        name: of the part.
    """

    name: str

    @property
    def start(self) -> str:
        """Before the part."""
        return f"<!-- {self.name} -->"

    @property
    def end(self) -> str:
        """Behind it."""
        return f"<!-- /{self.name} -->"


MARKERS = Markers("language models: speed")


def page(results: Sequence[Result], remarks: Sequence[str]) -> str:
    """The text between the markers, with them."""
    lines = [
        MARKERS.start,
        "## Speed, size and memory",
        "",
        "Written by `python -m benchmarks.lab.language.language_models`. **The models are random**: their "
        "shapes are those of the families, their weights were never trained, and nothing here says how well int4 "
        "answers; Llama alone is proven on trained weights too, a small one, and the other families on random ones "
        "only. Speed, size and memory do not depend on what the weights are. All sides of a family run in one race, "
        "each in a process of its own, with the same threads and the same prompts, in turn. Memory is the peak of a "
        "process that loaded the model, answered prompts of every length and decoded at batch 1; PyTorch's holds what "
        "loading took. PyTorch's loop is that of `generate` without its bookkeeping, in fp32, eager. The graphs of "
        "onnxruntime-genai are of its own builder, in blocks of 32, which it takes by default, and of 128.",
        "",
        *(line for remark in remarks for line in (remark, "")),
    ]
    lines += ["### What must be reached", "", *_targets(results), ""]
    for result in results:
        lines += [*_section(result), ""]
    lines += ["### What was not measured, and why", "", *_missing(results), "", MARKERS.end, ""]
    return "\n".join(lines)


def place(path: Path, text: str, markers: Markers = MARKERS) -> None:
    """Put a part between its markers in a file, or at the end of one that has none."""
    known = path.read_text(encoding="utf-8") if path.is_file() else "# Language models: figures\n\n"
    found = re.search(f"{re.escape(markers.start)}.*?{re.escape(markers.end)}\n?", known, flags=re.DOTALL)
    start, end = found.span() if found else (len(known), len(known))
    path.write_text(known[:start] + text + known[end:], encoding="utf-8")


def _targets(results: Sequence[Result]) -> list[str]:
    """One line a family and target; both of our int4 graphs beside each other."""
    lines = []
    for result in results:
        pairs = zip(targets(result, INT4_G128), targets(result, INT4), strict=True)
        for number, (coarse, fine) in enumerate(pairs):
            family = f"{result.artefacts.family}, {result.size}" if number == 0 else ""
            shown = (cell for one in (coarse, fine) for cell in (one.measured, one.verdict()))
            remark = "; ".join(dict.fromkeys(filter(None, (coarse.remark, fine.remark))))
            lines.append([family, coarse.figure, coarse.must, *shown, remark])
    return table(["family", "figure", "must reach", INT4_G128, "reached", INT4, "reached", ""], lines)


def _section(result: Result) -> list[str]:
    """One family: the whole race."""
    race, machine = result.race, result.machine
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in _VERSIONS if name in machine.versions)
    head = ["side", "MB", *(f"first token of {tokens}, ms" for tokens in race.prompt_tokens)]
    head += [f"tokens/s, batch {batch}" for batch in race.batches]
    head += ["times at batch 1", "peak MB", "peak MB, all batches", "cold start ms", f"tokens as {PYTORCH}"]
    return [
        f"### {result.artefacts.family}, {result.artefacts.parameters / 1e6:,.0f} million parameters",
        "",
        f"{machine.cpu}, {race.threads} thread{'s' * (race.threads > 1)}, {', '.join(machine.isa)}; {versions}. "
        f"Medians of {race.rounds} rounds; {race.new_tokens} tokens decoded behind prompts of "
        f"{race.decode_prompt_tokens}.",
        "",
        *table(head, [_side(result, one) for one in race.sides.values() if not one.reason]),
        *_covered(result),
    ]


def _side(result: Result, one: SideFigures) -> list[str]:
    race, base = result.race, result.side(PYTORCH)
    speed = decoding(base, one, 1) if base else None
    same = agreement(one, base) if base else None
    return [
        one.side,
        _mega(one.size_bytes),
        *(_number(one.first_token_ms(tokens), 1) for tokens in race.prompt_tokens),
        *(_number(one.tokens_per_second(batch), 1) for batch in race.batches),
        f"{speed.speedup:.2f} ({speed.ci95[0]:.2f} to {speed.ci95[1]:.2f})"
        if speed and speed.speedup and speed.ci95
        else "",
        _mega(one.memory.rss_peak_bytes),
        _mega(one.memory_batches.rss_peak_bytes),
        _number(one.cold_ms, 0),
        # Rounding to 4 or 8 bits changes the answers of random weights, whose logits nearly tie.
        f"{same[0]} of {same[1]}" if same and one.side in (PYTORCH, FP32) else "",
    ]


def _covered(result: Result) -> list[str]:
    said = [f"{name}: {sentence}" for name, sentence in result.artefacts.coverage.items() if sentence]
    return ["", "In the files: " + "; ".join(said) + "."] if said else []


def _missing(results: Sequence[Result]) -> list[str]:
    lines = [
        f"- {result.artefacts.family}, {result.size}, {name}: {reason}"
        for result in results
        for name, reason in result.missing().items()
    ]
    return lines or ["Every side of every family ran."]


def _mega(size: int | None) -> str:
    return "" if size is None else f"{size / 1e6:,.0f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"
