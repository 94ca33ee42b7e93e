"""The bench stage of several tasks: the choice is proven on the test part of each, timed once, and told of each.

Every step is that of one task (benchmarks/bench.py), taken by a `Contest` of each, which asks the bundle for it alone;
what there is once is settled here: the candidate, the settings, the race and the bundle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edgetune.benchmarks.bench import (
    DRAFT_NAME,
    Choice,
    Contest,
    best_settings,
    build_report,
    check_abstention,
    decided,
    judge_draft,
    measured,
    plain_draft,
    proof_of,
    settle_head_of,
    time_bundle,
)
from edgetune.benchmarks.prove.choice import check_budget
from edgetune.benchmarks.prove.confidence import SettledHead
from edgetune.benchmarks.prove.floor import Floor, measure_floor
from edgetune.benchmarks.prove.gate import Verdict
from edgetune.benchmarks.prove.ledger import (
    Logits,
    Slice,
    batched_answers,
    bundle_logits,
    frozen_slice,
    torch_stages,
)
from edgetune.benchmarks.prove.proof import FinalVerdict, prove
from edgetune.benchmarks.prove.search import Searched
from edgetune.benchmarks.several.report import joint_report
from edgetune.benchmarks.several.slices import TasksVerdict, worst
from edgetune.benchmarks.timing.race import Timing
from edgetune.export.once.pack import settled_draft
from edgetune.serve.bundle import REPORT_NAME, Bundle, HeadSpec
from edgetune.serve.errors import GateError
from edgetune.serve.report import Report
from edgetune.serve.tasks_report import TasksReport
from edgetune.tune.training.progress import Progress


@dataclass(frozen=True)
class BenchedTasks:
    """The report, and the draft of the candidate that was chosen."""

    report: TasksReport
    draft: Bundle

    @classmethod
    def open(cls, folder: Path) -> BenchedTasks:
        """Open what `bench_tasks` wrote."""
        return cls(TasksReport.load(folder / REPORT_NAME), Bundle.open(folder / DRAFT_NAME))


@dataclass(frozen=True)
class _Task:
    """One task on its way: its contest, the test rows that judge, the stages' logits on them, and its floor."""

    contest: Contest
    rows: Slice
    logits: dict[str, Logits]
    floor: Floor


def bench_tasks(
    contests: Mapping[str, Contest], searched: Searched, folder: Path, kept_report: Path, progress: Progress
) -> None:
    """Measure and judge into `folder`: the chosen draft and report.json.

    Args:
        contests: that of each task; the first one's base is raced.
        searched: the candidates of all tasks together.

    Raises:
        GateError: no candidate may be packed or a budget is not met; the report is at `kept_report`.
    """
    first = next(iter(contests.values()))
    plain = plain_draft(first, folder)
    tasks = {name: _measure(name, contest, plain, progress) for name, contest in contests.items()}
    final = _prove(tasks, searched.order, progress)
    choices: dict[str, Choice] = {}
    timing: Timing | None = None
    if final.chosen:
        choices = _settle(tasks, final, folder, progress)
        texts = [text for task in tasks.values() for text in task.contest.dataset.test.texts]
        timing = time_bundle(first, next(iter(choices.values())).draft, texts, progress)
    reports = {
        name: decided(
            task.contest,
            build_report(
                task.contest,
                task.rows,
                task.logits,
                choices.get(name),
                final.fallen,
                _of_task(timing, name),
                task.floor,
            ),
        )
        for name, task in tasks.items()
    }
    report = joint_report(reports, searched, final)
    (folder / REPORT_NAME).write_bytes(report.to_json())
    kept_report.write_bytes(report.to_json())
    if not final.chosen:
        raise GateError(
            report.verdict, action=f"see {kept_report}; loosen gate.max_drop or gate.max_rise, or tune a better model"
        )
    for one in reports.values():
        check_abstention(one, kept_report)
    any_report: Report = next(iter(reports.values()))
    check_budget(report.chosen, first.budget, measured(any_report), kept_report, timing_valid=report.timing_valid)


def _measure(name: str, contest: Contest, plain: Bundle, progress: Progress) -> _Task:
    dataset, tuned = contest.dataset, contest.packing.tuned
    rows = frozen_slice(tuned, contest.metric.name, dataset.test, dataset.train, contest.gate.rows, contest.seed)
    progress.say(f"{name}:")
    logits = torch_stages(tuned, rows, progress)
    logits["onnx"] = bundle_logits(contest.predictor(plain), rows)
    floor = measure_floor(rows, dataset, contest.seed)
    for entry in floor.entries:
        progress.say(f"{entry.stage} reaches {contest.metric.shown(entry.value)}: {entry.described}")
    return _Task(contest, rows, logits, floor)


def _prove(tasks: Mapping[str, _Task], order: list[str], progress: Progress) -> FinalVerdict:
    """The candidate that is proven on the test parts of all tasks; its logits are put beside those of the stages."""
    answers: dict[str, dict[str, Logits]] = {}

    def judge_candidate(name: str, looks: int) -> TasksVerdict:
        each: dict[str, Verdict] = {}
        answers[name] = {}
        for task, one in tasks.items():
            logits = bundle_logits(one.contest.predictor(one.contest.draft(name)), one.rows)
            answers[name][task] = logits
            tuned = one.logits["tuned"]
            each[task] = judge_draft(one.contest, name, one.rows, tuned, logits, looks * len(tasks))
        return worst(each)

    rows = sum(len(task.rows.texts) for task in tasks.values())
    final = prove(order, judge_candidate, rows, progress)
    if final.chosen:
        for task, one in tasks.items():
            one.logits[final.chosen] = answers[final.chosen][task]
    return final


def _settle(tasks: Mapping[str, _Task], final: FinalVerdict, folder: Path, progress: Progress) -> dict[str, Choice]:
    """What is packed, as each task sees it: its own proof and head, and the settings and the draft of all."""
    contests = [task.contest for task in tasks.values()]
    draft = contests[0].draft(final.chosen)
    texts = [text for contest in contests for text in contest.dataset.validation.texts]
    np.random.default_rng(contests[0].seed).shuffle(texts)
    settings, p50 = best_settings(contests[0], final.chosen, texts, progress)
    heads: dict[str, SettledHead | None] = {}
    for name, task in tasks.items():
        progress.say(f"{name}:")
        heads[name] = settle_head_of(task.contest, final.chosen, draft, progress)
    packed = [_with(spec, heads[spec.name]) for spec in draft.manifest.heads]
    settled = settled_draft(draft, folder / DRAFT_NAME, settings, (), packed)
    assert isinstance(final.verdict, TasksVerdict)
    choices = {}
    for name, task in tasks.items():
        rows, contest = task.rows, task.contest
        logits = task.logits[final.chosen]
        proof = proof_of(final.verdict.each[name], rows.value(logits), len(rows.texts), final.looks)
        batched = batched_answers(contest.predictor(draft), rows, logits)
        choices[name] = Choice(final.chosen, proof, settled, heads[name], p50, batched=batched)
    return choices


def _with(spec: HeadSpec, settled: SettledHead | None) -> HeadSpec:
    """A head with its temperature and threshold."""
    if settled is None:
        return spec
    return msgspec.structs.replace(settled.spec, name=spec.name, output=spec.output)


def _of_task(timing: Timing | None, task: str) -> Timing | None:
    """A race of the bundle with the answers of one task."""
    if timing is None:
        return None
    return replace(timing, answers={text: answer[task] for text, answer in timing.answers.items()})
