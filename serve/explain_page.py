"""Explanations as one HTML page: texts with their words in colour. Nothing is fetched, and no script runs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.serve.explain import Explanation

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 16px/1.7 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff }}
article {{ border-top: 1px solid #ddd; padding: 1rem 0 }}
mark {{ color: inherit; border-radius: 3px; padding: 1px 2px }}
small {{ color: #555 }}
</style></head>
<body>
<h1>{title}</h1>
<p><small>Green words speak for the label, red ones against it; the deeper, the more. Point at a word for its weight in
logits.</small></p>
{articles}
</body></html>
"""
_FOR, _AGAINST = "22, 140, 70", "200, 40, 40"
_DEEPEST = 0.75  # opacity of the heaviest word's colour


def explanation_page(name: str, explanations: Sequence[Explanation]) -> str:
    """The page of a bundle's explanations."""
    articles = "\n".join(map(_article, explanations))
    return _PAGE.format(title=escape(f"Why {name} answers so"), articles=articles)


def _article(explanation: Explanation) -> str:
    texts = "\n".join(f"<p>{marked(explanation, name)}</p>" for name in explanation.parts)
    how = "exact weights" if explanation.method == "exact" else "by leaving words away"
    answer = escape(str(explanation.answer.plain))
    heading = f"<strong>{escape(explanation.target)}</strong> <small>answered: {answer}; {how}</small>"
    return f"<article>{heading}{texts}</article>"


def marked(explanation: Explanation, part: str) -> str:
    """One text of an explanation as HTML, its words on the colours of their weights."""
    text = explanation.texts[explanation.parts.index(part)]
    pieces, end, most = [], 0, explanation.heaviest or 1.0
    for word in (word for word in explanation.words if word.part == part):
        colour = _FOR if word.weight > 0 else _AGAINST
        depth = _DEEPEST * abs(word.weight) / most
        pieces.append(escape(text[end : word.start]))
        pieces.append(
            f'<mark style="background: rgba({colour}, {depth:.2f})" title="{word.weight:+.3f}">'
            f"{escape(text[word.start : word.end])}</mark>"
        )
        end = word.end
    return "".join([*pieces, escape(text[end:])])
