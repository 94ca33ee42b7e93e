"""The study on disk: Optuna's journal, one text file that every trial is appended to, opened again after any end.

Optuna keeps neither the sampler's state nor what becomes of a trial whose process was killed: both are settled here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from edgetune.serve.errors import WorkError
from edgetune.sweep.recipe import Value
from edgetune.sweep.space import Dimension

NAME, DIGEST, OWN, ERROR = "sweep", "digest", "own", "error"
# Trials before one is pruned, and before importances are more than noise.
FIRST_TRIALS, FEWEST_FOR_IMPORTANCE = 4, 8
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def open_study(journal: Path, directions: Sequence[str], digest: str, seed: int) -> optuna.Study:
    """The study of a journal, which is made if need be; trials that a kill left running are to be run again.

    Args:
        directions: maximize or minimize, of each objective.
        digest: of all that makes trials comparable.
        seed: of the sampler, which goes on with other draws after each trial that there is.

    Raises:
        WorkError: the journal is of another recipe, or none that Optuna reads.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    cut_torn_line(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    pruner = MedianPruner(n_startup_trials=FIRST_TRIALS)
    study = optuna.create_study(
        study_name=NAME, storage=storage, load_if_exists=True, directions=list(directions), pruner=pruner
    )
    study.sampler = TPESampler(seed=seed + len(study.trials), n_startup_trials=FIRST_TRIALS)
    known = study.user_attrs.get(DIGEST)
    if known not in (None, digest):
        raise WorkError(
            f"{journal} is the journal of another sweep: its recipe, data, space or objectives were others.",
            expected="the journal of the same sweep, whose trials can be compared",
            action="pass --fresh to begin anew, or choose another --out",
            cost="--fresh removes the trials that are there",
        )
    if known is None:
        study.set_user_attr(DIGEST, digest)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "continues": trial.number})
    return study


def cut_torn_line(journal: Path) -> None:
    """Cut a journal back to its last newline: Optuna would append to a line that a kill has torn, and lose both.

    Raises:
        WorkError: a line before it is no JSON.
    """
    if not journal.is_file():
        return
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        try:
            json.loads(line)
        except ValueError as error:
            raise WorkError(
                f"Line {number:,} of the journal {journal} is no JSON.",
                expected="a file that edgetune sweep wrote",
                action="pass --fresh to begin anew, or put the file back",
                cost="--fresh removes the trials that are there",
            ) from error
    if whole < len(content):
        with journal.open("r+b") as file:
            file.truncate(whole)


def begin(study: optuna.Study, own: Mapping[str, Value]) -> None:
    """Put the recipe's own values first, of a study that has no trial yet; those that the space lacks stay unsaid."""
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(dict(own), user_attrs={OWN: sorted(own)})


def ask(study: optuna.Study, space: Sequence[Dimension]) -> tuple[Trial, dict[str, Value]]:
    """The next trial and its settings by key; of the first, the recipe's own, only those that lie in the space."""
    trial = study.ask()
    keys = trial.user_attrs.get(OWN)
    asked = [dimension for dimension in space if keys is None or dimension.key in keys]
    return trial, {dimension.key: _suggested(trial, dimension) for dimension in asked}


def _suggested(trial: Trial, dimension: Dimension) -> Value:
    chosen: Value
    if dimension.values:
        chosen = trial.suggest_categorical(dimension.key, list(dimension.values))
    elif dimension.whole:
        chosen = trial.suggest_int(dimension.key, int(dimension.low), int(dimension.high), log=dimension.log)
    else:
        chosen = trial.suggest_float(dimension.key, dimension.low, dimension.high, log=dimension.log)
    return chosen


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ended by themselves, in their order: not those that were killed and are run again."""
    trials = study.get_trials(deepcopy=False, states=ENDED)
    return [trial for trial in trials if trial.state != TrialState.FAIL or ERROR in trial.user_attrs]


def has_result(trial: FrozenTrial) -> bool:
    """Whether a trial ran to its end; Optuna gives a pruned one its last evaluation as its value."""
    return bool(trial.state == TrialState.COMPLETE)


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that have a result."""
    return list(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def best(study: optuna.Study) -> FrozenTrial:
    """The trial with the best metric, the first of equal ones; of several objectives it lies on the front."""
    sign = 1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else -1
    front = study.best_trials if len(study.directions) > 1 else complete(study)
    return max(front, key=lambda trial: (sign * trial.values[0], -trial.number))


def importances(study: optuna.Study, space: Sequence[Dimension]) -> dict[str, float]:
    """The share of the metric's variance that each key accounts for (fANOVA, Hutter et al. 2014), largest first.

    Empty where too few trials have values of all keys, or all are equal.
    """
    keys = [dimension.key for dimension in space]
    whole = [trial for trial in complete(study) if set(keys) <= trial.params.keys()]
    if len(whole) < FEWEST_FOR_IMPORTANCE or len({trial.values[0] for trial in whole}) < 2:
        return {}

    def metric(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    evaluator = FanovaImportanceEvaluator(seed=0)
    found: dict[str, Any] = get_param_importances(study, evaluator=evaluator, params=keys, target=metric)
    return {key: float(share) for key, share in found.items()}
