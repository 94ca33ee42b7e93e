"""The export stage of a language model: tokenizer proven, graph made and proven; what fails is not handed on."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgetune.export.stepwise.borders import check_borders
from edgetune.export.stepwise.graph import DecoderGraph, export_decoder, open_decoder
from edgetune.export.stepwise.parity import check_decoder, check_token_ids
from edgetune.export.stepwise.tokenizer_files import check_requests, write_tokenizer
from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.errors import BundleDamaged, ExportError, ParityError
from edgetune.tune.stepwise.encoding import Request
from edgetune.tune.training.progress import Progress

PARITY_PROMPTS = 4
PARITY_TOKENS = 64


def export_generation(
    model_folder: Path,
    texts: Sequence[str],
    folder: Path,
    progress: Progress,
    *,
    requests: Sequence[Request] = (),
    template: str | None = None,
    batch_one: bool = False,
    grouped: bool = True,
) -> DecoderGraph:
    """Export a merged language model into `folder` and prove tokenizer and graph on texts of its data.

    Args:
        model_folder: the merged model with its tokenizer.
        texts: prompts or whole texts; the tokenizer is compared on all, the graph on a few of unlike length.
        folder: where the graph and its facts are written.
        progress: told what was found.
        requests: prompts as clients send them, with the ids that training fed.
        template: of chats, which renders those among them.
        batch_one: make the profile whose batch is one.
        grouped: fuse attention as the CPU takes it; see `export_decoder`.

    Raises:
        ModelError: the folder holds no causal language model.
        ExportError: the architecture has no decoder graph.
        ParityError: graph or tokenizer answer differently.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    with tempfile.TemporaryDirectory(prefix="edgetune-tokenizer-") as scratch:
        write_tokenizer(model_folder, template, Path(scratch))
        check_token_ids(Path(scratch, TOKENIZER_NAME), tokenizer, texts)
        check_requests(Path(scratch), requests)
    asked = f" and all {len(requests):,} prompts, as clients send them" if requests else ""
    progress.say(f"tokenizer: the same ids at run time on all {len(texts):,} texts{asked}")
    prompts = spread(texts)

    def proven(*, fused: bool) -> DecoderGraph:
        graph = export_decoder(model_folder, folder, batch_one=batch_one, fused=fused, grouped=grouped)
        model = open_decoder(model_folder)  # only now: tracing holds the weights twice already
        tokens = min(PARITY_TOKENS, graph.spec.context_tokens // 2)
        difference = check_decoder(graph, model, tokenizer, prompts, tokens=tokens)
        progress.say(
            f"graph: {tokens} tokens of {len(prompts)} prompts equal to generate's, "
            f"first logits within {difference:.1e}"
        )
        crossing = check_borders(graph, model, [tokenizer(prompt)["input_ids"] for prompt in prompts])
        progress.say(crossing.sentence())
        return dataclasses.replace(graph, max_abs_diff=difference)

    try:
        graph = proven(fused=True)
    except (ExportError, BundleDamaged) as error:  # the latter: ONNX Runtime does not open the graph
        if batch_one:
            raise  # this profile is its fusions: without them it would be a slower graph for fewer callers
        progress.say(f"graph: {error.found} It is made again without fusions, which answers slower.")
        graph = proven(fused=False)
    graph.save(folder)
    return graph


def spread(texts: Sequence[str]) -> list[str]:
    """A few texts of unlike length, from the shortest to the longest, none of them empty."""
    by_length = sorted({text for text in texts if text.strip()}, key=lambda text: (len(text), text))
    if not by_length:
        raise ParityError("There is no text to prove the graph on.", expected="a text with at least one token")
    last = len(by_length) - 1
    places = [last * number // max(1, PARITY_PROMPTS - 1) for number in range(PARITY_PROMPTS)]
    return [by_length[place] for place in dict.fromkeys(places)]
