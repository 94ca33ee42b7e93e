"""How far people agree with a model, by label and by day, with intervals; and with each other. Floor packages alone.

People judge what they choose to judge, mostly what is wrong: these are shares of what was judged, not of all answers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgetune.serve.feedback.entries import GivenAnswer, Vote
from edgetune.serve.feedback.reading import Feedback, Judged

_Z = 1.959963984540054  # the normal's 97.5% quantile


@dataclass(frozen=True)
class Share:
    """So many of so many, with Wilson's 95% score interval (JASA 22, 1927)."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; 0 of none."""
        return self.count / self.of if self.of else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its interval; 0 to 1 where there is nothing."""
        if not self.of:
            return 0.0, 1.0
        wide = _Z**2 / self.of
        middle = (self.value + wide / 2) / (1 + wide)
        half = math.sqrt(self.value * (1 - self.value) * wide + wide**2 / 4) / (1 + wide)
        return max(0.0, middle - half), min(1.0, middle + half)

    def as_json(self) -> dict[str, object]:
        """Its figures by name."""
        return {"agree": self.count, "judged": self.of, "share": self.value, "ci95": list(self.interval)}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f}% of {self.of:,} (95%: {100 * low:.1f} to {100 * high:.1f})"


@dataclass(frozen=True)
class Agreement:
    """Shares of judged answers that people found right.

    Attributes:
        all: of all judged answers.
        by_label: by the label that the model gave; none of language models.
        by_day, by_version: by the day (UTC) and the bundle of the answer.
        wrong: how often people say one label where the model says another, most often first.
        people: shares of answers with several judges on which all of them agree.
        first_chosen: of choices between two answers, how many were for the first of them.
    """

    all: Share
    by_label: dict[str, Share] = field(default_factory=dict)
    by_day: dict[str, Share] = field(default_factory=dict)
    by_version: dict[str, Share] = field(default_factory=dict)
    wrong: tuple[tuple[str, str, int], ...] = ()
    people: Share = field(default_factory=lambda: Share(0, 0))
    first_chosen: Share = field(default_factory=lambda: Share(0, 0))

    def as_json(self) -> dict[str, object]:
        """All figures by name."""
        groups = {"by_label": self.by_label, "by_day": self.by_day, "by_version": self.by_version}
        return {
            **self.all.as_json(),
            **{name: {key: share.as_json() for key, share in group.items()} for name, group in groups.items()},
            "wrong": [{"model": model, "people": people, "count": count} for model, people, count in self.wrong],
            "people": self.people.as_json(),
            "first_chosen": self.first_chosen.as_json(),
        }


def agreement(feedback: Feedback) -> Agreement:
    """Count what people said of the answers in a folder; an answer on which as many say yes as no counts as wrong."""
    groups: dict[str, dict[str, list[bool]]] = {name: defaultdict(list) for name in ("label", "day", "version")}
    right: list[bool] = []
    united: list[bool] = []
    wrong: Counter[tuple[str, str]] = Counter()
    for judged in feedback.judged:
        for place, answer in enumerate(judged.answered.answers):
            words = _words(judged, place, answer)
            if not words:
                continue
            holds = 2 * sum(word is True for word in words) > len(words)
            right.append(holds)
            groups["day"][judged.answered.time[:10]].append(holds)
            groups["version"][judged.answered.version].append(holds)
            if answer.label is not None:
                groups["label"][answer.label].append(holds)
                wrong.update((answer.label, word) for word in words if isinstance(word, str))
            if len(words) > 1:
                united.append(len(set(words)) == 1)
    choices = [vote for judged in feedback.judged for vote in judged.votes if vote.choice is not None]
    shares = {name: {key: _share(group[key]) for key in sorted(group)} for name, group in groups.items()}
    return Agreement(
        _share(right),
        by_label=shares["label"],
        by_day=shares["day"],
        by_version=shares["version"],
        wrong=tuple((*pair, count) for pair, count in wrong.most_common()),
        people=_share(united),
        first_chosen=_share([_is_first(vote) for vote in choices]),
    )


def _share(values: Sequence[bool]) -> Share:
    return Share(sum(values), len(values))


def _is_first(vote: Vote) -> bool:
    return vote.choice is not None and vote.over is not None and vote.choice < vote.over


def _words(judged: Judged, place: int, answer: GivenAnswer) -> list[bool | str]:
    """What each person says of an answer: True where it is right, False where it is not, or the right label."""
    by_person: dict[str, bool | str] = {}
    for vote in _corrections_last(judged.votes):
        if vote.index != place or vote.choice is not None:
            continue
        if vote.vote is not None:
            by_person[vote.person] = vote.vote == "up"
        elif vote.label is not None:
            by_person[vote.person] = True if vote.label == answer.label else vote.label
        else:
            by_person[vote.person] = vote.text == answer.text
    return list(by_person.values())


def _corrections_last(votes: Iterable[Vote]) -> list[Vote]:
    return sorted(votes, key=lambda vote: vote.vote is None)
