"""How a terminal and JSON show what each word adds to an answer: for `explain` and `predict --explain`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from edgetune.escaping import escaped, one_line
from edgetune.serve.explain import EXACT

if TYPE_CHECKING:
    from edgetune.serve.explain import Explanation

_BAR = 20  # characters of the longest
_HEARD = 0.25  # of the heaviest word's weight, from which a word is coloured in the text


def print_weights(explanation: Explanation, top: int) -> None:
    """Print the `top` heaviest words with bars, and what the others add together."""
    how = "what each adds, exactly" if explanation.method == EXACT else "what leaving each away takes"
    click.echo(f"  words for {escaped(explanation.target)} ({how}, of {explanation.total:+.2f}):")
    words = sorted(explanation.words, key=lambda word: -abs(word.weight))
    width = max((len(one_line(word.text)) for word in words[:top]), default=0)
    for word in words[:top]:
        bar = "#" * round(_BAR * abs(word.weight) / (explanation.heaviest or 1.0))
        click.echo(f"  {word.weight:+8.2f}  {one_line(word.text):<{width}}  {_style(bar, word.weight)}".rstrip())
    if len(words) > top:
        rest = sum(word.weight for word in words[top:])
        click.echo(f"  {rest:+8.2f}  in {len(words) - top} other words")


def coloured_texts(explanation: Explanation) -> Iterator[str]:
    """Each text of the input on one line, words that weigh much in colour."""
    for name, text in zip(explanation.parts, explanation.texts, strict=True):
        pieces, end = [], 0
        for word in (word for word in explanation.words if word.part == name):
            weighs = abs(word.weight) >= _HEARD * explanation.heaviest > 0
            shown = one_line(text[word.start : word.end])
            pieces += [one_line(text[end : word.start]), _style(shown, word.weight) if weighs else shown]
            end = word.end
        yield "".join([*pieces, one_line(text[end:])])


def _style(text: str, weight: float) -> str:
    return click.style(text, fg="green" if weight > 0 else "red", bold=True)
