"""An EOS that a base's tokenizer appends is taken off, in what it gives and in what it saves."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from edgetune.serve.errors import ModelError
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.tune.stepwise.tokenizer import without_appended_eos

SPECIAL = [("<s>", 0), ("</s>", 1)]
BOTH = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=SPECIAL)
# By their name: the processor, and what stands before a text once EOS is off.
PROCESSORS = {
    "template": (BOTH, [0]),
    "end alone": (processors.TemplateProcessing(single="$A </s>", special_tokens=SPECIAL), []),
    "within a sequence": (processors.Sequence([processors.ByteLevel(trim_offsets=False), BOTH]), [0]),
    "roberta": (processors.RobertaProcessing(("</s>", 1), ("<s>", 0)), [0]),
    "bert": (processors.BertProcessing(("</s>", 1), ("<s>", 0)), [0]),
    "beginning alone": (processors.TemplateProcessing(single="<s> $A", special_tokens=SPECIAL), [0]),
    "nothing": (None, []),
}


def _tokenizer(processor: object) -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *letters])}
    words = Tokenizer(models.BPE(vocabulary, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if processor is not None:
        words.post_processor = processor
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_prompt_never_ends(name: str, tmp_path: Path) -> None:
    processor, opening = PROCESSORS[name]
    tokenizer = without_appended_eos(_tokenizer(processor))
    words = tokenizer("ab", add_special_tokens=False)["input_ids"]
    expected = [*opening, *words]
    assert tokenizer("ab")["input_ids"] == expected
    tokenizer.save_pretrained(tmp_path)
    assert TokenCodec(tmp_path / "tokenizer.json").encode("ab") == expected
    assert AutoTokenizer.from_pretrained(tmp_path)("ab")["input_ids"] == expected
    assert len(tokenizer("")["input_ids"]) == len(opening)


def test_an_eos_that_stands_in_the_text_is_the_texts() -> None:
    tokenizer = without_appended_eos(_tokenizer(BOTH))
    assert tokenizer("a</s>")["input_ids"][-1] == 1


def test_a_llama_tokenizer_that_is_told_to_append_it_does_so_no_more(tmp_path: Path) -> None:
    vocabulary = {token: number for number, token in enumerate(["<unk>", "<s>", "</s>", "\u2581", "a", "b"])}
    LlamaTokenizer(vocab=vocabulary, merges=[], add_bos_token=True, add_eos_token=True).save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace("{", '{"add_eos_token": true, "add_bos_token": true, ', 1))
    told = AutoTokenizer.from_pretrained(tmp_path)
    assert told("ab")["input_ids"][-1] == told.eos_token_id
    tokenizer = without_appended_eos(told)
    ids = tokenizer("ab")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, vocabulary["b"])
    tokenizer.save_pretrained(tmp_path / "saved")
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("ab")["input_ids"] == ids


def test_what_cannot_be_rewritten_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import edgetune.tune.stepwise.tokenizer as module

    monkeypatch.setattr(module, "_without_last_token", lambda processor, token: processor)
    with pytest.raises(ModelError, match="puts '</s>' behind every text, by a post-processor of the kind 'Template"):
        without_appended_eos(_tokenizer(BOTH))
