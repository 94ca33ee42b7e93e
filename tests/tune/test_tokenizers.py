"""Opening tokenizers as checkpoints are published: with foreign inputs, without files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import find_base, open_tokenizer


@pytest.fixture
def copy_of(tiny_base: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_base(name), tmp_path / name))

    return copy


def test_distilbert_as_published_gives_no_token_types(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("distilbert")
    # distilbert-base-uncased says no more than this, and transformers opens it with BERT's tokenizer.
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "model_max_length": 96}))
    assert "token_type_ids" in AutoTokenizer.from_pretrained(folder)("card")

    tokenizer = open_tokenizer(find_base(str(folder)))

    assert set(tokenizer("card")) == {"input_ids", "attention_mask"}
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).model_input_names == ["input_ids", "attention_mask"]


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "deberta_v2", "modernbert"])
def test_a_folder_without_tokenizer_files_is_refused(copy_of: Callable[[str], Path], name: str) -> None:
    folder = copy_of(name)
    (folder / "tokenizer.json").unlink()

    with pytest.raises(ModelError, match=r"tokenizer") as told:
        open_tokenizer(find_base(str(folder)))
    assert str(folder) in told.value.found
    assert "tokenizer.json" in told.value.expected


def test_a_sentencepiece_folder_says_what_reads_it(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("deberta_v2")
    (folder / "tokenizer.json").unlink()
    (folder / "spm.model").write_bytes(b"no model at all")

    with pytest.raises(ModelError) as told:
        open_tokenizer(find_base(str(folder)))
    assert told.value.action.startswith("pip install sentencepiece")
