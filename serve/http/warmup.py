"""Running a bundle over its length range before anybody waits for it: the first run of a shape is the slow one.

Must not import the web server.
"""

from __future__ import annotations

from edgetune.serve.predictor import Predictor
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling

SHORTEST_TOKENS = 8
WARM_STEPS = 4
# A batch of the longest texts would take memory that most servers never need: rows are cut so that a run stays below.
MOST_TOKENS_A_RUN = 2048


def warm_up(predictor: Predictor, *, max_batch: int) -> list[tuple[int, int]]:
    """Run the graph at each doubling of the length up to the longest, with one input and with as many as may be.

    Returns:
        The shapes (inputs, tokens) that were run, in order.
    """
    shapes = []
    for row in predictor.codec.samples(warm_lengths(predictor.bundle.manifest.max_tokens)):
        for rows in sorted({1, max(1, min(max_batch, MOST_TOKENS_A_RUN // row.size))}):
            predictor.run(predictor.feed([row] * rows))  # the graph's own, whatever a small model answers
            shapes.append((rows, row.size))
    return shapes


def warm_lengths(max_tokens: int) -> list[int]:
    """The lengths in tokens to run: doublings from the shortest, and the longest that the bundle takes."""
    lengths = []
    tokens = SHORTEST_TOKENS
    while tokens < max_tokens:
        lengths.append(tokens)
        tokens *= 2
    return [*lengths, max_tokens]


def warm_up_generator(generator: Generator, *, max_sequences: int) -> list[tuple[int, int]]:
    """Run short prompts and a few steps behind them, of one answer and of as many as may be written side by side.

    Returns:
        The shapes (answers, tokens of each prompt) that were run, in order.
    """
    spec = generator.decoder.spec
    tokens = max(1, min(SHORTEST_TOKENS, spec.context_tokens - WARM_STEPS))
    prompt = [spec.bos_id or 0] * tokens
    shapes = []
    for rows in sorted({1, 1 if spec.batch_one else max_sequences}):
        generator.decoder.generate_ids([prompt] * rows, Sampling(max_tokens=WARM_STEPS), batch_size=rows)
        shapes.append((rows, tokens))
    return shapes
