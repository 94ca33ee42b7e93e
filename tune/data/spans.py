"""Labelled spans of texts, however they were written: words with tags, or borders beside a text.

Tags of every scheme in use (BIO, IOB1, BIOES, BILOU, BMES, plain types) are read by one rule. Borders are those of
doccano, Label Studio, Prodigy, spaCy and most JSON. Whatever they were, rows become a text and the JSON list of its
[start, end, type] in characters, end not included. Must not import torch.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgetune.serve.codecs import visible
from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns, require_column
from edgetune.tune.data.list_cells import value_of
from edgetune.tune.data.reading import Table
from edgetune.tune.data.rows import Rows
from edgetune.tune.data.word_rows import text_columns, with_lists, word_columns

LabelledSpan = tuple[int, int, str]  # first character, the one behind the last, type

OUTSIDE = "O"
WORD_NAMES = ("tokens", "words", "token", "word", "sentence", "text")
TAG_NAMES = ("ner_tags", "tags", "labels", "ner", "bio_tags", "tag", "label", "entities")
SPAN_NAMES = ("entities", "spans", "label", "labels", "annotations", "ner", "annotation")
TEXT_NAMES = ("text", "sentence", "content", "document", "data", "文本")
_STARTS = ("start", "start_offset", "startOffset", "begin", "start_char", "from")
_ENDS = ("end", "end_offset", "endOffset", "stop", "end_char", "to")
_KINDS = ("label", "type", "entity", "entity_group", "tag", "labels", "category", "class")
_PREFIXED = re.compile(r"([BIMESLU])-(.+)", re.DOTALL)
_ENDING, _SINGLE = "EL", "SU"
# From this share of words of one character on, words are the characters of a text that has no blanks.
BY_CHARACTER = 0.9
SAMPLE = 200


# What a data set holds


def spans_in(columns: Mapping[str, Sequence[object]], section: Mapping[str, object]) -> str:
    """Why rows hold labelled spans, in words; "" where they do not. Arguments as for `Task.recognises`."""
    if tagged := word_columns(columns) or text_columns(columns):
        return f"the column {tagged[-1]!r} holds tags of words"
    cells = {name: [_value(cell) for cell in values] for name, values in columns.items()}
    if words := _word_columns(cells, section.get("text"), section.get("label")):
        return f"the columns {words[0]!r} and {words[1]!r} hold words and their tags"
    if spans := _span_columns(cells, section.get("text"), section.get("label")):
        return f"the column {spans[1]!r} holds borders of spans of {spans[0]!r}"
    return ""


def choose_span_columns(table: Table, text: str | None, label: str | None) -> Columns:
    """The columns of words and tags, or of texts and spans: named, else guessed.

    Raises:
        DataError: a named column is not there, or there are no such columns.
    """
    for name, field in ((text, "text"), (label, "label")):
        if name is not None:
            require_column(table, name, field)
    before = len(table.findings)
    table = with_lists(table)
    sample = {name: [_value(cell) for cell in values[:SAMPLE]] for name, values in table.columns.items()}
    chosen = _word_columns(sample, text, label) or _span_columns(sample, text, label)
    if chosen is None:
        raise DataError(
            f"{table.source} holds no labelled spans: its columns are {', '.join(map(repr, table.columns))}.",
            expected='words and their tags (lists of one length), or a text and spans such as [[0, 6, "place"]].',
            action="name the columns: --set data.text=... --set data.label=...",
        )
    columns = Columns((chosen[0],), (chosen[1],))
    guessed = [name for name, given in zip(chosen, (text, label), strict=True) if given is None]
    note = (f"Columns {' and '.join(map(repr, guessed))} were guessed.",) if guessed else ()
    return Columns(columns.texts, columns.labels, (*table.findings[before:], *note, *_remarks(table, columns)))


def read_span_rows(table: Table, columns: Columns) -> Rows:
    """Texts and the words of their spans; "" for a row whose spans are not given, or which an annotator refused.

    Raises:
        DataError: naming the first row whose words and tags are unlike in number, or whose spans do not fit its text.
    """
    require_column(table, columns.texts[0], "text")
    require_column(table, columns.labels[0], "label")
    table = with_lists(table)
    texts, labels = [], []
    for number, (text, spans) in enumerate(_each_row(table, columns), start=1):
        if spans is None:
            texts.append(text)
            labels.append("")
            continue
        apart = _apart(_checked(text, spans, f"{table.source}, row {number}"))
        text, moved = _tidied(text, apart)
        texts.append(text)
        labels.append(json.dumps(moved, ensure_ascii=False))
    return Rows(tuple(texts), tuple(labels))


def word_of(word: str) -> list[LabelledSpan]:
    """The spans that a clean row's word stands for."""
    return [(start, end, kind) for start, end, kind in json.loads(word)]


# Rows


def _each_row(table: Table, columns: Columns) -> list[tuple[str, list[LabelledSpan] | None]]:
    """The text and the spans of each row, not yet checked; None where they are not given."""
    texts, cells = table.columns[columns.texts[0]], table.columns[columns.labels[0]]
    refused = [
        answer.strip() not in ("", "accept") for answer in table.columns.get("answer", ("",) * len(table))
    ]  # Prodigy's
    rows: list[tuple[str, list[LabelledSpan] | None]] = []
    if _are_words([_value(text) for text in texts[:SAMPLE]]):
        by_character = _is_by_character(texts)
        kinds = _kinds_of([_value(cell) for cell in cells], table.source, columns.labels[0])
        for number, (text, cell) in enumerate(zip(texts, cells, strict=True), start=1):
            words, tags = _value(text) or [], _value(cell) or []
            if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
                raise _unlike(table.source, number, columns, words, tags)
            rows.append(_joined([str(word) for word in words], [kinds(str(tag)) for tag in tags], by_character))
    else:
        for number, (text, cell) in enumerate(zip(texts, cells, strict=True), start=1):
            where = f"{table.source}, row {number}"
            plain = _text_of(text)
            rows.append((plain, None if not cell.strip() else _borders_of(_value(cell), plain, where)))
    return [(text, None if no else spans) for (text, spans), no in zip(rows, refused, strict=True)]


def _unlike(source: str, number: int, columns: Columns, words: object, tags: object) -> DataError:
    sizes = [len(value) if isinstance(value, list) else value for value in (words, tags)]
    return DataError(
        f"{source}, row {number}: {sizes[0]} words in {columns.texts[0]!r} and {sizes[1]} tags in "
        f"{columns.labels[0]!r}.",
        expected="a tag for each word.",
        action="mend or remove that row.",
    )


def _is_by_character(cells: Sequence[str]) -> bool:
    words = [str(word) for cell in cells[:SAMPLE] for word in _value(cell) or []]
    return bool(words) and sum(len(word) == 1 for word in words) >= BY_CHARACTER * len(words)


def _kinds_of(rows: Sequence[object], source: str, column: str) -> Callable[[str], tuple[str, str]]:
    """What reads a tag as prefix and type: `O` has no type, a type without prefix is inside.

    Raises:
        DataError: tags are numbers without names, or some have prefixes and others have none.
    """
    plain: dict[str, int] = {}
    prefixed: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        for tag in row if isinstance(row, list) else ():
            if isinstance(tag, int) and not isinstance(tag, bool):
                raise DataError(
                    f"{source}, row {number}: the tags in {column!r} are numbers without names, such as {tag}.",
                    expected='names, such as ["O", "B-place"].',
                    action="write the tags' names, or save the data set with its ClassLabel names (parquet).",
                )
            if not str(tag).strip():
                raise DataError(
                    f"{source}, row {number}: a word has no tag.",
                    expected="O for what is no entity.",
                    action="mend or remove that row.",
                )
            if tag != OUTSIDE:
                (prefixed if _PREFIXED.fullmatch(str(tag)) else plain).setdefault(str(tag), number)
    if plain and prefixed:
        tag, row = next(iter(plain.items()))
        other = next(iter(prefixed))
        raise DataError(
            f"{source}, row {row}: the tag {tag!r} has no prefix, and others have one, such as {other!r}.",
            expected="B- and I- (or B- M- E- S-) before every type, or before none.",
            action="mend these tags.",
        )

    def kind(tag: str) -> tuple[str, str]:
        match = _PREFIXED.fullmatch(tag)
        if match:
            return match[1], match[2]
        return ("", "") if tag == OUTSIDE else ("I", tag)

    return kind


def _joined(
    words: Sequence[str], tags: Sequence[tuple[str, str]], by_character: bool
) -> tuple[str, list[LabelledSpan] | None]:
    """A text of words, and the spans of their tags.

    One rule reads all schemes: `B`, `S` and `U` begin a span; every other prefix goes on with one of its type that has
    not ended, and begins one otherwise (as conlleval does); behind `E`, `L`, `S` and `U` it has ended.
    """
    text, is_open = "", False
    spans: list[LabelledSpan] = []
    for place, (word, (prefix, kind)) in enumerate(zip(words, tags, strict=True)):
        if place and not by_character and not (_is_wide(words[place - 1][-1:]) and _is_wide(word[:1])):
            text += " "
        start, text = len(text), text + word
        if not prefix:
            is_open = False
            continue
        if is_open and prefix not in "BSU" and spans[-1][2] == kind:
            spans[-1] = (spans[-1][0], len(text), kind)
        else:
            spans.append((start, len(text), kind))
        is_open = prefix not in _ENDING + _SINGLE
    return text, [span for span in spans if span[0] < span[1]]


def _is_wide(character: str) -> bool:
    """Whether a character is of a script that is written without blanks: Han, Kana and their punctuation."""
    return bool(character) and unicodedata.east_asian_width(character) in "WF" and not "가" <= character <= "힣"


# Spans beside a text


def _text_of(cell: str) -> str:
    """The text of a cell; of Label Studio's `data` its text, else its longest string."""
    value = _value(cell)
    if not isinstance(value, dict):
        return cell
    strings = [item for item in value.values() if isinstance(item, str)]
    return str(value.get("text") or max(strings, key=len, default=""))


def _borders_of(value: object, text: str, where: str) -> list[LabelledSpan]:
    """The spans that a cell's value holds.

    Raises:
        DataError: it holds none, or one that is not understood.
    """
    listed = _listed(value)
    if listed is None:
        raise _no_span(where, value)
    spans = []
    for item in listed:
        if isinstance(item, dict) and isinstance(item.get("value"), dict):  # Label Studio's
            if item.get("type", "labels") not in ("labels", "hypertextlabels"):
                continue
            item = item["value"]
        start, end, kind, says = _one_span(item)
        if not isinstance(start, int) or not isinstance(end, int) or not isinstance(kind, str) or not kind.strip():
            raise _no_span(where, item)
        spans.append((*_in_characters(start, end, text, says), kind.strip()))
    return spans


def _one_span(item: object) -> tuple[Any, Any, Any, Any]:
    """Start, end, type and words of a span; None for what it does not say."""
    if isinstance(item, list) and len(item) >= 3:
        return item[0], item[1], item[2], None
    if not isinstance(item, dict):
        return None, None, None, None
    start, end, kind = (next((item[n] for n in names if n in item), None) for names in (_STARTS, _ENDS, _KINDS))
    if isinstance(kind, list):
        kind = kind[0] if len(kind) == 1 else None
    return start, end, kind, item.get("text")


def _in_characters(start: int, end: int, text: str, says: object) -> tuple[int, int]:
    """Borders in characters; those of programs in JavaScript count what lies beyond the basic plane twice."""
    if not isinstance(says, str) or text[start:end] == says:
        return start, end
    units = text.encode("utf-16-le", "surrogatepass")
    if units[2 * start : 2 * end].decode("utf-16-le", "replace") == says:
        first = len(units[: 2 * start].decode("utf-16-le", "replace"))
        return first, first + len(says)
    return start, end


def _listed(value: object) -> list[Any] | None:
    """The list of spans in a value: itself, under a key, or Label Studio's first annotation that was not cancelled."""
    if isinstance(value, dict):
        keys = [key for key in ("entities", "spans", "labels", "result") if isinstance(value.get(key), list)]
        return list(value[keys[0]]) if keys else None
    if not isinstance(value, list):
        return None
    if value and all(isinstance(item, dict) and isinstance(item.get("result"), list) for item in value):
        done = [item for item in value if not item.get("was_cancelled")]
        return list(done[0]["result"]) if done else []
    return value


def _no_span(where: str, value: object) -> DataError:
    return DataError(
        f"{where}: {value!r:.80} is no labelled span.",
        expected='first character, the one behind the last, and a type: [0, 6, "place"], or {"start": 0, "end": 6, '
        '"label": "place"}.',
        action="mend or remove that row.",
    )


def _checked(text: str, spans: Sequence[LabelledSpan], where: str) -> list[LabelledSpan]:
    for start, end, kind in spans:
        if not 0 <= start < end <= len(text):
            raise DataError(
                f"{where}: the span {start} to {end} ({kind}) does not fit its text of {len(text)} characters.",
                expected="borders in characters, the first 0, the last at most the text's length.",
                action="mend or remove that row; borders may have been counted in bytes or tokens.",
            )
    return sorted(spans)


def _apart(spans: Sequence[LabelledSpan]) -> list[LabelledSpan]:
    """Of spans that overlap the longest, of those the first: a token has one tag."""
    apart: list[LabelledSpan] = []
    for span in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if all(span[1] <= other[0] or other[1] <= span[0] for other in apart):
            apart.append(span)
    return sorted(apart)


def _tidied(text: str, spans: Sequence[LabelledSpan]) -> tuple[str, list[LabelledSpan]]:
    """A text as cleaning and answering strip it, and its spans there, without white space at their ends."""
    places = [place for place, character in enumerate(text) if visible(character)]
    while places and text[places[0]].isspace():
        places.pop(0)
    while places and text[places[-1]].isspace():
        places.pop()
    tidy = "".join(text[place] for place in places) if len(places) < len(text) else text
    moved = []
    for start, end, kind in spans:
        first, last = bisect_left(places, start), bisect_left(places, end)
        while first < last and tidy[first].isspace():
            first += 1
        while first < last and tidy[last - 1].isspace():
            last -= 1
        if first < last:
            moved.append((first, last, kind))
    return tidy, moved


# Which columns


def _value(cell: object) -> Any:
    """A cell as it was before it became a word: a list or an object where it is one in JSON."""
    if not isinstance(cell, str) or cell[:1] not in ("[", "{"):
        return cell
    value = value_of(cell, cell[0])
    return cell if value is None else value


def _are_words(cells: Sequence[object]) -> bool:
    """Whether cells are lists of words."""
    filled = [cell for cell in cells if cell not in (None, "")]
    return bool(filled) and all(
        isinstance(cell, list) and all(isinstance(word, (str, int, float)) for word in cell) for cell in filled
    )


def _word_columns(cells: Mapping[str, Sequence[object]], text: object, label: object) -> tuple[str, str] | None:
    """The columns of words and of their tags, where there are such."""
    lists = {name for name, values in cells.items() if _are_words(values)}
    usual = {name.casefold(): name for name in lists}
    words = [text] if isinstance(text, str) else [usual[name] for name in WORD_NAMES if name in usual]
    tags = [label] if isinstance(label, str) else [usual[name] for name in TAG_NAMES if name in usual]
    if not isinstance(label, str):
        tags += sorted(name for name in lists - set(tags) if name.casefold().endswith(("_tags", "_labels")))
    for word_column in words:
        for tag_column in tags:
            if {word_column, tag_column} <= lists and word_column != tag_column:
                return str(word_column), str(tag_column)
    return None


def _span_columns(cells: Mapping[str, Sequence[object]], text: object, label: object) -> tuple[str, str] | None:
    """The columns of texts and of spans, where there are such."""
    labels = [label] if isinstance(label, str) else [*SPAN_NAMES, *(name for name in cells if name not in SPAN_NAMES)]
    column = next((name for name in labels if name in cells and _hold_spans(cells[name])), None)
    if column is None:
        return None
    rest = [name for name in cells if name != column]
    names = [text] if isinstance(text, str) else [*(name for name in TEXT_NAMES if name in rest), *rest]
    chosen = next((name for name in names if name in rest and _hold_texts(cells[name])), None)
    return None if chosen is None else (str(chosen), str(column))


def _hold_spans(cells: Sequence[object]) -> bool:
    lists = [listed for cell in cells if cell not in (None, "") and (listed := _listed(cell)) is not None]
    items = [item.get("value", item) if isinstance(item, dict) else item for listed in lists for item in listed]
    known = [_one_span(item) for item in items]
    fitting = sum(isinstance(start, int) and isinstance(end, int) for start, end, _, _ in known)
    return bool(items) and 2 * fitting >= len(items)


def _hold_texts(cells: Sequence[object]) -> bool:
    return any(isinstance(cell, (str, dict)) and cell for cell in cells)


def _remarks(table: Table, columns: Columns) -> tuple[str, ...]:
    """What a reader should know of how tags or borders were read."""
    texts, cells = table.columns[columns.texts[0]], [_value(cell) for cell in table.columns[columns.labels[0]]]
    if _are_words([_value(text) for text in texts[:SAMPLE]]):
        tags = {str(tag) for row in cells if isinstance(row, list) for tag in row}
        how = "characters, joined without blanks" if _is_by_character(texts) else "words"
        return (f"Read {how} with tags of the scheme {scheme_of(tags)}.",)
    rows = [spans for _, spans in _each_row(table, columns) if spans]
    dropped = sum(len(spans) - len(_apart(spans)) for spans in rows)
    if not dropped:
        return ()
    spans = counted(dropped, "span lies", "spans lie")
    return (f"{spans} over a longer one and {'is' if dropped == 1 else 'are'} left out: a token has one tag.",)


def scheme_of(tags: set[str]) -> str:
    """The name of the scheme that tags are of."""
    prefixes = {match[1] for tag in tags if (match := _PREFIXED.fullmatch(tag))}
    if not prefixes:
        return "IO"
    for name, marks in (("BILOU", "LU"), ("BMES", "M"), ("BIOES", "ES")):
        if prefixes & set(marks):
            return name
    return "BIO or IOB1" if "B" in prefixes else "IOB1 or IO"
