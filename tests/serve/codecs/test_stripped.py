"""What training stripped is stripped before it is answered, whatever the tokenizer thinks of white space."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from edgetune.serve import load
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import open_codec, stripped
from edgetune.serve.errors import InputError

GIVEN = ["card lost", " card lost", "card lost\r\n", "\ufeffcard\0 lost\u3000"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer to which each blank and line break is a token."""
    letters = {letter: number for number, letter in enumerate("?cardlost \r\n\0\ufeff\u3000")}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"pad_token_id": 0}), "utf-8")
    return tmp_path


def test_one_text_has_one_row_however_it_is_wrapped(folder: Path) -> None:
    codec = open_codec("text", folder, 64, strip=True)
    [expected] = open_codec("text", folder, 64).encode(["card lost"])
    assert codec.parts == ("text",)
    assert list(codec.texts(GIVEN)) == ["card lost"] * 4 == list(map(stripped, GIVEN))
    assert codec.encode(GIVEN) == codec.encode_beginnings(GIVEN) == [expected] * 4
    assert len({tuple(row.ids) for row in open_codec("text", folder, 64).encode(GIVEN)}) == 4
    assert codec.pad(codec.encode(GIVEN))["input_ids"].shape == (4, expected.size)
    assert [row.size for row in codec.samples([5])] == [5]


def test_both_texts_of_a_pair_are_stripped(folder: Path) -> None:
    codec, plain = (open_codec("text-pair", folder, 64, strip=strip) for strip in (True, False))
    pairs = [(" card ", "lost\n"), ["card", "\ufefflost"]]
    assert codec.encode(pairs) == plain.encode([("card", "lost")] * 2)
    with pytest.raises(InputError):
        codec.encode(["card"])


def test_a_bundle_strips_where_its_manifest_says_so(bundle_copy) -> None:
    assert not Bundle.open(bundle_copy.folder).manifest.strip_inputs  # as bundles were before
    bundle_copy.change_manifest(lambda manifest: manifest.update(strip_inputs=True))
    with load(bundle_copy.folder, threads=1) as predictor:
        assert list(predictor.codec.texts([" where is it\n"])) == ["where is it"]
        assert predictor.predict_one(" where is it\n") == predictor.predict_one("where is it")
