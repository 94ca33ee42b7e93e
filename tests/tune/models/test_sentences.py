"""What a sentence-transformers folder says beside its pooling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.serve.errors import ModelError
from edgetune.tune.models.sentences import base_prompts, check_modules, unsaid_prompts


def modules(folder: Path, *kinds: str) -> Path:
    rows = [{"idx": place, "type": f"sentence_transformers.models.{kind}"} for place, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(rows), "utf-8")
    return folder


def test_a_layer_behind_the_pooling_is_refused(tmp_path: Path) -> None:
    check_modules(tmp_path)
    check_modules(modules(tmp_path, "Transformer", "Pooling", "Normalize"))
    with pytest.raises(ModelError, match="a module 'Dense' behind the pooling"):
        check_modules(modules(tmp_path, "Transformer", "Pooling", "Dense"))


@pytest.mark.parametrize(
    ("settings", "prompts"),
    [
        (None, {}),
        ([], {}),
        ({"prompts": {"query": "", "document": ""}}, {}),
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, {"query": "query: ", "document": "passage: "}),
        ({"prompts": {"query": "Find: ", "document": ""}}, {"query": "Find: "}),
        ({"prompts": {"document": "d: ", "passage": "p: "}}, {"document": "d: "}),
    ],
)
def test_the_prompts_of_a_folder(tmp_path: Path, settings: object, prompts: dict[str, str]) -> None:
    if settings is not None:
        (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings), "utf-8")
    assert base_prompts(tmp_path) == prompts


def test_a_base_that_wants_words_is_known_by_its_name() -> None:
    for name in ("intfloat/multilingual-e5-small", "models/e5", "E5_base"):
        assert "data.prompts names them" in unsaid_prompts(name, {})
        assert unsaid_prompts(name, {"query": "query: "}) == ""
    for name in ("all-MiniLM-L6-v2", "one5", "bge-small-en-v1.5"):
        assert unsaid_prompts(name, {}) == ""
