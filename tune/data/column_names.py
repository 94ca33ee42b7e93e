"""What the names of columns say: which are usual for labels, for texts, and for what stands beside both.

Names alone; `columns.py` holds them against the values. A name is read word by word: `Review Text`, `review_text` and
`reviewText` are the same.
"""

from __future__ import annotations

import re

# In this order of preference: a column of the first group is the label whatever else there is.
_LABELS = (
    (
        "label",
        "labels",
        "target",
        "class",
        "classes",
        "标签",
        "类别",
        "分类",
        "ラベル",
        "라벨",
        "метка",
        "etiqueta",
        "klasse",
    ),
    (
        *("category", "categories", "intent", "intents", "sentiment", "topic", "topics", "emotion", "emotions", "tag"),
        *("tags", "genre", "genres", "polarity", "kategorie", "categoria", "categoría", "catégorie", "категория"),
    ),
    ("stars", "rating", "type", "y"),
)
_NUMBERS = ("score", "similarity", "relevance", "grade", "value")
LABEL_NAMES = tuple(name for names in _LABELS for name in names)
TEXT_NAMES = (
    *("text", "texts", "sentence", "review", "message", "content", "question", "query", "utterance", "comment", "body"),
    *("document", "description", "tweet", "input", "abstract", "post", "文本", "内容", "评论"),
)
# Texts too, but mostly the shorter of two.
HEADING_NAMES = ("title", "headline", "subject", "summary", "标题")
# What most tables have beside texts and labels, and is learnt from only where nothing else can be meant.
_SIDE_WORDS = frozenset(
    "split fold set subset partition part phase lang language locale country region city zip platform device os "
    "browser app version channel source origin site gender sex age user userid username author reviewer customer "
    "annotator worker date time timestamp created updated year month day hour id ids uuid guid idx index key no "
    "nr num number count length len size url uri link file filename path image email phone confidence probability "
    "prob weight currency is has flag verified active deleted column".split()
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]+")
_SIBLING = re.compile(r"(.*?)[\W_]*(?:1|2|a|b|one|two|first|second|left|right)")

SIDE = -3.0
INNER = 0.75  # fewer points where a usual name is one word of several
NEAR = 0.75  # columns whose points differ by less do not decide


def label_points(name: str) -> float:
    """How well a name suits labels: 4, 3 or 2 for usual names, less for names with such a word, minus 3 for others'."""
    whole, words = name.strip().casefold(), _words(name)
    for points, usual in zip((4.0, 3.0, 2.0, 2.0), (*_LABELS, _NUMBERS), strict=True):
        if whole in usual:
            return points
        if words & set(usual):
            return points - INNER - 0.25 * bool(words & _SIDE_WORDS)
    return SIDE if words & _SIDE_WORDS else 0.0


def is_side_name(name: str) -> bool:
    """Whether a name is that of what stands beside texts and labels."""
    return label_points(name) == SIDE


def is_heading_name(name: str) -> bool:
    """Whether a name is that of the shorter of two texts."""
    return bool(_words(name) & set(HEADING_NAMES))


def text_rank(name: str) -> int:
    """2 for usual names of texts, 1 for those of headings and for any other name."""
    words = _words(name)
    if name.strip().casefold() in TEXT_NAMES:
        return 2
    return 2 if words & set(TEXT_NAMES) and not words & (set(HEADING_NAMES) | _SIDE_WORDS) else 1


def are_siblings(one: str, other: str) -> bool:
    """Whether two names are a pair, such as text_1 and text_2."""
    stems = [_SIBLING.fullmatch(name.strip().casefold()) for name in (one, other)]
    parts = {stem.group(1) for stem in stems if stem}
    return one != other and all(stems) and len(parts) == 1 and parts != {"column"}  # made up for want of a header


def _words(name: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(_CAMEL.sub(" ", name))}
