"""`edgetune predict`: answers texts with a bundle. Needs the floor and an ONNX Runtime only."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from edgetune.commands.options import json_option, print_json
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.predictor import Predictor
    from edgetune.serve.tasks.text_classification import Prediction

CHUNK = 256
COLUMN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
TEXT_NAMES = ("text", "sentence", "message", "content", "review", "query", "question", "utterance", "title")


@click.command(name="predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT...]")
@click.option("--input", "source", help="File of texts: csv, tsv, jsonl or plain lines; - reads standard input.")
@click.option("--column", help="Column of the texts in a csv, tsv or jsonl file; guessed when not named.")
@click.option("--top", type=click.IntRange(min=1), default=1, help="Best labels shown for each text.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads; all usable cores when not said.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the graph runs.")
@json_option
def command(
    bundle: Path,
    texts: tuple[str, ...],
    source: str | None,
    column: str | None,
    top: int,
    threads: int | None,
    provider: str,
    as_json: bool,
) -> None:
    """Answer each TEXT, each row of a file, or each line of standard input.

    Prints one line a text: label, score, text, separated by tabs. Blank texts get no answer and are counted.

    \b
    Example:
      edgetune predict bundles/x "my card has not arrived" "where is my refund"
      edgetune predict bundles/x --input messages.csv --column body --json > answers.json
      cat messages.txt | edgetune predict bundles/x
    """
    from edgetune.serve.loading import load

    stream = _texts(texts, source, column)
    first = next(stream, None)
    if first is None:
        raise InputError("There is no text to answer.", expected="a TEXT, --input FILE, or lines on standard input")
    predictor = load(bundle, threads=threads, provider=provider)
    answers = _answers(predictor, itertools.chain([first], stream))
    if as_json:
        print_json([_plain(text, answer) for text, answer in answers])
    else:
        _print_lines(answers, top)


def _texts(texts: tuple[str, ...], source: str | None, column: str | None) -> Iterator[str]:
    if texts and source:
        raise click.UsageError("Give TEXT or --input, not both.")
    if column and (source is None or Path(source).suffix.lower() not in COLUMN_SUFFIXES):
        raise click.UsageError(f"--column goes with --input of a file with columns: {', '.join(COLUMN_SUFFIXES)}.")
    if texts:
        yield from texts
    elif source and source != "-":
        yield from _file_texts(Path(source), column)
    elif source == "-" or not sys.stdin.isatty():
        yield from _stdin_texts()


def _file_texts(path: Path, column: str | None) -> Iterator[str]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            yield from _parsed(stream, path, column)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.",
            expected="a file of texts: csv, tsv, jsonl or plain lines",
            action="check the path and its permissions",
        ) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(str(path), error) from error
    except csv.Error as error:
        raise InputError(
            f"{path} is no csv: {error}.", expected="rows by the CSV rules", action="write it again with a CSV library"
        ) from error


def _stdin_texts() -> Iterator[str]:
    try:
        yield from _lines(sys.stdin)
    except UnicodeDecodeError as error:
        raise _not_utf8("Standard input", error) from error


def _not_utf8(name: str, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{name} is not UTF-8 ({error.reason}).",
        expected="text in UTF-8",
        action="convert it: iconv -f ENCODING -t utf-8",
    )


def _lines(stream: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in stream)


def _parsed(stream: TextIO, path: Path, column: str | None) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in {".csv", ".tsv"}:
        yield from _csv_rows(stream, path, column, "\t" if suffix == ".tsv" else _delimiter(stream))
    elif suffix in {".jsonl", ".ndjson"}:
        yield from _json_lines(stream, path, column)
    else:
        yield from _lines(stream)


def _csv_rows(stream: TextIO, path: Path, column: str | None, delimiter: str) -> Iterator[str]:
    before = csv.field_size_limit(2**31 - 1)  # a whole document may stand in one field
    try:
        rows = csv.DictReader(stream, delimiter=delimiter)
        if rows.fieldnames:
            name = _column(list(rows.fieldnames), column, path)
            yield from (row[name] or "" for row in rows)
    finally:
        csv.field_size_limit(before)


def _delimiter(stream: TextIO) -> str:
    """The delimiter that the header line holds most of; a comma where it holds none."""
    header = stream.readline()
    stream.seek(0)
    return max(",;\t|", key=header.count)


def _json_lines(stream: Iterable[str], path: Path, column: str | None) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number} is no JSON: {error.msg}.", expected='{"text": "..."}') from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is no JSON object.", expected='{"text": "..."}')
        value = row.get(_column(list(row), column, path))
        if not isinstance(value, str):
            raise InputError(f"{path}, line {number} holds no string of text.", expected='{"text": "..."}')
        yield value


def _column(columns: list[str], wanted: str | None, path: Path) -> str:
    if wanted in columns:
        return wanted
    known = [name for name in columns if name.lower() in TEXT_NAMES]
    if wanted is None and (len(columns) == 1 or known):
        return known[0] if known else columns[0]
    said = f"has no column {wanted!r}" if wanted else "does not say which column holds the texts"
    raise InputError(f"{path} {said}; its columns are {', '.join(columns)}.", action="name one with --column")


def _answers(predictor: Predictor, texts: Iterable[str]) -> Iterator[tuple[str, Prediction | None]]:
    """Each text with its answer, in order, in chunks that bound the memory; None for a blank text."""
    blank, total = 0, 0
    source = iter(texts)
    while chunk := list(itertools.islice(source, CHUNK)):
        asked = [text for text in chunk if text.strip()]
        found = iter(predictor.predict(asked) if asked else [])
        yield from ((text, next(found) if text.strip() else None) for text in chunk)
        blank, total = blank + len(chunk) - len(asked), total + len(chunk)
    if blank == total:
        raise InputError(f"All {total} texts are blank.", expected="texts with something in them")
    if blank:
        click.echo(f"{blank} of {total} texts are blank and got no answer.", err=True)


def _print_lines(answers: Iterable[tuple[str, Prediction | None]], top: int) -> None:
    for text, answer in answers:
        shown = text.replace("\t", " ").replace("\n", " ")
        if answer is None:
            click.echo(f"\t\t{shown}")
            continue
        best = sorted(answer.scores.items(), key=lambda item: -item[1])[:top]
        for label, score in best:
            click.echo(f"{label}\t{score:.4f}\t{shown}" + ("\t(truncated)" if answer.truncated else ""))


def _plain(text: str, answer: Prediction | None) -> dict[str, object]:
    if answer is None:
        return {"text": text, "label": None, "score": None, "scores": None, "truncated": False}
    return {
        "text": text,
        "label": answer.label,
        "score": answer.score,
        "scores": answer.scores,
        "truncated": answer.truncated,
    }
