"""Servers under load: `edgetune serve` and what users pick today, in the same run, in turn, over loopback.

Run as `python -m benchmarks.lab.serve_load --bundle DIR --texts FILE --markdown docs/measurements/serving.md`; with
--envs and --base (a standard Hugging Face folder of the same task) the other servers run too. Client and server share
the machine, so the figures are of both together. benchmarks/peers/serving/ has the other servers' scripts.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median

import click
import msgspec

from benchmarks.lab import load_sides
from benchmarks.lab.load_client import Answered, Order
from benchmarks.lab.load_page import OURS, Loads, Run, Soak, page, write_plots
from benchmarks.lab.load_sides import LoadSide, Running, started
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.samples import percentile_or_none
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores

TEXTS = 2_000
# Connections of an open loop: more than this many unanswered requests and the client gives up on sending.
OPEN_CONNECTIONS = 512
# In the long load there are more of them than the server works on at once, so that it has to refuse.
SOAK_CONNECTIONS = 2_048


@dataclass
class Bench:
    """What all runs share: the texts, the labels that ours should give, and the runs so far."""

    texts: list[str]
    expected: list[str]
    seconds: float
    logs: Path
    runs: list[Run] = field(default_factory=list)

    def load(self, side: LoadSide, running: Running, callers: int, rate: float | None = None) -> Run:
        """One load, told on stderr and kept."""
        run = self.measured(side, running, callers, rate, self.seconds)
        self.runs.append(run)
        click.echo(_line(run), err=True)
        return run

    def measured(self, side: LoadSide, running: Running, callers: int, rate: float | None, seconds: float) -> Run:
        """Send one order from a process of its own; `callers` are the connections at most where there is a rate."""
        order = Order(
            host="127.0.0.1",
            port=running.port,
            path=side.path,
            bodies=[side.body(text) for text in self.texts],
            seconds=seconds,
            callers=callers,
            rate_per_second=rate,
        )
        client = [sys.executable, "-m", "benchmarks.lab.load_client"]
        told = subprocess.run(client, input=msgspec.json.encode(order), stdout=subprocess.PIPE, check=True)
        found = msgspec.json.decode(told.stdout, type=Answered)
        return self._run(side, running, order, found)

    def _run(self, side: LoadSide, running: Running, order: Order, found: Answered) -> Run:
        right = [side.label(answer) == self.expected[place] for place, answer in found.answers.items()]
        return Run(
            side=side.name,
            kind="closed" if order.rate_per_second is None else "open",
            callers=order.callers,
            offered_per_second=order.rate_per_second,
            answered_per_second=len(found.ms) / found.seconds,
            p50_ms=percentile_or_none(found.ms, 0.5),
            p90_ms=percentile_or_none(found.ms, 0.9),
            p99_ms=percentile_or_none(found.ms, 0.99),
            worst_ms=max(found.ms, default=None),
            refused=found.refused,
            faults=found.faults,
            unsent=found.unsent,
            answered=len(found.ms),
            agreement=sum(right) / len(right) if right else None,
            peak_bytes=running.peak_bytes,
        )


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), required=True, help="The bundle to serve.")
@click.option(
    "--texts",
    type=click.Path(path_type=Path, exists=True),
    envvar="EDGETUNE_TEXTS",
    required=True,
    help="A csv with a column `text`.",
)
@click.option("--base", type=click.Path(path_type=Path), help="A standard classifier folder, for the PyTorch servers.")
@click.option("--envs", type=click.Path(path_type=Path), help="Where the other servers' environments are made.")
@click.option("--callers", multiple=True, type=int, default=[1, 8, 32, 128], show_default=True, help="Closed loops.")
@click.option("--seconds", default=10.0, show_default=True, help="Of each load.")
@click.option("--rounds", default=2, show_default=True, help="Times that every server has its turn.")
@click.option("--soak", default=0.0, show_default=True, help="Seconds of ours at twice its capacity; 0 leaves it out.")
@click.option("--json", "found", type=click.Path(path_type=Path), help="File for all figures.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the page; stdout when not said.")
def main(
    bundle: Path,
    texts: Path,
    base: Path | None,
    envs: Path | None,
    callers: Sequence[int],
    seconds: float,
    rounds: int,
    soak: float,
    found: Path | None,
    markdown: Path | None,
) -> None:
    """Load each server in turn and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        bench = open_bench(bundle, texts, seconds, Path(folder))
        sides, absent = all_sides(bundle, base, envs, Path(folder))
        machine, bare = machine_line(), list[float]()
        for _ in range(rounds):
            bare.append(bare_p50_ms(bundle, bench.texts))
            for side in sides:
                race_turn(bench, side, callers)
        loads = Loads(
            machine=machine,
            bundle=Bundle.open(bundle).manifest.name,
            runs=bench.runs,
            bare_p50_ms=median(bare),
            soak=run_soak(bench, sides[0], soak) if soak else None,
            absent=absent,
        )
    if found:
        found.write_bytes(msgspec.json.format(msgspec.json.encode(loads), indent=1))
    if markdown:
        write_plots(loads, markdown.parent)
        markdown.write_text(page(loads), encoding="utf-8")
    else:
        click.echo(page(loads))


def open_bench(bundle: Path, texts: Path, seconds: float, logs: Path) -> Bench:
    """Real texts in an order drawn by seed, with the labels that the bundle gives one by one."""
    from edgetune.serve import load

    with texts.open(newline="", encoding="utf-8") as stream:
        rows = [row["text"] for row in csv.DictReader(stream)]
    drawn = random.Random(0).sample(rows, min(TEXTS, len(rows)))
    predictor = load(bundle)
    return Bench(drawn, [predictor.predict_one(text).label for text in drawn], seconds, logs)


def all_sides(
    bundle: Path, base: Path | None, envs: Path | None, folder: Path
) -> tuple[list[LoadSide], dict[str, str]]:
    """Ours first, then the others whose environments are there; and why one is not in the race."""
    sides, absent = [load_sides.ours(OURS, bundle.resolve())], dict[str, str]()
    for name, make in _others(bundle, base, folder).items():
        python = envs.resolve() / name / "bin" / "python" if envs else Path()
        if envs and python.is_file():
            sides += make(python)
        else:
            absent[name] = "its environment is not there; benchmarks/peers/README.md says how it is made"
    return sides, absent


def _others(bundle: Path, base: Path | None, folder: Path) -> dict[str, Callable[[Path], list[LoadSide]]]:
    """By environment: what makes its servers."""
    scripts = Path("benchmarks/peers/serving").resolve()

    def torch_sides(python: Path) -> list[LoadSide]:
        model = _standard(base)
        return [
            load_sides.fastapi_pipeline(scripts, python, model),
            load_sides.litserve_torch(scripts, python, model),
            load_sides.litserve_bundle(python, _packed(bundle, "litserve", folder)),
        ]

    def mlserver_side(python: Path) -> list[LoadSide]:
        packed = _packed(bundle, "mlserver", folder)
        settings = next(iter(packed.rglob("model-settings.json")))
        model = str(json.loads(settings.read_text(encoding="utf-8"))["name"])
        return [load_sides.mlserver("MLServer, our predictor", python, packed, model, load_sides.label_output)]

    def hugging_face_side(python: Path) -> list[LoadSide]:
        repository, read = folder / "mlserver-hugging-face", load_sides.hugging_face_output
        load_sides.write_hugging_face_repository(repository, _standard(base), "model")
        return [load_sides.mlserver("MLServer, Hugging Face runtime", python, repository, "model", read)]

    return {
        "serving-torch": torch_sides,
        "serving-mlserver": mlserver_side,
        "serving-mlserver-huggingface": hugging_face_side,
    }


def _standard(base: Path | None) -> Path:
    if base is None:
        raise click.UsageError("--envs needs --base, the model of the PyTorch servers.")
    return base.resolve()


def _packed(bundle: Path, layout: str, folder: Path) -> Path:
    out = folder / f"packed-{layout}"
    command = [sys.executable, "-m", "edgetune", "pack", str(bundle), "--layout", layout, "-o", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return out


def race_turn(bench: Bench, side: LoadSide, callers: Sequence[int]) -> None:
    """One turn of one server: closed loops, then open ones at half, full and twice what it answered at most."""
    with started(side, bench.logs / "server.log") as running:
        bench.measured(side, running, 8, None, 2.0)  # what a server does at its first requests is not its pace
        capacity = max(bench.load(side, running, count).answered_per_second for count in callers)
        for share in (0.5, 1.0, 2.0):
            bench.load(side, running, OPEN_CONNECTIONS, share * capacity)


def run_soak(bench: Bench, side: LoadSide, seconds: float) -> Soak:
    """Twice the capacity for a long time, over more connections than are served at once; memory at every moment."""
    with started(side, bench.logs / "soak.log") as running:
        capacity = bench.measured(side, running, 32, None, bench.seconds).answered_per_second
        running.resident.clear()
        run = bench.measured(side, running, SOAK_CONNECTIONS, 2 * capacity, seconds)
        every = max(1, len(running.resident) // 20)
        return Soak(seconds=seconds, run=run, resident_bytes=running.resident[::every])


def bare_p50_ms(bundle: Path, texts: Sequence[str]) -> float:
    """The predictor alone in a process of its own: median ms of one text, one after the other."""
    from edgetune.benchmarks.timing.side import ContestantProcess, Side

    with ContestantProcess(Side("bundle", bundle), texts[0]) as process:
        measured = percentile_or_none(process.ask("latency", texts=list(texts), warm_ms=500)["ms"], 0.5)
    assert measured is not None
    return float(measured)


def machine_line() -> str:
    """Where the figures were taken, in a sentence."""
    machine = describe_machine(usable_cores())
    runtime = next(f"{name} {found}" for name, found in machine.versions.items() if name.startswith("onnxruntime"))
    versions = ", ".join([runtime, *(f"{name} {version(name)}" for name in ("uvicorn", "starlette"))])
    return f"{machine.cpu}, {machine.threads} cores shared by client and server; {versions}."


def _line(run: Run) -> str:
    offered = f"{run.offered_per_second:,.0f}/s offered" if run.offered_per_second else f"{run.callers} callers"
    p50, p99 = (f"{value:.2f}" if value is not None else "-" for value in (run.p50_ms, run.p99_ms))
    return (
        f"{run.side}: {offered}: {run.answered_per_second:,.0f}/s, p50 {p50}, p99 {p99} ms, "
        f"{run.refused} refused, faults {run.faults}, unsent {run.unsent}, {run.peak_bytes / 1e6:,.0f} MB"
    )


if __name__ == "__main__":
    main()
