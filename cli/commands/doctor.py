"""`edgetune doctor`: the facts of an installation and machine in words, then what is wrong and what mends it.

Prints with click alone, since a base install has nothing else; the facts are found in cli/diagnosis.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import click

from edgetune.commands.options import json_option, print_json
from edgetune.diagnosis import BF16_SETS, INT8_SETS, Diagnosis, RuntimeFacts, diagnose
from edgetune.extras import Extra
from edgetune.problems import Problem, find_problems

EPILOG = """\b
Example:
  edgetune doctor
  edgetune doctor --json | jq .problems
"""


@click.command("doctor", epilog=EPILOG)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Tell what this machine and installation can do, and what is wrong.

    Each execution provider is tried with a tiny graph. Exits with 1 if something would stop
    `edgetune predict` or `edgetune build`, with 0 if nothing or only notes were found.
    """
    diagnosis = diagnose()
    problems = find_problems(diagnosis)
    if as_json:
        print_json(dataclasses.asdict(diagnosis) | {"problems": [dataclasses.asdict(each) for each in problems]})
    else:
        for line in (*_facts(diagnosis), *_verdict(problems)):
            click.echo(line)
    if any(problem.level == "error" for problem in problems):
        ctx.exit(1)


def _facts(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"edgetune {diagnosis.edgetune}, Python {diagnosis.python}, {diagnosis.os}"
    yield from _section("Extras", (_extra(name, extra) for name, extra in diagnosis.extras.items()))
    yield from _section("ONNX Runtime", _runtime(diagnosis.onnxruntime))
    yield from _section("Machine", _machine(diagnosis))
    yield from _section("Targets", iter(diagnosis.targets.items()))
    yield from _section("torch", _torch(diagnosis))
    yield from _section("Hugging Face hub", _hub(diagnosis.hub))


def _section(title: str, rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield ""
    yield title
    for name, value in rows:
        yield f"  {name:<26}{value}".rstrip()


def _extra(name: str, extra: Extra) -> tuple[str, str]:
    label = name if name == "base" else f"[{name}]"
    if extra.complete:
        return label, "complete"
    missing = f"missing {', '.join(extra.missing)}"
    return label, f"{missing}; to have it: {extra.do}" if extra.do else "not needed beside the wheel below"


def _runtime(runtime: RuntimeFacts) -> Iterator[tuple[str, str]]:
    for name, version in runtime.wheels.items():
        yield name, version
    if not runtime.wheels:
        yield "none", ""
    for name, trial in runtime.providers.items():
        yield name, "works" if trial.works else f"does not work: {trial.reason}"
    yield "telemetry", "off" if runtime.telemetry_off else "on"


def _machine(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    yield "processor", diagnosis.cpu
    yield "cores", f"{diagnosis.cores} may be used, of {diagnosis.host_cores or 'an unknown number'}"
    yield "OMP_NUM_THREADS", diagnosis.omp_num_threads or "not set"
    yield "memory", f"{_gigabytes(diagnosis.memory_bytes)} may be used"
    yield "instruction sets", " ".join(diagnosis.isa) or "unknown"
    yield (
        "int8",
        _speed(diagnosis.int8_fast, INT8_SETS, diagnosis.isa, "slow: neither VNNI nor a dot product"),
    )
    yield "bf16", _speed(diagnosis.bf16_fast, BF16_SETS, diagnosis.isa, "slow: torch would emulate it")
    gpu = diagnosis.gpu
    count = f"{gpu.count} x " if gpu and gpu.count > 1 else ""
    yield "GPU", f"{count}{gpu.name}, {_gigabytes(gpu.memory_bytes)}" if gpu else "none seen"
    yield "free disk in this folder", _gigabytes(diagnosis.free_disk_bytes)


def _torch(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    torch = diagnosis.torch
    if torch is None:
        yield "not installed", ""
        return
    yield "version", torch.version
    yield "CUDA", f"built for {torch.cuda_build}" if torch.cuda_build else "not in this build"
    yield "reaches a GPU", "yes" if torch.cuda else "no"


def _hub(variables: dict[str, str]) -> Iterator[tuple[str, str]]:
    yield "HF_HUB_OFFLINE", variables.get("HF_HUB_OFFLINE", "not set: models are fetched by name")
    yield from ((name, value) for name, value in variables.items() if name != "HF_HUB_OFFLINE")


def _verdict(problems: list[Problem]) -> Iterator[str]:
    yield ""
    for problem in problems:
        yield f"{problem.level.capitalize()}: {problem.what}"
        yield f"  To do: {problem.do}"
    if not problems:
        yield "Nothing is wrong."


def _speed(fast: bool | None, instructions: tuple[str, ...], isa: list[str], slow: str) -> str:
    if fast is None:
        return "unknown"
    return f"fast ({', '.join(name for name in instructions if name in isa)})" if fast else slow


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 1e9:.1f} GB"
