"""A tiny random llama with a tokenizer of words, and rows that it can learn: made offline from a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(scope="session")
def language_rows() -> Callable[..., list[dict[str, Any]]]:
    """`language_rows(n, seed)`: n sentences of 4 to 9 words that follow a pattern, the first of which has no loss."""

    def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
        chosen = random.Random(seed)
        found = []
        for _ in range(count):
            start = chosen.randrange(16)
            ids = [1, *(4 + (start + 3 * step) % 16 for step in range(chosen.randint(4, 9))), 2]
            found.append({"input_ids": ids, "labels": [-100, -100, *ids[2:]]})
        return found

    return rows
