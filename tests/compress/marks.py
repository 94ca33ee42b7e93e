"""Which architectures `make test` compresses: the graphs of `KIN` are those of BERT and RoBERTa under other names."""

from __future__ import annotations

import pytest

KIN = {"albert", "electra", "xlm_roberta"}


def marks_of(name: str) -> list[pytest.MarkDecorator]:
    """The marks of a test of this architecture."""
    if name in KIN:
        return [pytest.mark.slow, pytest.mark.long]
    return [] if name == "bert" else [pytest.mark.slow]
