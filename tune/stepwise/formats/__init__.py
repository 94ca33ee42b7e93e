"""The formats that rows are written in: one file each, one row in `FORMATS`. Must not import torch.

Their order is that of guessing: of two formats that fit a row, the earlier one says more about it.
"""

from __future__ import annotations

from edgetune.tune.stepwise.formats import (
    alpaca,
    completion,
    gemini,
    messages,
    pairs,
    plain,
    preferences,
    question_answer,
    rankings,
    sharegpt,
    turn_pairs,
    votes,
)
from edgetune.tune.stepwise.formats.format import Format

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        preferences.PAIRS_OF_SHAREGPT,
        preferences.PAIRS_OF_MESSAGES,
        preferences.PAIRS,
        votes.VOTES_ON_MESSAGES,
        votes.VOTES_ON_ALPACA,
        votes.VOTES_ON_WORDS,
        rankings.FORMAT,
        messages.FORMAT,
        messages.PROMPT_AND_COMPLETION,
        sharegpt.FORMAT,
        gemini.FORMAT,
        turn_pairs.FORMAT,
        alpaca.FORMAT,
        completion.FORMAT,
        question_answer.FORMAT,
        pairs.HUMAN_AI_ZH,
        pairs.HUMAN_AI_EN,
        plain.FORMAT,
    )
}
