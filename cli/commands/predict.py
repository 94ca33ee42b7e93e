"""`edgetune predict`: answers texts, or pairs of texts, with a bundle. Needs the floor and an ONNX Runtime only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edgetune.commands.options import json_option, print_json
from edgetune.commands.texts import Texts, read_inputs
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import codec_parts, json_input
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.heads import Answer, Head
    from edgetune.serve.predictor import Predictor

CHUNK = 256
_RANKED = ("top",)
_OF_LANGUAGE_MODELS = ("max_tokens", "temperature", "top_p", "seed", "raw")


@click.command(name="predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT...]")
@click.option("--input", "source", help="File of texts: csv, tsv, jsonl or plain lines; - reads standard input.")
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="Column of the texts in a csv, tsv or jsonl file; given twice for pairs.",
    show_default="guessed",
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Number of best labels shown for each text.",
    show_default="the best alone",
)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads per inference run.", show_default="all usable cores"
)
@click.option(
    "--provider", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Execution provider of the graph."
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=256, help="Most tokens of a generated answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Temperature of sampling; 0 takes the likeliest token.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    help="Probability mass of the tokens that are sampled from.",
)
@click.option("--seed", type=int, help="Seed of sampling.", show_default="another each time")
@click.option("--raw", is_flag=True, help="Continue the text itself, without the model's chat template.")
@json_option
def command(
    bundle: Path,
    texts: tuple[str, ...],
    source: str | None,
    columns: tuple[str, ...],
    top: int | None,
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

    A classifier prints one line a text: label, score, text, separated by tabs; a bundle that answers with a number
    prints it before the text. A bundle of pairs takes two texts separated by a tab, or two columns of a file. A
    language model streams its answer; its options are those from --max-tokens to --raw. Blank texts get no answer and
    are counted.

    \b
    Example:
      edgetune predict bundles/x "my card has not arrived" "where is my refund"
      edgetune predict bundles/x --input messages.csv --column body --json > answers.json
      edgetune predict bundles/pairs --input pairs.csv --column premise --column hypothesis
      cat messages.txt | edgetune predict bundles/x
      edgetune predict bundles/stories "Once upon a time" --raw --temperature 0.8
    """
    manifest = Bundle.open(bundle, verify=False).manifest
    parts = codec_parts(manifest.codec)
    stream = read_inputs(texts, source, columns, parts)
    first = next(stream, None)
    if first is None:
        raise InputError("There is no text to answer.", expected="a TEXT, --input FILE, or lines on standard input")
    inputs = itertools.chain([first], stream)
    if manifest.generation is not None:
        _refuse(_RANKED, f"{bundle} generates text")
        from edgetune.commands.generation import GenerationRequest, print_generations

        request = GenerationRequest(max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, raw=raw)
        prompts = (prompt for (prompt,) in inputs)
        print_generations(bundle, prompts, request, threads=threads, provider=provider, as_json=as_json)
        return
    _refuse(_OF_LANGUAGE_MODELS, f"{bundle} generates no text")
    from edgetune.serve.loading import load

    predictor = load(bundle, threads=threads, provider=provider)
    if not predictor.head.ranked:
        _refuse(_RANKED, f"{bundle} has no labels")
    answers = _answers(predictor, inputs)
    if as_json:
        print_json([_plain(predictor, texts, answer) for texts, answer in answers])
    else:
        _print_lines(predictor.head, answers, top)


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


def _answers(predictor: Predictor, inputs: Iterable[Texts]) -> Iterator[tuple[Texts, Answer | None]]:
    """Each input with its answer, in order, in chunks that bound the memory; None where one of its texts is blank."""
    blank, total = 0, 0
    source = iter(inputs)
    while chunk := list(itertools.islice(source, CHUNK)):
        asked = [json_input(texts) for texts in chunk if _is_asked(texts)]
        answers = iter(predictor.predict(asked) if asked else [])
        yield from ((texts, next(answers) if _is_asked(texts) else None) for texts in chunk)
        blank, total = blank + len(chunk) - len(asked), total + len(chunk)
    if blank == total:
        raise InputError(f"All {total} texts are blank.", expected="texts with something in them")
    if blank:
        click.echo(f"{blank} of {total} texts are blank and got no answer.", err=True)


def _is_asked(texts: Texts) -> bool:
    return all(text.strip() for text in texts)


def _print_lines(head: Head, answers: Iterable[tuple[Texts, Answer | None]], top: int | None) -> None:
    for texts, answer in answers:
        shown = [text.replace("\t", " ").replace("\n", " ") for text in texts]
        lines = [[""] * len(head.columns)] if answer is None else head.as_lines(answer, top)
        cut = ["(truncated)"] if answer is not None and answer.truncated else []
        for cells in lines:
            click.echo("\t".join([*cells, *shown, *cut]))


def _plain(predictor: Predictor, texts: Texts, answer: Answer | None) -> dict[str, object]:
    head = predictor.head
    value = dict(head.blank) if answer is None else head.as_json(answer, head.width)
    return {**dict(zip(predictor.codec.parts, texts, strict=True)), **value}
