"""Fused 16-bit graphs against PyTorch on a GPU: latency by shape, memory, and whether the answers are still the same.

Run as `python -m benchmarks.lab.performance_gpu --work BUNDLES/x.work --markdown docs/measurements/performance-gpu.md`
with the work folder of a build. The graph is exported anew for the GPU, fused, and written in fp16 and bf16; then all
sides run in turn. Without a GPU it says what it would measure and ends with 1; `--device cpu` runs what a CPU can, to
try the script itself: its figures say nothing about a GPU.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from benchmarks.lab.gpu_race import KINDS, REFERENCE, SHAPES, Measured, Workload, agreement, faster, race
from benchmarks.lab.real_data import table
from edgetune.benchmarks.timing.blocks import BLOCK
from edgetune.benchmarks.timing.machine import describe_machine, find_gpu
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import CompressError, EdgetuneError, ProviderError
from edgetune.serve.report import Machine
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Target
from edgetune.tune.training.progress import Progress, Silent

ABSENT = "not measured"
PACKAGES = ("torch", "transformers", "onnxruntime", "onnxruntime-gpu")


class Lines(Silent):
    """Findings as lines on stderr."""

    def say(self, text: str) -> None:
        """One finding."""
        click.echo(text, err=True)


@click.command()
@click.option("--work", type=click.Path(path_type=Path, exists=True), required=True, help="A build's work folder.")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--samples", type=click.IntRange(min=BLOCK), default=200, show_default=True, help="Calls a shape.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the page; stdout when not said.")
def main(work: Path, device: str, samples: int, markdown: Path | None) -> None:
    """Make the graphs, race, and print the page."""
    try:
        check_device(device)
        text = measure(work, device, samples, Lines())
    except EdgetuneError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


def check_device(device: str) -> None:
    """Refuse to go on where the device is not there.

    Raises:
        ProviderError: a GPU is wanted and there is none, or torch cannot use it.
    """
    if device == "cpu":
        return
    if find_gpu() is None:
        missing = "This machine has no NVIDIA GPU that the driver, NVML or torch can see: nothing was measured."
    else:
        import torch

        if torch.cuda.is_available():
            return
        missing = "There is an NVIDIA GPU, but the installed torch cannot use it: nothing was measured."
    raise ProviderError(
        missing,
        expected=f"a GPU, on which this would be measured:\n{would_measure()}",
        action="run the same command on a machine with a GPU, or try the script alone with --device cpu",
    )


def would_measure() -> str:
    """What a run on a GPU measures, one line a figure."""
    batches, lengths = sorted({batch for batch, _ in SHAPES}), sorted({tokens for _, tokens in SHAPES})
    shapes = f"batches of {_listed(batches)} texts by {_listed(lengths)} tokens"
    return "\n".join(
        [
            f"  sides: {'; '.join(KINDS)}; each in a process of its own, in turn, block by block",
            f"  latency: p50 and p90 of {shapes}, ids on the host to logits on the host",
            "  ratios: each fused side against PyTorch fp16 and bf16, with 95% intervals",
            "  memory: the peak of torch's allocator, and NVML's rise of the device, each side alone",
            f"  answers: labels and logits on the validation part against {REFERENCE}, and accuracy",
        ]
    )


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(str(number) for number in numbers[:-1])} and {numbers[-1]}"


def measure(work: Path, device: str, samples: int, progress: Progress) -> str:
    """The page of one work folder.

    Raises:
        EdgetuneError: the work folder is none, or no fused graph could be made of the model.
    """
    dataset = Dataset.open(work / "data")
    with tempfile.TemporaryDirectory() as folder:
        workload = prepare(work, dataset, device, Path(folder), progress)
        gc.collect()  # sessions of the proofs leave the device before its memory is read
        measured = race(workload, samples)
    return page(describe_machine(usable_cores()), workload, measured, dataset, work.name.removesuffix(".work"))


def prepare(work: Path, dataset: Dataset, device: str, folder: Path, progress: Progress) -> Workload:
    """Export for the device, fuse, write the 16-bit graphs and the token ids of the validation part into `folder`.

    Raises:
        EdgetuneError: the model cannot be exported or fused for this device.
    """
    from edgetune.compress.material import Material
    from edgetune.compress.schemes import SCHEMES
    from edgetune.export.once.export import export
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.model import TunedModel

    tuned = TunedModel.open(work / "tune")
    material = Material(
        tuned, dataset.train, dataset.validation, dataset.unlabeled, device, device, seed=0, progress=progress
    )
    exported = export(tuned, dataset, device, folder / "export", progress).path
    fused = SCHEMES["fused"].compress(exported, folder / "fused", material)
    progress.say(f"fused: {fused.made_by}")
    graphs, reasons = {}, {}
    for name in ("fp16", "bf16"):
        try:
            made = SCHEMES[name].compress(fused.graph, folder / name, material)
            progress.say(f"{name}: {made.made_by}")
            graphs[name] = made.graph
        except CompressError as error:
            reasons[name] = error.found
    shapes = [(batch, tokens) for batch, tokens in SHAPES if tokens <= tuned.max_tokens]
    encoder = replace(Encoder.of(tuned), max_tokens=max(tokens for _, tokens in shapes))
    rows = encoder.rows(dataset.validation.texts)
    place = folder / "rows.json"
    place.write_text(json.dumps([row["input_ids"] for row in rows]), encoding="utf-8")
    pad = encoder.tokenizer.pad_token_id or 0
    return Workload(device, tuned.model_folder, graphs, reasons, place, len(tuned.labels), pad, shapes)


def page(machine: Machine, workload: Workload, measured: dict[str, Measured], dataset: Dataset, name: str) -> str:
    """The Markdown page."""
    versions = ", ".join(f"{one} {machine.versions[one]}" for one in PACKAGES if one in machine.versions)
    gpu = machine.gpu if workload.device == "cuda" else None
    lines = [
        "# Performance on a GPU",
        "",
        "Written by `python -m benchmarks.lab.performance_gpu`. All sides in turn, block by block, each in a "
        "process of its own; ids on the host in, logits on the host out, so the copies and the wait for the GPU are "
        "in every figure and the tokenizer in none. PyTorch runs eagerly. Ratios travel better than milliseconds.",
        "",
        *([] if gpu else ["**No GPU was used: this is a trial of the script, and says nothing about a GPU.**", ""]),
        f"{name}; GPU: {gpu or 'none used'}; {machine.cpu}, {machine.threads} cores; {versions}.",
        "",
        "## Latency, p50 (p90) in ms",
        "",
        *table(["batch x tokens", *measured], [_latency_row(shape, measured) for shape in SHAPES]),
        "",
        "## Times faster by p50 (95% interval)",
        "",
        *table(["batch x tokens", *(f"{one} / {other}" for one, other in pairs())], _ratio_rows(measured)),
        "",
        "## Memory and answers",
        "",
        f"Answers to the {len(dataset.validation):,} validation texts, cut at the longest shape and padded to the "
        f"shapes that were timed; agreement and logits against {REFERENCE}. The device's rise is that of the whole "
        "GPU as NVML tells it, while one side alone ran every shape: context, libraries and pools included.",
        "",
        *table(
            ["side", "torch's peak MB", "device's rise MB", "accuracy", "agreement", "largest logit difference", ""],
            [_side_row(one, measured, dataset.validation.targets) for one in measured],
        ),
        "",
    ]
    return "\n".join(lines)


def pairs() -> list[tuple[str, str]]:
    """Which side is held against which: every graph against both 16-bit types of PyTorch."""
    graphs = [name for name, kind in KINDS.items() if kind.runtime == "onnx"]
    return [(graph, base) for graph in graphs for base in ("PyTorch fp16", "PyTorch bf16")]


def _latency_row(shape: tuple[int, int], measured: dict[str, Measured]) -> list[str]:
    cells = []
    for found in measured.values():
        p50, p90 = found.percentile(shape, 0.5), found.percentile(shape, 0.9)
        tail = "" if p90 is None else f" ({p90:.3f})"
        cells.append(ABSENT if p50 is None else f"{p50:.3f}{tail}")
    return [f"{shape[0]} x {shape[1]}", *cells]


def _ratio_rows(measured: dict[str, Measured]) -> list[list[str]]:
    rows = []
    for shape in SHAPES:
        ratios = [faster(measured[one], measured[other], shape) for one, other in pairs()]
        cells = [ABSENT if one is None else f"{one[0]:.2f} ({one[1]:.2f} to {one[2]:.2f})" for one in ratios]
        rows.append([f"{shape[0]} x {shape[1]}", *cells])
    return rows


def _side_row(name: str, measured: dict[str, Measured], labels: Sequence[Target]) -> list[str]:
    found = measured[name]
    agreed = agreement(found, measured[REFERENCE])
    return [
        name,
        *(
            ABSENT if size is None else f"{size / 1e6:,.0f}"
            for size in (found.torch_peak_bytes, found.device_rise_bytes)
        ),
        ABSENT if found.logits is None else f"{100 * _accuracy(found.logits, labels):.2f}%",
        ABSENT if agreed is None else f"{100 * agreed[0]:.2f}%",
        ABSENT if agreed is None else f"{agreed[1]:.2g}",
        found.reason.replace("|", "\\|").replace("\n", " "),
    ]


def _accuracy(logits: Sequence[Sequence[float]], labels: Sequence[Target]) -> float:
    right = [row.index(max(row)) == label for row, label in zip(map(list, logits), labels, strict=True)]
    return sum(right) / len(right)


if __name__ == "__main__":
    main()
