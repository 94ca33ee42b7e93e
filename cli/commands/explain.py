"""`edgetune explain`: why a bundle gives an answer, word by word. Needs the floor and an ONNX Runtime only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.commands.text_columns import ColumnRequest
from edgetune.commands.texts import Source
from edgetune.commands.word_weights import coloured_texts, print_weights
from edgetune.escaping import escaped
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import codec_parts, json_input
from edgetune.serve.errors import InputError
from edgetune.serve.explain_page import explanation_page
from edgetune.tune.data.dialect import FileOptions
from edgetune.writing import write_text

if TYPE_CHECKING:
    from edgetune.serve.explain import Explanation
    from edgetune.serve.predictor import Predictor


@click.command(name="explain")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@click.option("--label", help="Label to explain.", show_default="the one that is answered")
@click.option(
    "--top", type=click.IntRange(min=1), default=10, help="Number of words shown for each text.", show_default=True
)
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the texts in colour to an HTML page."
)
@json_option
def command(
    bundle: Path, texts: tuple[str, ...], label: str | None, top: int, html: Path | None, as_json: bool
) -> None:
    """Show what each word of a TEXT adds to the bundle's answer: for it above 0, against it below.

    Static and linear models sum what their words add, so their weights are exact. A graph is asked again without each
    word (occlusion): words that say the same thing may then each weigh little. A bundle of pairs takes two texts
    separated by a tab.

    \b
    Example:
      edgetune explain bundles/x "my card has not arrived"
      edgetune explain bundles/x "my card has not arrived" --label card_linking --html why.html
      edgetune explain bundles/x "where is my refund" --json
    """
    manifest = Bundle.open(bundle, verify=False).manifest
    if manifest.generation is not None:
        raise InputError(
            f"{bundle} generates text, and what a word adds to a text is not measured.",
            expected="a bundle that answers with labels or a number",
            action=f"edgetune inspect {bundle} shows what it is",
        )
    from edgetune.serve.loading import load

    request = ColumnRequest(parts=codec_parts(manifest.codec))
    inputs = list(Source(texts, None, FileOptions(), request).inputs())
    if blank := [number for number, parts in enumerate(inputs, start=1) if not "".join(parts).strip()]:
        raise InputError(f"Text {blank[0]} is blank.", expected="texts with something in them")
    with load(bundle) as predictor:
        explanations = [predictor.explain(json_input(parts), label) for parts in inputs]
        if html is not None:
            write_text(html, explanation_page(manifest.name, explanations), option="--html")
        if as_json:
            print_json([_as_json(predictor, explanation) for explanation in explanations])
            return
        for number, explanation in enumerate(explanations):
            if number:
                click.echo()
            _print(predictor, explanation, top)
    if html is not None:
        click.echo(f"Written to {escaped(str(html))}.", err=True)


def _as_json(predictor: Predictor, explanation: Explanation) -> dict[str, object]:
    answer = predictor.head.as_json(explanation.answer, None)
    return {**dict(zip(predictor.codec.parts, explanation.texts, strict=True)), **answer, **explanation.as_json()}


def _print(predictor: Predictor, explanation: Explanation, top: int) -> None:
    """Print an answer, its text with the words that weigh in colour, and the heaviest words."""
    for cells in predictor.head.as_lines(explanation.answer, None):
        click.echo("\t".join([*map(escaped, cells), *coloured_texts(explanation)]))
    print_weights(explanation, top)
