"""Parity of a decoder: does its graph say, token by token, what the model's own `generate` says? A gate.

Apart from export/once/parity.py, whose models answer once. Rows are compared alone and left-padded in one batch, since
a padded row is where a lost mask or a lost position shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.greedy import GreedyLoop, left_padded
from edgetune.serve.errors import ParityError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# fp32 sums in another order; both relative to the largest logit. Two tokens nearer than TIE are equally likely: which
# of them comes first is rounding.
TOLERANCE = 1e-3
TIE = 1e-4

Rows = list[list[int]]


def check_decoder(
    graph: DecoderGraph,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    tokens: int = 64,
) -> float:
    """Compare graph and model: names, then the first step's logits, then `tokens` greedy tokens of each prompt.

    Each prompt is answered alone and, unless the graph's batch is one, in a left-padded batch of all; with a prompt's
    first half already in the cache too. Prompts are cut so that prompt and answer fit the context.

    Args:
        graph: an exported decoder.
        model: the merged model, in fp32, as `open_decoder` opens it.
        tokenizer: the training tokenizer.
        prompts: texts of unlike length.
        tokens: how many to generate; no token ends an answer here.

    Returns:
        The largest absolute difference of a first step's logits.

    Raises:
        ParityError: listing all offenders.
    """
    loop = GreedyLoop(graph.path, graph.spec)
    _check_names(loop, graph)
    longest = graph.spec.context_tokens - tokens
    if longest < 2:
        raise ParityError(
            f"The model takes {graph.spec.context_tokens} tokens.", expected=f"room for a prompt and {tokens} tokens"
        )
    rows: Rows = [tokenizer(prompt)["input_ids"][:longest] for prompt in prompts]
    rows = [row for row in rows if row]
    difference = _check_logits(loop, graph, model, rows)
    offenders = [fault for row in rows for fault in _unlike_tokens(loop, model, [row], tokens, "alone")]
    if not graph.spec.batch_one:
        offenders += _unlike_tokens(loop, model, rows, tokens, "in a left-padded batch")
    refuse_unlike(offenders, f"{tokens} greedy tokens equal to those of `generate`")
    return difference


def check_token_ids(saved: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> None:
    """Compare the ids that the `tokenizers` library gives at run time with those of training, on every text.

    Raises:
        ParityError: naming the first text that differs.
    """
    runtime = Tokenizer.from_file(str(saved))
    runtime.no_truncation()
    runtime.no_padding()
    faults = [text for text in texts if runtime.encode(text).ids != tokenizer(text)["input_ids"]]
    if faults:
        raise ParityError(
            f"The saved tokenizer gives other ids for {len(faults)} of {len(texts)} texts, such as {faults[0][:60]!r}.",
            expected="the ids of the training tokenizer",
        )


def _check_names(loop: GreedyLoop, graph: DecoderGraph) -> None:
    allowed = {"input_ids", "attention_mask", "position_ids", *graph.spec.past_names()}
    strange = set(loop.inputs) - allowed
    lost = {"input_ids", *graph.spec.past_names()} - set(loop.inputs)
    expected = {"logits", *graph.spec.present_names()}
    if strange or lost or set(loop.outputs) != expected:
        unlike = sorted(strange | lost | (set(loop.outputs) ^ expected))
        raise ParityError(
            f"The graph's inputs and outputs are not those of its spec: {', '.join(unlike[:4])}.",
            expected="input_ids, the past, logits and the present of every layer",
        )


def _check_logits(loop: GreedyLoop, graph: DecoderGraph, model: PreTrainedModel, rows: Rows) -> float:
    """Compare the first step's logits of every way in which rows are fed; the largest difference."""
    expected = np.concatenate([_model_logits(model, [row]) for row in rows])
    logits_by_way = {"alone": np.concatenate([loop.first_logits([row]) for row in rows])}
    halves = [loop.continued_logits(row) if len(row) > 1 else loop.first_logits([row]) for row in rows]
    logits_by_way["with half of it in the cache"] = np.concatenate(halves)
    if not graph.spec.batch_one:
        logits_by_way["in a left-padded batch"] = loop.first_logits(rows)
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    offenders, largest = [], 0.0
    for way, logits in logits_by_way.items():
        if logits.shape != expected.shape:
            raise ParityError(f"The graph's logits have shape {logits.shape}.", expected=f"{expected.shape}")
        differences = np.abs(expected - logits).max(axis=1)
        wrong = np.flatnonzero(~(differences <= allowed))
        offenders += [f"prompt {place} {way}: logits differ by {differences[place]:.4g}" for place in wrong]
        largest = max(largest, float(differences.max()))
    refuse_unlike(offenders, f"first logits within {allowed:.4g}")
    return largest


def _unlike_tokens(loop: GreedyLoop, model: PreTrainedModel, rows: Rows, tokens: int, way: str) -> list[str]:
    """One clause for each row whose tokens differ from those of `generate`, ties aside."""
    faults = []
    answers = zip(rows, _model_tokens(model, rows, tokens), loop.generate(rows, tokens), strict=True)
    for row, expected, actual in answers:
        places = [place for place in range(tokens) if expected[place] != actual[place]]
        if places and not _tied(model, [*row, *expected[: places[0]]], expected[places[0]], actual[places[0]]):
            faults.append(f"a prompt of {len(row)} tokens {way}: from token {places[0]} on")
    return faults


def _tied(model: PreTrainedModel, prefix: list[int], expected: int, actual: int) -> bool:
    """Whether the model holds both tokens for equally likely after `prefix`."""
    logits = _model_logits(model, [prefix])[0]
    return bool(abs(logits[expected] - logits[actual]) <= TIE * max(1.0, float(np.abs(logits).max())))


def _model_logits(model: PreTrainedModel, rows: Rows) -> NDArray[np.float32]:
    import torch

    ids, mask = left_padded(rows)
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits
    last: NDArray[np.float32] = logits[:, -1].float().numpy()
    return last


def _model_tokens(model: PreTrainedModel, rows: Rows, tokens: int) -> Rows:
    """What `generate` answers, plainly greedy whatever the model's own settings are, and without an end."""
    import torch
    from transformers import GenerationConfig

    ids, mask = left_padded(rows)
    own = model.generation_config
    # The model's settings fill what a given configuration leaves open (its end tokens too), so they step aside.
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=tokens, pad_token_id=0)
    try:
        with torch.inference_mode():
            answer = model.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    finally:
        model.generation_config = own
    return [[int(one) for one in row] for row in answer[:, ids.shape[1] :]]


def refuse_unlike(offenders: list[str], expected: str) -> None:
    """Raise what was told of answers that differ, if anything was."""
    if offenders:
        raise ParityError(
            f"The graph answers unlike the model: {'; '.join(offenders[:5])}"
            + (f"; and {len(offenders) - 5} more." if len(offenders) > 5 else "."),
            expected=expected,
            action="report this with the base model's name; nothing was written to the output",
        )
