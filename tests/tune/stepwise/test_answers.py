"""Generated answers: asked as the rows ask, the same alone and in a batch, scored for base and tuned model."""

import pytest
import torch
from pydantic import ValidationError

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.stepwise.answers import (
    Question,
    answer_tokens,
    find_questions,
    generate_answers,
    questions_of,
    score_model,
    score_texts,
)
from edgetune.tune.stepwise.model import AnswerScore, TunedLanguageModel, open_pretrained
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.tuning import LanguageRows, tune_language_model
from edgetune.tune.training.progress import Silent


def test_the_last_answer_of_a_row_is_asked_with_all_that_stands_before_it():
    rows = [
        {"input_ids": [1, 5, 6, 7, 8, 9, 2, 0], "labels": [-100, -100, 6, -100, -100, 9, 2, -100]},
        {"input_ids": [1, 5], "labels": [-100, -100]},
        {"input_ids": [6, 2], "labels": [6, 2]},
    ]
    assert questions_of(rows) == [Question((1, 5, 6, 7, 8), (9, 2))]
    with pytest.raises(DataError, match="None of the 2 rows asks for an answer that could be generated"):
        questions_of(rows[1:])


def test_plain_texts_ask_nothing():
    assert find_questions([{"input_ids": [1, 5, 2], "labels": [1, 5, 2]}]) == []
    assert find_questions([]) == []


def test_answers_are_those_of_each_question_alone(language_base):
    base = find_base(str(language_base()))
    model, tokenizer = open_pretrained(base), open_tokenizer(base)
    questions = [Question((1, *range(4, 4 + length)), (9,) * 4) for length in (7, 1, 4, 9, 2)]
    together = generate_answers(model, tokenizer, questions)
    assert together == [generate_answers(model, tokenizer, [question])[0] for question in questions]
    with torch.inference_mode():
        ids = torch.tensor([questions[0].prompt])
        mask = torch.ones_like(ids)
        whole = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0)
    assert together[0] == tokenizer.decode(whole[0, ids.shape[1] :], skip_special_tokens=True)
    assert len(set(together)) > 1


def greedy(model, prompt, tokens):
    """The likeliest token after the likeliest, by the bare model."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_answers_are_plainly_greedy_whatever_the_model_s_own_settings(language_base):
    base = find_base(str(language_base()))
    model, tokenizer = open_pretrained(base), open_tokenizer(base)
    question = Question((1, 4, 7, 10), (9,) * 6)
    plain = generate_answers(model, tokenizer, [question])
    own = model.generation_config
    own.repetition_penalty, own.min_new_tokens, own.do_sample = 50.0, 14, True
    assert generate_answers(model, tokenizer, [question]) == plain
    assert model.generation_config is own
    assert plain == [tokenizer.decode(greedy(model, question.prompt, 14), skip_special_tokens=True)]
    assert generate_answers(model, tokenizer, [question], max_tokens=3) == [
        tokenizer.decode(greedy(model, question.prompt, 3))
    ]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_context_ends_an_answer_and_cuts_no_other(language_base, kind):
    base = find_base(str(language_base(kind)))
    model, tokenizer = open_pretrained(base), open_tokenizer(base)
    prompts = [(1, 4, 5), (1, *(4 + place % 16 for place in range(58))), (1, *(4 + place % 7 for place in range(61)))]
    questions = [Question(prompt, (9,) * 12) for prompt in prompts]
    answers = generate_answers(model, tokenizer, questions)
    room = [64 - len(prompt) for prompt in prompts]
    assert room[1:] == [5, 2]
    assert answers == [
        tokenizer.decode(greedy(model, prompt, min(20, left)), skip_special_tokens=True)
        for prompt, left in zip(prompts, room, strict=True)
    ]


def test_the_token_that_closes_the_references_ends_an_answer(language_base):
    base = find_base(str(language_base()))
    model, tokenizer = open_pretrained(base), open_tokenizer(base)
    prompt, said, place = next(
        (prompt, said, place)
        for first in range(4, 20)
        for prompt in [(1, first, 7, 10)]
        for said in [greedy(model, prompt, 12)]
        for place in range(1, 4)
        if all(token > 3 for token in said[: place + 2]) and 4 <= said[place] < 20 and said[place] not in said[:place]
    )
    questions = [Question(prompt, (9, 9, 9, said[place]))]
    [whole] = generate_answers(model, tokenizer, questions)
    assert whole == tokenizer.decode(said[: said.index(2)] if 2 in said else said, skip_special_tokens=True)
    named = generate_answers(model, tokenizer, questions, ends=[said[place]])
    assert named == [tokenizer.decode(said[: place + 1], skip_special_tokens=True)]
    tokenizer.add_special_tokens({"additional_special_tokens": [tokenizer.convert_ids_to_tokens(said[place])]})
    [closed] = generate_answers(model, tokenizer, questions)
    assert closed == tokenizer.decode(said[:place], skip_special_tokens=True)
    assert len(closed) < len(whole)


def test_texts_of_whoever_answered_are_scored_as_a_model_is(language_base):
    base = find_base(str(language_base()))
    model, tokenizer = open_pretrained(base), open_tokenizer(base)
    questions = [Question((1, 4 + first, 5), (9, 10, 11, 2)) for first in range(5)]
    assert answer_tokens(questions) == 12
    texts = generate_answers(model, tokenizer, questions)
    metrics = ("chrf", "exact_match")
    scores, others = (
        score_model(model, tokenizer, questions, metrics),
        score_texts(tokenizer, questions, texts, metrics),
    )
    assert [(one.metric, one.value, one.rows.tolist()) for one in scores] == [
        (one.metric, one.value, one.rows.tolist()) for one in others
    ]
    right = score_texts(tokenizer, questions, [tokenizer.decode([9, 10, 11])] * 5, metrics)
    assert [one.value for one in right] == [1.0, 1.0]


def test_base_and_tuned_model_are_scored_on_the_same_rows(language_base, language_rows, tmp_path):
    scoring = tmp_path / "scoring.py"
    scoring.write_text("def length(answer, reference):\n    return len(answer.split())\n", encoding="utf-8")
    metrics = ("exact_match", "rouge_l", f"{scoring}:length")
    recipe = GenerationTuneRecipe(
        method="full", epochs=6, learning_rate=3e-3, precision="fp32", metrics=metrics, metric_rows=5
    )
    rows = LanguageRows(language_rows(64), language_rows(16, seed=1), language_rows(8, seed=2))
    where = {"device": "cpu", "seed": 3, "progress": Silent()}
    tuned = tune_language_model(rows, find_base(str(language_base())), recipe, folder=tmp_path / "tune", **where)
    assert [score.metric for score in tuned.answers] == list(metrics)
    assert {score.rows for score in tuned.answers} == {5}
    assert tuned.answers[1].base < 0.3 < tuned.answers[1].tuned
    assert tuned.answers[2].base > 1
    assert TunedLanguageModel.open(tuned.folder) == tuned
    assert isinstance(TunedLanguageModel.open(tuned.folder).answers[0], AnswerScore)


def test_a_metric_that_cannot_be_had_is_said_before_training(language_base, language_rows, tmp_path):
    with pytest.raises(ValidationError, match="there is no metric 'blue'; expected one of bleu, chrf"):
        GenerationTuneRecipe(metrics=("blue",))
    recipe = GenerationTuneRecipe(metrics=("no_such_module:score",))
    rows = LanguageRows(language_rows(8), language_rows(8))
    where = {"device": "cpu", "seed": 3, "progress": Silent(), "folder": tmp_path / "tune"}
    with pytest.raises(RecipeError, match="no_such_module"):
        tune_language_model(rows, find_base(str(language_base())), recipe, **where)
    assert not (tmp_path / "tune").exists()
