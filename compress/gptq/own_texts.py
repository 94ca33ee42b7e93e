"""Texts that a decoder draws itself: what GPTQ is calibrated on beside the tuning rows, and judged outside of them.

A narrow tuning set shows few of a model's directions, and roundings that suit these alone lose more elsewhere than
rounding to nearest. Each text begins with a token drawn from the whole vocabulary, so that they go everywhere that the
model does (Liu et al. 2023, LLM-QAT, arXiv 2305.17888). Must not import torch or onnx_ir.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.spec import GenerationSpec

TEXT_TOKENS = 128
# Of the texts a third more is held out, to be judged on.
HELD_OUT = 1 / 3


class OwnTexts(msgspec.Struct, frozen=True):
    """Token ids of texts to calibrate on, and of others to judge on."""

    calibration: list[list[int]]
    held_out: list[list[int]]

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        path.write_bytes(msgspec.json.encode(self))

    @classmethod
    def open(cls, path: Path) -> OwnTexts:
        """Read what `save` wrote."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def draw_texts(graph: Path, spec: GenerationSpec, count: int, *, threads: int | None = None, seed: int) -> OwnTexts:
    """Let the decoder graph draw texts at temperature 1, each to an end of its own or of `TEXT_TOKENS`.

    Args:
        graph: the decoder graph in fp32.
        spec: how it is fed.
        count: texts to calibrate on.
        threads: of a run; None takes the cores that this process may use.
        seed: of all draws.
    """
    random = np.random.default_rng(seed)
    special = {*spec.eos_ids, spec.bos_id, spec.pad_id}
    firsts = np.asarray([token for token in range(spec.vocabulary) if token not in special])
    total = count + max(1, round(count * HELD_OUT))
    opening = [] if spec.bos_id is None else [spec.bos_id]
    prompts = [[*opening, int(token)] for token in random.choice(firsts, total)]
    most = max(1, min(TEXT_TOKENS, spec.context_tokens - len(prompts[0]) - 1))
    decoder = Decoder(graph, spec, threads=threads)
    try:
        answers = decoder.generate_ids(prompts, Sampling(temperature=1.0, seed=seed, max_tokens=most))
    finally:
        decoder.close()
    texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    return OwnTexts(texts[:count], texts[count:])
