"""The trials of a sweep: each is a build up to the tuned model, or up to its candidates, in one work folder for all.

One folder, because a stage that the settings do not touch is then opened and not run again.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from rich.console import Console
from rich.progress import Progress, TaskID

from edgetune.benchmarks.prove.search import Searched
from edgetune.once.recipe import OnceRecipe
from edgetune.pipeline import Built, build
from edgetune.progress import StageLine, StageLines
from edgetune.serve.errors import EdgetuneError, GateError, Interrupted
from edgetune.sweep.recipe import Value
from edgetune.sweep.space import with_settings
from edgetune.sweep.study import ERROR, OWN, best, complete
from edgetune.tune.models.model import TunedModel

Watch = Callable[[float], None]


class TrialLine(StageLine):
    """The running stage of a trial, told in the words of the sweep's one bar; what it says stays in the log."""

    def __init__(self, name: str, console: Console, bar: Progress, task: TaskID, watch: Watch | None) -> None:
        self.words = ""
        self._name, self._bar, self._task, self._watch = name, bar, task, watch

    def say(self, text: str) -> None:
        """Nothing: a line a trial is told."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Say how far the stage is behind the bar."""
        self._bar.update(self._task, description=f"{self._name} {done / max(total, 1):.0%} {note}")

    def evaluated(self, epoch: float, value: float) -> None:
        """Let the study judge an evaluation, of a training."""
        if self._watch is not None:
            self._watch(value)


class TrialLines(StageLines):
    """The stages of a trial behind one bar for all trials."""

    def __init__(self, console: Console, bar: Progress, task: TaskID, watch: Watch | None) -> None:
        super().__init__(console)
        self._bar, self._task, self._watch = bar, task, watch

    def show_finished(self, name: str, result: str) -> None:
        """Nothing: stages that are opened again are the rule."""

    @contextmanager
    def running(self, name: str) -> Iterator[StageLine]:
        """Tell a stage while it runs."""
        self.current = TrialLine(name, self._console, self._bar, self._task, self._watch)
        self._bar.update(self._task, description=name)
        yield self.current
        self.current = None


@dataclass(frozen=True)
class Bench:
    """What runs trials: the recipe that they vary, by whose objectives, and the folder of the sweep."""

    recipe: OnceRecipe
    objectives: tuple[str, ...]
    folder: Path

    @property
    def work(self) -> Path:
        """The work folder of all trials."""
        return self.folder / "trial.work"

    def varied(self, settings: Mapping[str, Value], *, out: str | None = None) -> OnceRecipe:
        """The recipe with a trial's settings.

        Raises:
            RecipeError: they do not go together.
        """
        values = with_settings(self.recipe.model_dump(mode="json"), settings)
        return OnceRecipe.of_values({**values, "out": out or self.recipe.out}, None)

    def run(self, trial: Trial, settings: Mapping[str, Value], lines: Callable[[Watch | None], StageLines]) -> None:
        """Run one trial and tell the study what came of it.

        Raises:
            EdgetuneError: the recipe's own values cannot be built, so that no others will.
            Interrupted: by the user; the trial is run again when the sweep continues.
        """
        start = time.perf_counter()
        trial.set_user_attr("settings", dict(settings))
        try:
            values = self.values_of(self.built(settings, lines(self._watch(trial))), trial)
        except optuna.TrialPruned:
            trial.set_user_attr("seconds", round(time.perf_counter() - start, 1))
            trial.study.tell(trial, state=TrialState.PRUNED)
            return
        except Interrupted:
            raise
        except EdgetuneError as error:
            if OWN in trial.user_attrs and not isinstance(error, GateError):
                raise
            trial.set_user_attr(ERROR, str(error).splitlines()[0])
            trial.study.tell(trial, state=TrialState.FAIL)
            return
        trial.set_user_attr("seconds", round(time.perf_counter() - start, 1))
        self.keep(trial.number)
        trial.study.tell(trial, values)
        self._forget(trial.study)

    def built(self, settings: Mapping[str, Value], lines: StageLines) -> Built:
        """Build with a trial's settings as far as the objectives ask for; the test part is not opened."""
        recipe = self.varied(settings, out=str(self.folder / "trial"))
        return build(recipe, lines, until="tune" if self.objectives == ("metric",) else "compress", planned=False)

    def values_of(self, built: Built, trial: Trial) -> list[float]:
        """A value for each objective: the validation part's metric, bytes of the bundle, ms at the median.

        Raises:
            GateError: no candidate may be packed, or none was timed.
        """
        tuned: TunedModel = built.results["tune"]
        trial.set_user_attr("method", tuned.training.handed_on)
        if self.objectives == ("metric",):
            return [tuned.training.best_value]
        searched: Searched = built.results["compress"]
        if not searched.order:
            raise GateError("No candidate may be packed.", action="lower gate.max_drop or widen the budget")
        chosen = next(one for one in searched.candidates if one.scheme == searched.order[0])
        trial.set_user_attr("scheme", chosen.scheme)
        p50_ms = chosen.latency_ms.p50 if chosen.latency_ms else None
        values = {"metric": chosen.value, "size": chosen.bundle_bytes, "latency": p50_ms}
        if missing := [name for name in self.objectives if values[name] is None]:
            raise GateError(f"The {missing[0]} of {chosen.scheme} was not measured.", action="leave that objective out")
        return [float(values[name] or 0.0) for name in self.objectives]

    def _watch(self, trial: Trial) -> Watch | None:
        """What lets the study end a trial by its evaluations; Optuna prunes by one objective alone."""
        if len(self.objectives) > 1:
            return None
        values: list[float] = []

        def watch(value: float) -> None:
            values.append(value)
            trial.report(value, len(values))
            # The recipe's own values are what all others are held against.
            if OWN not in trial.user_attrs and trial.should_prune():
                raise optuna.TrialPruned

        return watch

    def tuned_folder(self, number: int) -> Path:
        """Where the tuned model of a trial is kept."""
        return self.folder / "kept" / str(number)

    def keep(self, number: int) -> None:
        """Keep the tuned model that lies in the work folder, as links: the next trial replaces the folder."""
        whole = self.tuned_folder(number)
        part = whole.with_name(f"{number}.part")
        for folder in (part, whole):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.work / "tune", part, copy_function=_link)
        part.rename(whole)

    def _forget(self, study: optuna.Study) -> None:
        """Remove what is kept of trials that are neither the recipe's own nor the best."""
        wanted = {str(trial.number) for trial in complete(study) if OWN in trial.user_attrs}
        wanted.add(str(best(study).number))
        for folder in (self.folder / "kept").iterdir():
            if folder.name not in wanted:
                shutil.rmtree(folder, ignore_errors=True)


def _link(source: Any, target: Any) -> None:
    """One file under a second name, or copied where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
