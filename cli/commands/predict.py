"""`edgetune predict`: answers texts, or pairs of texts, with a bundle. Needs the floor and an ONNX Runtime only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edgetune.commands.answers import Form, print_answers
from edgetune.commands.bundle_inputs import bundle_inputs, column_request
from edgetune.commands.options import json_option
from edgetune.commands.texts import Source
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import takes_files
from edgetune.tune.data.dialect import FileOptions

if TYPE_CHECKING:
    from edgetune.serve.bundle import Manifest

_RANKED = ("top", "abstain_below")
_OF_VECTORS = ("prompt", "vectors")
_OF_LANGUAGE_MODELS = ("max_tokens", "temperature", "top_p", "seed", "raw", "adapter")


_OPTIONS = {"vectors": "output"}  # where a parameter is called otherwise than its option


def _known_encoding(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a name of no encoding of text."""
    try:
        "a".encode(value or "utf-8")
    except LookupError as error:
        raise click.BadParameter(f"{value!r} is no encoding of text, such as utf-8, cp1252 or gb18030.") from error
    return value


def _one_character(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse what cannot stand between fields."""
    if value is not None and (len(value) != 1 or value in '"\r\n'):
        raise click.BadParameter(f"{value!r} cannot stand between fields; one character such as ; can.")
    return value


@click.command(name="predict")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("texts", nargs=-1, metavar="[TEXT...]")
@click.option(
    "--input", "source", help="File of texts: csv, tsv, json, jsonl, parquet or plain lines; - reads standard input."
)
@click.option(
    "--column",
    "columns",
    multiple=True,
    help="Column of the texts in a file with columns; given twice for pairs.",
    show_default="that of training",
)
@click.option("--encoding", callback=_known_encoding, help="Encoding of the file.", show_default="detected")
@click.option(
    "--delimiter", callback=_one_character, help="Character between the fields of csv and tsv.", show_default="detected"
)
@click.option(
    "--header", type=bool, help="Whether the first line of csv and tsv names the columns.", show_default="detected"
)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    help="Number of best labels shown for each text.",
    show_default="the best alone",
)
@click.option(
    "--abstain-below",
    type=click.FloatRange(0, 1),
    help="Probability below which an answer is unsure; 0 calls none unsure.",
    show_default="the bundle's",
)
@click.option("--task", help="Task to answer alone, of a bundle of several.", show_default="all in one pass")
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
@click.option(
    "--adapter", help="Name of the virtual tokens that answer, of a joined language model.", show_default="the first"
)
@click.option("--explain", is_flag=True, help="Show what each word of a text adds to its answer, as explain does.")
@click.option("--prompt", help="Name of the prompt that stands before each text.", show_default="none")
@click.option(
    "--output",
    "vectors",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of vectors, .npy: one row of float32 a text, of a bundle that gives vectors.",
)
@json_option
@click.option("--jsonl", is_flag=True, help="Print one JSON object a line, each as soon as it is there.")
def command(
    bundle: Path,
    texts: tuple[str, ...],
    source: str | None,
    columns: tuple[str, ...],
    encoding: str | None,
    delimiter: str | None,
    header: bool | None,
    top: int | None,
    abstain_below: float | None,
    task: str | None,
    threads: int | None,
    provider: str,
    max_tokens: int,
    temperature: float,
    top_p: float,
    seed: int | None,
    raw: bool,
    adapter: str | None,
    explain: bool,
    prompt: str | None,
    vectors: Path | None,
    as_json: bool,
    jsonl: bool,
) -> None:
    """Answer each TEXT, each row of a file, or each line of standard input.

    A classifier prints one line a text: label, score, text, separated by tabs, and unsure in place of the label where
    the score is below what the bundle, or --abstain-below, asks for; a bundle that answers with a number prints it
    before the text, one of vectors their first numbers, and all of them with --json or into --output. A bundle of pairs
    takes two texts separated by a tab, or two columns of a file; one of pictures takes files, or folders of them; one
    of several tasks prints a line an answer, the task's name first, or with --task answers as a bundle of it. A
    language model streams its answer; its options are those from --max-tokens to --adapter. Files are read as training
    reads them, and the column that is taken is said. Blank texts and broken ones get no answer and are counted.

    \b
    Example:
      edgetune predict bundles/x "my card has not arrived" "where is my refund"
      edgetune predict bundles/x --input messages.csv --column body --json > answers.json
      edgetune predict bundles/x --input messages.parquet --jsonl > answers.jsonl
      edgetune predict bundles/x --input messages.csv --abstain-below 0.8
      edgetune predict bundles/pairs --input pairs.csv --column premise --column hypothesis
      cat messages.txt | edgetune predict bundles/x
      edgetune predict bundles/vectors --input passages.csv --prompt document --output vectors.npy
      edgetune predict bundles/signs photo.jpg folder/
      edgetune predict bundles/desk "where is my refund" --task intent
      edgetune predict bundles/stories "Once upon a time" --raw --temperature 0.8
    """
    form = Form.of(as_json=as_json, jsonl=jsonl, top=top, explain=explain)
    manifest = Bundle.open(bundle, verify=False).manifest
    options, request = FileOptions(encoding, delimiter, header), column_request(manifest, columns)
    inputs = bundle_inputs(manifest, Source(texts, source, options, request))
    if manifest.generation is not None:
        _refuse((*_RANKED, *_OF_VECTORS, "explain", "task"), f"{bundle} generates text")
        from edgetune.commands.generation import GenerationRequest, print_generations

        asked = GenerationRequest(
            max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed, raw=raw, adapter=adapter
        )
        prompts = (prompt for (prompt,) in inputs)
        print_generations(bundle, prompts, asked, threads=threads, provider=provider, form=form)
        return
    from edgetune.serve.loading import load

    _refuse_unanswered(bundle, manifest, task)
    predictor = load(bundle, threads=threads, provider=provider, abstain_below=abstain_below, task=task or "")
    if prompt is not None or vectors is not None:
        from edgetune.commands.vectors import prompted, write_vectors

        inputs = prompted(predictor.head, inputs, prompt)
        if vectors is not None:
            write_vectors(predictor, inputs, vectors)
            return
    print_answers(predictor, inputs, form)


def _refuse_unanswered(bundle: Path, manifest: Manifest, task: str | None) -> None:
    """Refuse options that mean nothing for the heads that answer.

    Raises:
        click.UsageError: naming them.
    """
    from edgetune.serve.explain import EXPLAINED

    _refuse(_OF_LANGUAGE_MODELS, f"{bundle} generates no text")
    kinds = {head.kind for head in manifest.answer_heads if task in (None, head.name)}
    if len(manifest.answer_heads) == 1:
        _refuse(("task",), f"{bundle} answers one task")
    elif task is None:
        _refuse(("explain",), f"answers of {bundle} are explained one task at a time, with --task")
    if not kinds & {"label", "labels"}:
        _refuse(_RANKED, f"{bundle} has no labels")
    if "embedding" not in kinds:
        _refuse(_OF_VECTORS, f"{bundle} gives no vectors")
    if takes_files(manifest.codec) or not kinds & {*EXPLAINED}:
        _refuse(("explain",), f"answers of {bundle} are not explained")


def _refuse(options: Iterable[str], why: str) -> None:
    """Stop at options that were given and would have no effect.

    Raises:
        click.UsageError: naming them.
    """
    context = click.get_current_context()
    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given:
        named = ", ".join("--" + _OPTIONS.get(name, name).replace("_", "-") for name in given)
        raise click.UsageError(f"{named} would have no effect: {why}.")
