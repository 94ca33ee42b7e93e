"""`edgetune predict`: answers texts with a bundle. Needs the floor and an ONNX Runtime only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edgetune.commands.options import json_option, print_json
from edgetune.commands.texts import read_texts
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.heads.label import Prediction
    from edgetune.serve.predictor import Predictor

CHUNK = 256
_OF_CLASSIFIERS = ("top",)
_OF_LANGUAGE_MODELS = ("max_tokens", "temperature", "top_p", "seed", "raw")


@click.command(name="predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT...]")
@click.option("--input", "source", help="File of texts: csv, tsv, jsonl or plain lines; - reads standard input.")
@click.option("--column", help="Column of the texts in a csv, tsv or jsonl file; guessed when not named.")
@click.option("--top", type=click.IntRange(min=1), default=1, help="Best labels shown for each text.")
@click.option("--threads", type=click.IntRange(min=1), help="Threads; all usable cores when not said.")
@click.option("--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the graph runs.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of a generated answer.")
@click.option(
    "--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 takes the likeliest token."
)
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the likeliest tokens.")
@click.option("--seed", type=int, help="Of the drawing of tokens.")
@click.option("--raw", is_flag=True, help="Continue the text itself, without the model's chat template.")
@json_option
def command(
    bundle: Path,
    texts: tuple[str, ...],
    source: str | None,
    column: str | None,
    top: int,
    threads: int | None,
    provider: str,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    raw: bool,
    as_json: bool,
) -> None:
    """Answer each TEXT, each row of a file, or each line of standard input.

    A classifier prints one line a text: label, score, text, separated by tabs. A language model streams its answer;
    its options are those from --max-tokens to --raw. Blank texts get no answer and are counted.

    \b
    Example:
      edgetune predict bundles/x "my card has not arrived" "where is my refund"
      edgetune predict bundles/x --input messages.csv --column body --json > answers.json
      cat messages.txt | edgetune predict bundles/x
      edgetune predict bundles/stories "Once upon a time" --raw --temperature 0.8
    """
    stream = read_texts(texts, source, column)
    first = next(stream, None)
    if first is None:
        raise InputError("There is no text to answer.", expected="a TEXT, --input FILE, or lines on standard input")
    texts_in_order = itertools.chain([first], stream)
    if Bundle.open(bundle, verify=False).manifest.task == "text-generation":
        _refuse(_OF_CLASSIFIERS, f"{bundle} generates text")
        from edgetune.commands.generation import Wish, print_generations

        wish = Wish(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, raw=raw)
        print_generations(bundle, texts_in_order, wish, threads=threads, provider=provider, as_json=as_json)
        return
    _refuse(_OF_LANGUAGE_MODELS, f"{bundle} classifies text")
    from edgetune.serve.loading import load

    predictor = load(bundle, threads=threads, provider=provider)
    answers = _answers(predictor, texts_in_order)
    if as_json:
        print_json([_plain(text, answer) for text, answer in answers])
    else:
        _print_lines(answers, top)


def _refuse(options: Iterable[str], why: str) -> None:
    """Stop at options that were given and would have no effect.

    Raises:
        click.UsageError: naming them.
    """
    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        named = ", ".join("--" + name.replace("_", "-") for name in given)
        raise click.UsageError(f"{named} would have no effect: {why}.")


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
