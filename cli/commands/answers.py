"""How `edgetune predict` prints answers: lines for people, one JSON document, or one JSON object a line as they come.

A row that cannot be answered (blank, broken Unicode, or one for which the graph gives no number) keeps its place
without an answer, and is named on stderr; the others are answered.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import msgspec

from edgetune.commands.options import print_json, print_json_line
from edgetune.commands.word_weights import print_weights
from edgetune.escaping import escaped, one_line
from edgetune.serve.codecs import codec_inputs, json_input, takes_files
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.codecs.text import EncodedText
    from edgetune.serve.heads import Answer
    from edgetune.serve.predictor import Predictor

CHUNK = 256
# Rows that are named one by one; of more, their number says enough.
NAMED_ROWS = 5
# Words that are shown for each text of `predict --explain`.
EXPLAINED_WORDS = 5
_ACTION = "decode texts with errors='replace'; prove a bundle that gives no numbers with edgetune verify"

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Form:
    """How answers are printed: `kind` is "lines", "json" or "jsonl"; `top` labels of each in lines.

    With `explain` each answer is followed by what the words of its text add to it.
    """

    kind: str
    top: int | None = None
    explain: bool = False

    @classmethod
    def of(cls, *, as_json: bool, jsonl: bool, top: int | None, explain: bool = False) -> Form:
        """As the options say.

        Raises:
            click.UsageError: both kinds of JSON are asked for.
        """
        if as_json and jsonl:
            raise click.UsageError("Give --json or --jsonl, not both.")
        return cls("json" if as_json else "jsonl" if jsonl else "lines", top, explain)

    def print_values(self, values: Iterable[dict[str, object]]) -> None:
        """Print JSON values as one document, or each as it comes."""
        if self.kind == "json":
            print_json(list(values))
            return
        for value in values:
            print_json_line(value)


class Unanswered:
    """The rows without an answer, by what is wrong with them, and what is said of them in the end.

    Attributes:
        total: rows so far.
        blank: of them, those of blank texts.
    """

    def __init__(self, noun: str = "text") -> None:
        self._noun = noun
        self.total = self.blank = 0
        self._broken: dict[str, list[int]] = {}

    def count(self, *, blank: bool, broken: bool) -> bool:
        """Count a row; whether it gets no answer for what its text is."""
        self.total += 1
        self.blank += blank
        if broken and not blank:
            self.note("for an unpaired surrogate, half a character that no encoding can carry", self.total)
        return blank or broken

    def note(self, what: str, number: int) -> None:
        """Keep the number of a row that got no answer for what it holds or gave."""
        self._broken.setdefault(what, []).append(number)

    def report(self) -> None:
        """Say on stderr how many rows got no answer, and why.

        Raises:
            InputError: none got one.
        """
        noun, total = self._noun, self.total
        if self.blank == total:
            problem = f"The {noun} is blank." if total == 1 else f"All {total} {noun}s are blank."
            raise InputError(problem, expected="texts with something in them")
        sentences = [f"{self.blank} of {total} texts are blank and got no answer."] if self.blank else []
        for what, numbers in self._broken.items():
            named = ", ".join(map(str, numbers[:NAMED_ROWS])) + " and others" * (len(numbers) > NAMED_ROWS)
            sentences.append(f"{len(numbers)} of {total} {noun}s got no answer {what}: {named}.")
        if self.blank + sum(map(len, self._broken.values())) == total:
            found = sentences[0] if total > 1 else f"The {noun} got no answer {next(iter(self._broken))}."
            raise InputError(
                " ".join([found, *sentences[1:]]),
                expected=f"{'whole pictures' if noun == 'picture' else 'valid Unicode'}, and numbers from the model",
                action=_ACTION if noun != "picture" else "",
            )
        for sentence in sentences:
            click.echo(sentence, err=True)


def is_broken(text: str) -> bool:
    """Whether a text holds half a character (an unpaired surrogate), as a broken file or argument gives it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def print_answers(predictor: Predictor, inputs: Iterable[Texts], form: Form) -> None:
    """Answer each input and print the answers in order; those of chunks as they come, but for one JSON document.

    Raises:
        InputError: no input could be answered.
    """
    unanswered = Unanswered("picture" if takes_files(predictor.bundle.manifest.codec) else "text")
    answers = _answers(predictor, inputs, unanswered)
    if form.kind == "lines":
        _print_lines(predictor, answers, form)
    else:
        form.print_values(_plain(predictor, texts, answer, explain=form.explain) for texts, answer in answers)


def _answers(
    predictor: Predictor, inputs: Iterable[Texts], unanswered: Unanswered
) -> Iterator[tuple[Texts, Answer | None]]:
    """Each input with its answer, in order, in chunks that bound the memory; None where it has none."""
    source = iter(inputs)
    while chunk := list(itertools.islice(source, CHUNK)):
        before = unanswered.total
        places = [place for place, texts in enumerate(chunk) if not _has_fault(texts, unanswered)]
        answers: list[Answer | None] = [None] * len(chunk)
        encoded = _encoded(predictor, chunk, places, before, unanswered)
        for place, answer in zip(encoded, _finite_answers(predictor, list(encoded.values())), strict=True):
            answers[place] = answer
            if answer is None:
                unanswered.note("since the model gives no number (NaN or infinity)", before + place + 1)
        yield from zip(chunk, answers, strict=True)
    unanswered.report()


def _has_fault(texts: Texts, unanswered: Unanswered) -> bool:
    """Whether one of an input's texts is blank or broken; counts it."""
    return unanswered.count(
        blank=not all(text.strip() for text in texts), broken=any(is_broken(text) for text in texts)
    )


def _encoded(
    predictor: Predictor, chunk: Sequence[Texts], places: Sequence[int], before: int, unanswered: Unanswered
) -> dict[int, EncodedText]:
    """The rows of the inputs at these places; files that cannot be read are left out and counted."""
    codec = predictor.bundle.manifest.codec
    inputs = codec_inputs(codec, [json_input(chunk[place]) for place in places])
    if not takes_files(codec):
        return dict(zip(places, predictor.encode(inputs) if inputs else [], strict=True))
    rows = {}
    for place, value in zip(places, inputs, strict=True):
        try:
            (rows[place],) = predictor.encode([value])
        except InputError as error:
            unanswered.note(f"since {error.found.rstrip('.')}", before + place + 1)
    return rows


def _finite_answers(predictor: Predictor, encoded: Sequence[EncodedText]) -> list[Answer | None]:
    """The answers of rows; None where the graph gives no number, of which any label would be made up."""
    if not encoded:
        return []
    import numpy as np

    outputs = predictor.outputs(encoded)
    finite: list[bool] = [bool(np.isfinite(row).all()) for row in outputs.logits]
    numbers = msgspec.structs.replace(outputs, logits=np.nan_to_num(outputs.logits))
    answers: list[Answer | None] = list(predictor.answer(numbers, [row.truncated for row in encoded]))
    return [answer if good else None for answer, good in zip(answers, finite, strict=True)]


def _print_lines(predictor: Predictor, answers: Iterable[tuple[Texts, Answer | None]], form: Form) -> None:
    head = predictor.head
    for texts, answer in answers:
        lines = [[""] * len(head.columns)] if answer is None else head.as_lines(answer, form.top)
        cut = ["(truncated)"] if answer is not None and answer.truncated else []
        for cells in lines:
            click.echo("\t".join([*map(escaped, cells), *map(one_line, texts), *cut]))
        if form.explain and answer is not None:
            print_weights(predictor.explain(json_input(texts)), EXPLAINED_WORDS)


def _plain(predictor: Predictor, texts: Texts, answer: Answer | None, *, explain: bool) -> dict[str, object]:
    head = predictor.head
    value = dict(head.blank) if answer is None else head.as_json(answer, head.width)
    if explain:
        value["explanation"] = None if answer is None else predictor.explain(json_input(texts)).as_json()
    return {**dict(zip(predictor.codec.parts, texts, strict=True)), **value}
