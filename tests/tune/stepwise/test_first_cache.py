"""Virtual tokens before a language model: what is trained, and that every way to open it again answers alike."""

import pytest
import torch

from edgetune.serve.errors import DataError, ModelError, RecipeError
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.recipe import PromptRecipe
from edgetune.tune.stepwise.first_cache import FIRST_CACHE_NAME, FirstCache, first_tokens
from edgetune.tune.stepwise.merge import merge_language_model
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import open_language_model, open_pretrained
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.tuning import LanguageRows, tune_language_model
from edgetune.tune.training.progress import Silent

PROMPTS = [name for name, method in METHODS.items() if method.has_prompt]
TOKENS = 5


def recipe(method, **settings):
    return GenerationTuneRecipe(method=method, prompt=PromptRecipe(tokens=TOKENS), **settings)


def logits(model, rows):
    with torch.inference_mode():
        return [model.eval()(input_ids=torch.tensor([row["input_ids"]])).logits for row in rows]


def largest_difference(one, other):
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("method", PROMPTS)
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_folder_answers_as_the_model_did_that_was_trained_and_as_pefts_does(
    language_base, language_rows, tmp_path, method, kind
):
    base, rows = find_base(str(language_base(kind))), language_rows(4)
    plain = logits(open_pretrained(base), rows)
    torch.manual_seed(1)
    model = METHODS[method].prepare(open_pretrained(base), recipe(method))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all(name.startswith("first_cache.source.") for name in trained)
    before = logits(model, rows)
    # Compares with peft's own model, opened from `adapter`, too.
    folders = {"folder": tmp_path / "model", "adapter": tmp_path / "adapter"}
    assert merge_language_model(model, open_tokenizer(base), rows, base=base, **folders) < 1e-4
    opened = open_language_model(tmp_path / "model")
    assert first_tokens(opened) == TOKENS
    assert largest_difference(logits(opened, rows), before) < 1e-4
    assert largest_difference(before, plain) > 0.05
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_generate_goes_on_behind_it_alone_and_left_padded(language_base, tmp_path):
    base = find_base(str(language_base()))
    model = METHODS["prefix"].prepare(open_pretrained(base), recipe("prefix"))
    rows = [{"input_ids": [1, 5, 6, 7], "labels": [-100, 5, 6, 7]}]
    merge_language_model(model, open_tokenizer(base), rows, base=base, folder=tmp_path)
    opened = open_language_model(tmp_path)
    ids = torch.tensor([[0, 0, 1, 5, 6, 7], [1, 8, 9, 10, 11, 12]])
    mask = (ids > 0).long()
    together = opened.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None)
    whole = ids[:1, 2:]
    for _ in range(8):
        whole = torch.cat((whole, opened(input_ids=whole, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    assert together[0, 6:].tolist() == whole[0, 4:].tolist()


def test_training_moves_the_virtual_tokens_and_no_weight(language_base, language_rows, tmp_path):
    base = find_base(str(language_base()))
    rows = LanguageRows(language_rows(16), language_rows(6, 1))
    settings = recipe("prompt", epochs=2, learning_rate=0.1)
    tuned = tune_language_model(rows, base, settings, device="cpu", seed=0, folder=tmp_path / "tune", progress=Silent())
    assert tuned.tuned.perplexity < tuned.base.perplexity
    assert tuned.training.settings["trained_parameters"] == TOKENS * 64
    opened, original = open_language_model(tuned.model_folder), open_pretrained(base)
    assert all(torch.equal(a, b) for a, b in zip(opened.parameters(), original.parameters(), strict=True))
    assert not (tmp_path / "tune" / "checkpoints").exists()


def test_what_leaves_no_room_is_refused(language_base, language_rows, tmp_path):
    base = find_base(str(language_base()))
    with pytest.raises(RecipeError, match=r"tune\.prompt\.tokens is 40"):
        METHODS["prompt"].prepare(
            open_pretrained(base), GenerationTuneRecipe(method="prompt", prompt=PromptRecipe(tokens=40))
        )
    long = {"input_ids": [1] * 62, "labels": [1] * 62}
    with pytest.raises(DataError, match="A row has 62 tokens, 5 virtual ones") as error:
        tune_language_model(
            LanguageRows([long], [long]), base, recipe("prefix"), device="cpu", seed=0, folder=tmp_path,
            progress=Silent(),
        )  # fmt: skip
    assert error.value.action == "--set data.max_tokens=59"
    with pytest.raises(ValueError, match="gradient_checkpointing is set"):
        recipe("prefix", gradient_checkpointing=True)
    (tmp_path / FIRST_CACHE_NAME).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        FirstCache.open(tmp_path)
