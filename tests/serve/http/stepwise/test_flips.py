"""One changed bit anywhere in a language model's bundle: it is refused, or answers as it always did."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling
from tests.serve.flips import COUNTS, flip_each, packed


@pytest.mark.parametrize("flips", COUNTS)
def test_a_flipped_bit_of_a_language_model_is_refused_or_harmless(
    tmp_path: Path, flips: int, tiny_bundle: Path
) -> None:
    folder = packed(tiny_bundle, tmp_path / "bundle")

    def answers() -> object:
        generator = Generator.open(folder, threads=1)
        try:
            answer = generator.generate("the cat", Sampling(max_tokens=4))
            chat = generator.chat_ids([{"role": "user", "content": "the cat"}]) if generator.template else []
            return answer.token_ids, chat
        finally:
            generator.close()

    refused = flip_each(folder, flips, answers, seed=11)
    per_file = flips // len(refused)
    assert all(count >= per_file for name, count in refused.items() if name != "manifest.json")
