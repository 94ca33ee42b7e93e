"""A tokenizer of the training texts' own characters or words, for a model that needs nothing of a pretrained one.

For texts whose tokens are mostly unknown to the base: Chinese under an English model loses what tells its classes.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME
from edgetune.tune.data.rows import flat_texts
from edgetune.tune.ngrams.blocks import choose_blocks

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgetune.compress.material import Material

PAD, UNKNOWN, BEGIN, END = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
# The most frequent tokens, and the fewest texts that a token stands in: all others are one unknown token.
MOST_TOKENS, FEWEST_TEXTS = 30_000, 2


def write_own_tokenizer(material: Material, folder: Path) -> None:
    """Write a model folder without weights: the base's configuration, and a tokenizer of the training texts.

    Of scripts without blanks between words a token is a character, of others a word or a mark; both in lower case.
    """
    from transformers import PreTrainedTokenizerFast

    texts = flat_texts(material.train.texts)
    by_character = any(block.analyzer == "char" for block in choose_blocks(texts))
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": BEGIN, "sep_token": END}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_learnt(texts, by_character=by_character),
        model_max_length=material.model.max_tokens,
        **names,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    assert (folder / TOKENIZER_NAME).is_file()
    config = json.loads((material.model.model_folder / CONFIG_NAME).read_text(encoding="utf-8"))
    config |= {"pad_token_id": SPECIAL.index(PAD), "vocab_size": len(tokenizer)}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _learnt(texts: tuple[str, ...], *, by_character: bool) -> Tokenizer:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    split = pre_tokenizers.BertPreTokenizer()
    seen: Counter[str] = Counter()
    for text in texts:
        lower = text.lower()
        seen.update(set(lower) if by_character else {word for word, _ in split.pre_tokenize_str(lower)})
    frequent = [token for token, count in seen.most_common(MOST_TOKENS) if count >= FEWEST_TEXTS]
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *sorted(set(frequent) - set(SPECIAL))])}
    if by_character:  # pieces without merges: each character by itself
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    else:
        tokenizer = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = split
    tokenizer.normalizer = normalizers.Lowercase()
    ids = [(name, vocabulary[name]) for name in (BEGIN, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ids)
    return tokenizer
