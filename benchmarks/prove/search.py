"""The compression search: routes in order of promise, judged on the validation part, timed, and put in order.

Cheap candidates come first, and each is left at the first gate that it fails: suitable, made, answers kept, size,
timed, budget. The test part is not looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import msgspec

from edgetune.benchmarks.prove.cascade import Threshold, choose_threshold
from edgetune.benchmarks.prove.choice import dominated, on_front, over_budget, preference, quick_figures
from edgetune.benchmarks.prove.gate import Verdict
from edgetune.benchmarks.prove.ledger import Logits
from edgetune.benchmarks.prove.planning import SchemePlan
from edgetune.benchmarks.prove.trials import Trial, Workbench
from edgetune.benchmarks.recipe import BudgetRecipe, GateRecipe
from edgetune.benchmarks.timing.quick import QuickFigures, quick_race
from edgetune.benchmarks.timing.side import Side
from edgetune.compress.route import Route, Step
from edgetune.compress.schemes import Scheme
from edgetune.serve.errors import BundleDamaged, CompressError, ExportError, GateError, WorkError
from edgetune.serve.report import CandidateReport
from edgetune.tune.models.stored import Stored
from edgetune.tune.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Searched(Stored):
    """What the search found.

    `candidates` in the order they were tried; `order` the names of those that may be packed, best first; `skipped` the
    schemes that were left out or failed, with the reason.
    """

    file_name: ClassVar[str] = "search.json"
    noun: ClassVar[str] = "search"
    command: ClassVar[str] = "compress"

    candidates: list[CandidateReport]
    order: list[str]
    skipped: dict[str, str]


@dataclass(frozen=True)
class Terms:
    """What candidates have to meet, and the tuned model's logits on the validation rows that they are held against."""

    gate: GateRecipe
    budget: BudgetRecipe
    reference: Logits
    threads: int | None = None


@dataclass
class Search:
    """One search, as far as it has come; `variants` are the graphs that are wanted beside the one that is chosen."""

    bench: Workbench
    plan: SchemePlan
    terms: Terms
    variants: tuple[str, ...] = ()
    trials: dict[str, Trial] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    figures: dict[str, QuickFigures] = field(default_factory=dict)
    stopped: dict[str, tuple[str, str]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    beside: set[str] = field(default_factory=set)
    shares: dict[str, Threshold] = field(default_factory=dict)
    small: dict[str, str] = field(default_factory=dict)

    @property
    def _progress(self) -> Progress:
        return self.bench.material.progress

    def run(self) -> Searched:
        """Try what the plan says."""
        for scheme in self.plan.level("graph"):
            # The plain graph stands behind the fused one, and is tried where that one did not make it.
            if scheme.name != "fp32" or not self._accepted("fused"):
                self.attempt(Route((), scheme.name))
        kept: tuple[Step, ...] = ()
        for scheme in self.plan.level("weights"):
            if scheme.strengths(self.bench.material) == (0,):
                step = Step(scheme.name)
                if self._reshaped_holds((step,)) and self.attempt(Route((step,), self._best_graph())):
                    kept = (*kept, step)
        for scheme in self.plan.level("weights"):
            self._walk(scheme, kept)
        self._take_variants()
        for scheme in self.plan.level("artefact"):
            self.attempt(Route(kept, scheme.name))
        self._take_cascades()
        return self._finish()

    def _take_cascades(self) -> None:
        """Put every artefact that can be made, whatever the gate says of it alone, before the preferred graph."""
        schemes = self.plan.level("artefact") if self.plan.cascades else ()
        strong = self.trials.get(self._preferred_model()) if schemes else None
        if strong is None:
            return
        for scheme in schemes:
            # Both read texts with one tokenizer, which the steps of one strength change.
            route = Route(tuple(step for step in strong.route.steps if not step.strength), scheme.name)
            if route.name not in self.trials and route.name not in self.failures:
                self.attempt(route)
            if small := self.trials.get(route.name):
                self._try_cascade(small, strong)

    def _preferred_model(self) -> str:
        """The preferred candidate among those that one graph answers; "" where none passed."""
        names = [name for name, trial in self.trials.items() if trial.route.is_model and self._accepted(name)]
        names = [name for name in names if name not in self.beside]
        if any(name not in self.figures for name in names):
            self._time(names)
        figures = {name: self.figures[name] for name in names}
        return next(iter(preference(figures, self._sizes(), self._dependent())), "")

    def _try_cascade(self, small: Trial, strong: Trial) -> None:
        rows, name = self.bench.rows, replace(strong.route, small=small.route.graph).name
        if rows.head.spec.kind != "label":
            self._fail(name, "a cascade goes by the margin between the two best labels, and here is no single label")
            return
        threshold = choose_threshold(rows, small.logits, strong.logits)
        if threshold is None:
            self._fail(name, f"wherever {small.route.name} answers a tenth of the rows or more, the answers are worse")
            return
        self._progress.say(f"{name}: {small.route.name} answers {threshold.share:.0%} of the validation rows")
        self.shares[name], self.small[name] = threshold, small.route.name
        self._admit(name, lambda: self.bench.cascade(small, strong, threshold.margin))

    def _take_variants(self) -> None:
        """Try the wanted graphs of every model that may be chosen; what is tried for this alone is not chosen."""
        shapes = dict.fromkeys(trial.route.steps for name, trial in self.trials.items() if self._accepted(name))
        for route in [Route(steps, name) for steps in shapes for name in self.variants]:
            if route.name not in self.trials:
                self.beside.add(route.name)
                self.attempt(route)

    def _walk(self, scheme: Scheme, kept: tuple[Step, ...]) -> None:
        """Go from gentle to harsh while the gate holds; what passed on its own (`kept`) is laid on top."""
        strengths = scheme.strengths(self.bench.material)
        if strengths == (0,):
            return
        smaller = next(
            (name for name, trial in self.trials.items() if self._is_reduced(trial) and self._accepted(name)), ""
        )
        if smaller:
            self._fail(
                scheme.name, f"not tried: {smaller} passed already, and minutes of training would take less away"
            )
            return
        for strength in strengths:
            step = Step(scheme.name, strength)
            if not self._reshaped_holds((step,)):
                return
            if not self.attempt(Route((step, *kept), self._best_graph())):
                return

    @staticmethod
    def _is_reduced(trial: Trial) -> bool:
        """Whether a walk led to the trial: one of its steps has a strength."""
        return any(step.strength for step in trial.route.steps)

    def _best_graph(self) -> str:
        """The graph-level scheme to end a route with: the preferred one of those that passed on the whole model."""
        names = [name for name, trial in self.trials.items() if not trial.route.steps and self._accepted(name)]
        if len(names) > 1 and any(name not in self.figures for name in names):
            self._time(names)
        if not names:
            return "fused" if self.plan.has("fused") else "fp32"
        return (
            preference({name: self.figures[name] for name in names}, self._sizes(), self._dependent())[0]
            if len(names) > 1
            else names[0]
        )

    def _reshaped_holds(self, steps: tuple[Step, ...]) -> bool:
        """Whether a reshaped model keeps its answers in PyTorch; if not, it is not worth exporting."""
        route = Route(steps, "fp32")
        try:
            logits = self.bench.reshaped_logits(steps)
        except CompressError as error:
            self._fail("+".join(step.name for step in steps), error.found)
            return False
        verdict = self._judge(route, logits)
        name = "+".join(step.name for step in steps)
        if not verdict.accepted:
            self._fail(name, f"in PyTorch, before it was exported: {verdict.reason}")
        return verdict.accepted

    def attempt(self, route: Route) -> bool:
        """Take a route up to the gate; whether its candidate may be packed so far."""
        self._progress.say(f"{route.name}: trying")
        return self._admit(route.name, lambda: self.bench.take(route))

    def _admit(self, name: str, make: Callable[[], Trial]) -> bool:
        """Make a trial and judge it; whether its candidate may be packed so far."""
        try:
            trial = make()
            verdict = self._judge(trial.route, trial.logits)
        except (
            CompressError,
            ExportError,
            GateError,
            WorkError,
            BundleDamaged,
        ) as error:  # the last: a graph that does not run here
            self._fail(name, error.found)
            return False
        self.trials[name], self.verdicts[name] = trial, verdict
        over = over_budget(self.terms.budget, quick_figures(trial.draft.size_bytes, None))
        if not verdict.accepted:
            self.stopped[name] = ("quality", verdict.reason)
        elif over:
            self.stopped[name] = ("budget", over)
        word = "passed" if self._accepted(name) else f"stopped at {self.stopped[name][0]}"
        self._progress.say(f"{name}: {trial.draft.size_bytes / 1e6:.1f} MB, {word}; {verdict.reason}")
        # A bundle that is too large now may be small enough with fewer layers or tokens: only quality ends a walk.
        return verdict.accepted

    def _fail(self, name: str, reason: str) -> None:
        self.failures[name] = reason
        self._progress.say(f"{name}: {reason}")

    def _judge(self, route: Route, logits: Logits) -> Verdict:
        return self.bench.rows.judge(
            self.terms.reference,
            logits,
            self.terms.gate,
            structural=route.structural,
            is_float=route.graph in ("fused", "fp32") and not route.steps and not route.small,
        )

    def _accepted(self, name: str) -> bool:
        return name in self.verdicts and self.verdicts[name].accepted and name not in self.stopped

    def _sizes(self) -> dict[str, int]:
        return {name: trial.draft.size_bytes for name, trial in self.trials.items()}

    def _dependent(self) -> set[str]:
        """The candidates whose answers may depend on their neighbours in a batch."""
        return {name for name, trial in self.trials.items() if trial.route.neighbours}

    def _time(self, names: list[str]) -> None:
        sides = {name: Side("bundle", self.trials[name].draft.folder, threads=self.terms.threads) for name in names}
        self.figures.update(quick_race(sides, self.bench.rows.texts, self._progress))

    def _finish(self) -> Searched:
        passed = [name for name in self.trials if self._accepted(name)]
        if passed:
            # A small model that failed alone is timed all the same: the curve of its cascade needs its time.
            self._time(list(dict.fromkeys([*passed, *self.small.values()])))
        sizes, dependent = self._sizes(), self._dependent()
        figures = {name: self.figures[name] for name in passed}
        for name in passed:
            if over := over_budget(self.terms.budget, quick_figures(sizes[name], figures[name])):
                self.stopped[name] = ("budget", over)
            elif better := dominated(name, figures, sizes, dependent):
                self.stopped[name] = ("dominated", f"{better} is smaller and faster")
        losses = {name: self.verdicts[name].loss.loss for name in passed}
        left = {name: figures[name] for name in passed if name not in self.stopped}
        order = preference(left, sizes, dependent, losses)
        # Behind them what is beaten but allowed: the ladder down which a choice that fails on the test part falls.
        beaten = {name: one for name, one in figures.items() if self.stopped.get(name, ("",))[0] == "dominated"}
        order += preference(beaten, sizes, dependent, losses)
        reports = [self._report(name) for name in self.trials]
        front = on_front(reports, self.bench.rows.metric)
        return Searched(
            candidates=[msgspec.structs.replace(one, front=one.scheme in front) for one in reports],
            order=[name for name in order if name not in self.beside],
            skipped={**self.plan.skipped, **self.failures},
        )

    def _report(self, name: str) -> CandidateReport:
        trial, verdict, figures = self.trials[name], self.verdicts[name], self.figures.get(name)
        stopped_at, why = self.stopped.get(name, ("", ""))
        return CandidateReport(
            scheme=name,
            size_bytes=trial.candidate.size_bytes,
            dtypes=trial.candidate.dtypes,
            value=self.bench.rows.value(trial.logits),
            drop=verdict.loss.loss,
            drop_interval=list(verdict.loss.interval),
            p_value=verdict.loss.p_value,
            gate=verdict.gate,
            accepted=verdict.accepted,
            reason=verdict.reason + (f"; {why}" if stopped_at not in ("", "quality") else ""),
            rows_needed=verdict.rows_needed,
            second=verdict.second,
            latency_ms=figures.latency_ms if figures else None,
            steps=[step.name for step in trial.route.steps],
            structural=trial.route.structural,
            made_by=trial.candidate.made_by,
            bundle_bytes=trial.draft.size_bytes,
            rss_peak_bytes=figures.rss_peak_bytes if figures else None,
            cold_start_ms=figures.cold_start_ms if figures else None,
            timing_valid=figures.timing_valid if figures else True,
            stopped_at=stopped_at,
            batch_dependent=trial.route.neighbours,
            threshold=self.shares[name].margin if name in self.shares else None,
            small=self.small.get(name, ""),
            small_share=self.shares[name].share if name in self.shares else None,
        )
