"""A sweep: trial after trial on the validation part, then the winner once on the test part."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgetune.benchmarks.prove.ledger import frozen_slice, model_answers
from edgetune.benchmarks.prove.statistics import metric_interval
from edgetune.inputs import source_state
from edgetune.once.recipe import OnceRecipe
from edgetune.progress import StageLines
from edgetune.serve.digest import value_sha256
from edgetune.serve.errors import Interrupted, RecipeError, WorkError
from edgetune.sweep.recipe import OBJECTIVES, Value
from edgetune.sweep.space import Dimension, read_space, usual_space, value_at
from edgetune.sweep.study import ask, begin, best, complete, ended, has_result, importances, open_study
from edgetune.sweep.trials import Bench, Watch
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.source_names import SOURCES
from edgetune.tune.metrics import Metric
from edgetune.tune.models.model import TunedModel
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.gain import Gain, paired_gain
from edgetune.work import locked

JOURNAL_NAME, BEST_NAME, PAGE_NAME = "journal.log", "best.yaml", "report.html"


@dataclass(frozen=True)
class TestFigures:
    """The winner on the test part, which was opened for it alone.

    Attributes:
        value, interval: its metric and the 95% interval.
        rows: of the test part.
        own_value: the metric by the recipe's own values; None where they are the winner, or made no model.
        gain: of the winner over these, with its standard error; None likewise.
    """

    value: float
    interval: tuple[float, float]
    rows: int
    own_value: float | None = None
    gain: Gain | None = None


@dataclass(frozen=True)
class Swept:
    """What a sweep found.

    Attributes:
        recipe: that was varied.
        best_recipe: with the winner's settings.
        space, objectives, metric: what was searched, and by what.
        trials: that ended, in their order; the first is of the recipe's own values.
        winner: the best of them on the validation part.
        front: numbers of the trials that no other one beats in all objectives.
        importance: share of the metric's variance by key; empty where too few trials tell.
        test: of the winner.
    """

    recipe: OnceRecipe
    best_recipe: OnceRecipe
    space: tuple[Dimension, ...]
    objectives: tuple[str, ...]
    metric: Metric
    trials: tuple[FrozenTrial, ...]
    winner: FrozenTrial
    front: frozenset[int]
    importance: dict[str, float] = field(default_factory=dict)
    test: TestFigures | None = None

    @property
    def caution(self) -> str:
        """What the winner's value on the validation part is worth."""
        completed = sum(map(has_result, self.trials))
        return (
            f"The winner is the best of {completed:,} trials by the same validation rows, so that its validation "
            f"{self.metric.name} flatters it; its test {self.metric.name} does not."
        )


def searched_space(recipe: OnceRecipe, options: dict[str, str]) -> tuple[Dimension, ...]:
    """What is tried: by `--space`, else by the recipe's section, else what is usual for its method.

    Raises:
        RecipeError: a key is unknown, or a value none that the recipe takes.
    """
    given = {**recipe.sweep.space, **options}
    space = read_space(given or usual_space(recipe.tune.method))
    bench = Bench(recipe, OBJECTIVES, Path())
    accepted = []
    for dimension in space:
        try:
            for value in dimension.extremes:
                bench.varied({dimension.key: value})
        except RecipeError:
            if given:
                raise
            continue  # of the usual keys some do not suit the task
        accepted.append(dimension)
    return tuple(accepted)


@dataclass(frozen=True)
class Sweep:
    """A sweep that is about to be run.

    Attributes:
        recipe: that is varied.
        space: what is tried.
        objectives: the metric first.
        trials: how many there shall be, those of an earlier run counted.
        seconds: after which no further one begins; None for no such bound.
        fresh: forget the trials of an earlier run.
    """

    recipe: OnceRecipe
    space: tuple[Dimension, ...]
    objectives: tuple[str, ...]
    trials: int
    seconds: float | None = None
    fresh: bool = False

    @property
    def folder(self) -> Path:
        """Where the sweep lies: beside the bundle's place."""
        out = Path(self.recipe.out)
        return out.with_name(f"{out.name}.sweep")

    @property
    def metric(self) -> Metric:
        """What trials are judged by."""
        return TASKS[self.recipe.task].metric(self.recipe.gate.metric)

    @property
    def digest(self) -> str:
        """Of all that makes trials comparable."""
        values = self.recipe.model_dump(mode="json", exclude={"out", "sweep"})
        section = self.recipe.data
        data = source_state(*(getattr(section, name) for name in SOURCES), section.augment.lexicon)
        return value_sha256([values, data, list(map(str, self.space)), list(self.objectives)])

    def run(self, console: Console, say: Callable[[str], None], command: str = "") -> Swept:
        """Run the trials that lack, then judge the winner.

        Args:
            console: of the bar.
            say: told a line a trial.
            command: that continues a stopped sweep.

        Raises:
            EdgetuneError: the recipe's own values cannot be built.
            WorkError: no trial has a result, the journal is of another sweep, or another sweep works there.
            Interrupted: by the user.
        """
        with locked(self.folder):
            bench, journal = Bench(self.recipe, self.objectives, self.folder), self.folder / JOURNAL_NAME
            if self.fresh:
                journal.unlink(missing_ok=True)
            more = "maximize" if self.metric.higher_is_better else "minimize"
            directions = [more if name == "metric" else "minimize" for name in self.objectives]
            study = open_study(journal, directions, self.digest, self.recipe.seed)
            own_values = self.recipe.model_dump(mode="json")
            own: dict[str, Value] = {
                dimension.key: value  # type: ignore[misc]
                for dimension in self.space
                if dimension.holds(value := value_at(own_values, dimension.key))
            }
            begin(study, own)
            try:
                self._run_trials(study, bench, console, say)
            except (Interrupted, KeyboardInterrupt):
                raise Interrupted(
                    f"The sweep was stopped. {len(ended(study)):,} trials are kept in {self.folder}.",
                    action=f"{command or 'the same call'} continues",
                ) from None
            return self._judged(study, bench)

    def _run_trials(self, study: optuna.Study, bench: Bench, console: Console, say: Callable[[str], None]) -> None:
        start, done = time.monotonic(), len(ended(study))
        columns = (TextColumn("trials"), MofNCompleteColumn(), BarColumn(bar_width=24), TimeElapsedColumn())
        with Progress(
            *columns,
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bar:
            task = bar.add_task("", total=self.trials, completed=done)

            def lines(watch: Watch | None) -> StageLines:
                from edgetune.sweep.trials import TrialLines

                return TrialLines(console, bar, task, watch)

            while len(ended(study)) < self.trials:
                if done and self.seconds is not None and time.monotonic() - start >= self.seconds:
                    say(f"The time is up after {counted_trials(done)}.")
                    break
                trial, settings = ask(study, self.space)
                bench.run(trial, settings, lines)
                done = len(ended(study))
                bar.update(task, completed=done)
                say(trial_line(ended(study)[-1], self.objectives))

    def _judged(self, study: optuna.Study, bench: Bench) -> Swept:
        trials = tuple(ended(study))
        if not complete(study):
            reason = next((trial.user_attrs["error"] for trial in trials if "error" in trial.user_attrs), "")
            raise WorkError(
                f"None of {counted_trials(len(trials))} has a result. {reason}".strip(),
                expected="one or more models to choose from",
                action="raise --trials, or mend what the reason names",
            )
        winner = best(study)
        front = study.best_trials if len(self.objectives) > 1 else [winner]
        return Swept(
            recipe=self.recipe,
            best_recipe=bench.varied(winner.user_attrs["settings"]),
            space=self.space,
            objectives=self.objectives,
            metric=self.metric,
            trials=trials,
            winner=winner,
            front=frozenset(trial.number for trial in front),
            importance=importances(study, self.space),
            test=self._test_figures(bench, winner, trials),
        )

    def _test_figures(self, bench: Bench, winner: FrozenTrial, trials: Sequence[FrozenTrial]) -> TestFigures:
        """The winner's answers to the test rows, and those of the recipe's own values, which trial 0 has."""
        dataset = Dataset.open(bench.work / "data")
        if not (bench.tuned_folder(winner.number) / TunedModel.file_name).is_file():  # removed, or stopped just then
            bench.built(winner.user_attrs["settings"], StageLines(Console(quiet=True)))
            bench.keep(winner.number)

        def answered(number: int) -> tuple[Any, Any]:
            tuned = TunedModel.open(bench.tuned_folder(number))
            rows = frozen_slice(
                *(tuned, self.recipe.gate.metric, dataset.test, dataset.train, len(dataset.test), self.recipe.seed)
            )
            return rows.expected, rows.answers(model_answers(tuned, rows))

        metric = self.metric
        expected, answers = answered(winner.number)
        value = metric.of(expected, answers)
        low, high = metric_interval(metric, metric.rows(expected, answers))
        figures = TestFigures(value, (low, high), len(dataset.test))
        first = trials[0]
        if not has_result(first) or first.number == winner.number or not bench.tuned_folder(first.number).is_dir():
            return figures
        _, own = answered(first.number)
        gain = paired_gain(metric, expected, own, answers)
        return TestFigures(value, (low, high), len(dataset.test), metric.of(expected, own), gain)


def counted_trials(number: int) -> str:
    """So many trials, in words."""
    return f"{number:,} trial{'s' * (number != 1)}"


def evaluation_words(trial: FrozenTrial) -> str:
    """How often a trial was evaluated while it trained."""
    number = len(trial.intermediate_values)
    return f"{number:,} evaluation{'s' * (number != 1)}"


def setting_words(trial: FrozenTrial) -> str:
    """A trial's settings without the name of their section; of the recipe's own values these words."""
    settings = trial.user_attrs.get("settings", trial.params)
    words = ", ".join(f"{key.partition('.')[2]} {value_word(value)}" for key, value in settings.items())
    return f"the recipe's own values{f' ({words})' if words else ''}" if "own" in trial.user_attrs else words


def value_word(value: object) -> str:
    """A value in three digits where it is a fraction."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def objective_words(values: Sequence[float], objectives: Sequence[str]) -> list[str]:
    """Each value in its unit."""
    words = {"metric": "{:.4f}".format, "size": lambda b: f"{b / 1e6:.1f} MB", "latency": "{:.2f} ms".format}
    return [words[name](value) for name, value in zip(objectives, values, strict=True)]


def trial_line(trial: FrozenTrial, objectives: Sequence[str]) -> str:
    """A trial in one line."""
    if "error" in trial.user_attrs:
        result = f"failed: {trial.user_attrs['error']}"
    elif not has_result(trial):
        result = f"pruned after {evaluation_words(trial)}"
    else:
        result = ", ".join(objective_words(trial.values, objectives))
    return f"trial {trial.number}: {result}; {setting_words(trial)}"
