"""Files of a word and its tag a line, an empty line between sentences, as CoNLL's shared tasks have them.

Two columns or more: the first is the word, the last its tag. Columns are separated by tabs, or by blanks where a line
has no tab: by plain ones alone, since no-break and ideographic blanks are words here. `-DOCSTART-` lines and comments
are left out. Must not import torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted

TAGGED_SUFFIXES = (".conll", ".conll03", ".bio", ".bmes", ".bioes", ".iob", ".iob2", ".ner")
WORDS, TAGS = "tokens", "tags"
# Of the first lines so many are looked at where the suffix does not tell, and so many of a hundred must bear a tag.
LOOKED_LINES, TAGGED_PERCENT, MOST_PLAIN_TYPES = 400, 98, 60
_HEADER = {"tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "bio", "entity"}
_TAG = re.compile(r"O|[BIMESLU]-\S+")
_DOCUMENT = "-DOCSTART-"
_EXPECTED = "a word and its tag on each line, and an empty line behind each sentence:\nBerlin\tB-place\nwaits\tO"


def looks_tagged(text: str) -> bool:
    """Whether the first lines of a file bear words with tags of entities, some of them of one.

    Plain types are told by the O of all other words, and by the empty lines between sentences.
    """
    lines = [line.rstrip("\r") for line in text.split("\n", LOOKED_LINES)[:LOOKED_LINES]]
    rows = [_cells(line) for line in lines if line.strip() and not _is_comment(line)]
    rows = rows[1:] if rows and rows[0][-1].casefold() in _HEADER else rows
    tags = [cells[-1] for cells in rows if len(cells) > 1]
    fitting = [tag for tag in tags if _TAG.fullmatch(tag)]
    if len({len(cells) for cells in rows}) > 3 or len(tags) < 2 or 100 * len(tags) < TAGGED_PERCENT * len(rows):
        return False
    if 100 * len(fitting) >= TAGGED_PERCENT * len(rows):
        return any(tag != "O" for tag in fitting)
    has_sentences = any(not line.strip() for line in lines[:-1])
    return has_sentences and 2 * tags.count("O") > len(tags) and 1 < len(set(tags)) <= MOST_PLAIN_TYPES


def read_tagged(text: str, path: Path) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The sentences of a file: columns of words and of tags as JSON lists, and what there is to say.

    Raises:
        DataError: a line has no tag, or no word; naming it.
    """
    words: list[str] = []
    tags: list[str] = []
    documents = 0
    for place, sentence in enumerate(_sentences(text)):
        if place == 0 and sentence[0][1][-1].casefold() in _HEADER:  # the names of the columns
            sentence = sentence[1:]
        if not sentence:
            continue
        if sentence[0][1][0] == _DOCUMENT:
            documents += 1
            sentence = sentence[1:]
        for number, cells in sentence:
            if len(cells) < 2 or not cells[0]:
                raise DataError(
                    f"{path}, line {number}: {' '.join(cells)!r:.60} has no {'tag' if len(cells) < 2 else 'word'}.",
                    expected=_EXPECTED,
                    action="mend that line; a word that is no entity has the tag O.",
                )
        if sentence:
            words.append(json.dumps([cells[0] for _, cells in sentence], ensure_ascii=False))
            tags.append(json.dumps([cells[-1] for _, cells in sentence], ensure_ascii=False))
    notes = (f"Left out {counted(documents, '-DOCSTART- line')} of {path.name}.",) if documents else ()
    return {WORDS: tuple(words), TAGS: tuple(tags)}, notes


def _sentences(text: str) -> Iterator[list[tuple[int, list[str]]]]:
    """The lines of each sentence, with their numbers, as cells."""
    sentence: list[tuple[int, list[str]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line.strip(" \t"):
            if sentence:
                yield sentence
            sentence = []
        elif not _is_comment(line):
            sentence.append((number, _cells(line)))
    if sentence:
        yield sentence


def _cells(line: str) -> list[str]:
    if "\t" in line:
        return [cell.strip(" ") for cell in line.rstrip("\t").split("\t")]
    first, _, rest = line.strip(" ").partition(" ")
    return [first, *(cell for cell in rest.split(" ") if cell)]


def _is_comment(line: str) -> bool:
    """Whether a line that begins with # says something of the sentence; a # may be a word, which has a tag."""
    return line.startswith("# ") and not _TAG.fullmatch(_cells(line)[-1])
