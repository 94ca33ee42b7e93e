"""Preferences and rewards on real models: writes the tables of docs/preferences.md.

Run as `python -m benchmarks.lab.preferences --data DIR --decoder FOLDER --markdown FILE`, about a quarter of an hour on
two cores. DIR holds LLaMA-Factory's demonstration data (dpo_en_demo.json) and FOLDER SmolLM2-135M-Instruct; neither is
shipped. `--rows` and `--prompts` make it smaller. Everything is built from the command line, as a user would.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import table

ENCODER = "all-MiniLM-L6-v2"
# Long prompts are left out and long answers cut, so that 135 million weights are tuned on two cores within minutes.
MOST_WORDS, MOST_TOKENS = 150, 320
# A large part judges: an interval of a share is narrow with many rows alone.
SPLIT = "data.split=[0.6,0.1,0.3]"
BREVITY = '''"""A stated reward: short answers."""


def brevity(prompt, answer):
    """From 1 for nothing down to 0 for 60 words and more."""
    return max(0.0, 1 - len(answer.split()) / 60)
'''
Row = dict[str, Any]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of dpo_en_demo.json.")
@click.option("--decoder", type=click.Path(path_type=Path, exists=True), required=True, help="SmolLM2-135M-Instruct.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles/preferences"), help="Where builds go.")
@click.option("--rows", default=300, show_default=True, help="Pairs that are learnt and judged, at most.")
@click.option("--prompts", default=60, show_default=True, help="Prompts that GRPO answers, at most.")
@click.option("--tokens", default=MOST_TOKENS, show_default=True, help="Tokens of a prompt and its answer, at most.")
@click.option("--only", multiple=True, help="Rows of the tables to make, such as dpo; may be repeated.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(
    data: Path,
    decoder: Path,
    out: Path,
    rows: int,
    prompts: int,
    tokens: int,
    only: tuple[str, ...],
    markdown: Path | None,
) -> None:
    """Tune, build and measure each row, and print the tables."""
    out.mkdir(parents=True, exist_ok=True)
    pairs = list(short_pairs(data / "dpo_en_demo.json"))[:rows]
    files = {
        "pairs": _written(out / "pairs.jsonl", pairs),
        "shorter": _written(out / "shorter.jsonl", [shorter_first(pair) for pair in pairs]),
        "prompts": _written(out / "prompts.jsonl", [_answered(pair) for pair in pairs[:prompts]]),
    }
    (out / "brevity.py").write_text(BREVITY, encoding="utf-8")
    length = f"data.max_tokens={tokens}"
    reward = f"{out / 'brevity.py'}:brevity"
    steps: dict[str, Callable[[], Row]] = {
        "dpo": lambda: _tune("dpo", decoder, files["pairs"], out / "dpo", length),
        "kto": lambda: _tune("kto", decoder, files["pairs"], out / "kto", length),
        "dpo, the shorter answer": lambda: _build_int4(decoder, files["shorter"], out / "shorter", length),
        "grpo, brevity": lambda: _tune(
            "grpo",
            decoder,
            files["prompts"],
            out / "grpo",
            length,
            f"tune.reward={reward}",
            "tune.online.answer_tokens=64",
        ),
    }
    wanted = {name: make for name, make in steps.items() if not only or name in only}
    found = {name: make() for name, make in wanted.items()}
    page = [*table(HEAD, [line for name, quality in found.items() for line in _lines(name, quality)]), ""]
    if not only or "reward" in only:
        page += [*table(REWARD_HEAD, [_reward(files[name], out / f"reward-{name}", name) for name in REWARDS]), ""]
    if markdown:
        markdown.write_text("\n".join(page), encoding="utf-8")
    else:
        click.echo("\n".join(page))


HEAD = [
    "objective",
    "stage",
    "preference accuracy",
    "margin, nats",
    "mean reward",
    "tokens of an answer",
    "KL",
    "settled by",
]
REWARD_HEAD = ["reward of", "pairs", "n-grams", "tuned", "bundle"]
REWARDS = ("pairs", "shorter")


def short_pairs(path: Path) -> Iterator[Row]:
    """The pairs of the file whose prompts are short, as messages."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        turns = [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
        answers = [[{"role": "assistant", "content": row[name]["value"]}] for name in ("chosen", "rejected")]
        if turns and sum(len(turn["content"].split()) for turn in turns) <= MOST_WORDS:
            yield {"prompt": turns, "chosen": answers[0], "rejected": answers[1]}


_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


def shorter_first(pair: Row) -> Row:
    """The same answers, of which the shorter one is preferred: a preference that can be learnt for certain."""
    chosen, rejected = sorted((pair["chosen"], pair["rejected"]), key=lambda answer: len(answer[0]["content"]))
    return {**pair, "chosen": chosen, "rejected": rejected}


def _answered(pair: Row) -> Row:
    return {"prompt": pair["prompt"], "completion": pair["chosen"]}


def _written(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _edgetune(*arguments: object) -> Row:
    command = [sys.executable, "-m", "edgetune", *map(str, arguments), "--fresh", "--json"]
    told: Row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return told


def _tune(objective: str, base: Path, data: Path, out: Path, *settings: str) -> Row:
    """Tune alone, and return what the objective came to."""
    more = [f"--set={setting}" for setting in (SPLIT, *settings)]
    told = _edgetune("tune", "--base", base, "--data", data, "--objective", objective, "--out", out, *more)
    return _objective(told)


def _objective(told: Row) -> Row:
    quality: Row = told["tuned"]["objective"]
    return quality


def _build_int4(base: Path, data: Path, out: Path, length: str) -> Row:
    """Build whole, in four bits, and return what the objective came to, the bundle's preferences included.

    The gate is open: it is the loss that is looked for.
    """
    settings = [SPLIT, length, "gate.max_rise=10", "gate.max_preference_drop=0.9"]
    settings += [
        "benchmark.rounds=2",
        "benchmark.new_tokens=16",
        "benchmark.prompt_tokens=[16]",
        "benchmark.batches=[1]",
    ]
    more = [f"--set={setting}" for setting in settings]
    _edgetune("build", "--base", base, "--data", data, "--objective", "dpo", "--scheme", "int4", "--out", out, *more)
    quality: Row = json.loads((out / "report.json").read_text(encoding="utf-8"))["objective"]
    return quality


def _lines(name: str, quality: Row) -> Iterator[list[str]]:
    for stage in quality["stages"]:
        yield [
            name,
            stage["stage"],
            _share(stage),
            _number(stage["margin"], 2),
            _number(stage["reward"], 3) + (_interval(stage["reward_ci95"], 3) if stage["reward_ci95"] else ""),
            _number(stage["answer_tokens"], 0),
            _number(stage["kl"], 4),
            f"{rows_to_settle(stage['preference_accuracy']):,} pairs" if stage["ci95"] else "",
        ]


def rows_to_settle(accuracy: float) -> int:
    """Pairs by which a 95% interval of such an accuracy would exclude one half, by the normal approximation."""
    away = max(abs(accuracy - 0.5), 1e-3)
    return math.ceil(1.96**2 * accuracy * (1 - accuracy) / away**2) if 0 < accuracy < 1 else 4


def _share(stage: Row) -> str:
    return _number(stage["preference_accuracy"], 3) + (_interval(stage["ci95"], 3) if stage["ci95"] else "")


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _interval(bounds: Sequence[float], digits: int) -> str:
    return f" [{bounds[0]:.{digits}f}, {bounds[1]:.{digits}f}]"


def _reward(data: Path, out: Path, name: str) -> list[str]:
    """A reward bundle of an encoder, by the defaults."""
    _edgetune("build", "--base", ENCODER, "--data", data, "--objective", "reward", "--set", SPLIT, "--out", out)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    quality = report["quality"]
    stages = {stage["stage"]: stage for stage in quality["stages"]}
    floor = {entry["stage"]: entry for entry in quality["floor"]}
    tuned, bundle = (
        f"{stage['value']:.3f}{_interval(stage['ci95'], 3)}" for stage in (stages["tuned"], stages[report["chosen"]])
    )
    linear = f"{floor['linear']['value']:.3f}" if "linear" in floor else ""
    return [name, f"{sum(report['data']['rows'].values()) // 2:,}", linear, tuned, f"{bundle} ({report['chosen']})"]


if __name__ == "__main__":
    main()
