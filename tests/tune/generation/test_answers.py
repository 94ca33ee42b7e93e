"""Generated answers: asked as the rows ask, the same alone and in a batch, scored for base and tuned model."""

import pytest
import torch
from pydantic import ValidationError

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.base import find_base, open_tokenizer
from edgetune.tune.generation.answers import Question, generate_answers, questions_of
from edgetune.tune.generation.model import AnswerScore, TunedLanguageModel, open_pretrained
from edgetune.tune.generation.recipe import GenerationTuneRecipe
from edgetune.tune.generation.tuning import LanguageRows, tune_language_model
from edgetune.tune.progress import Silent


def test_the_last_answer_of_a_row_is_asked_with_all_that_stands_before_it():
    rows = [
        {"input_ids": [1, 5, 6, 7, 8, 9, 2, 0], "labels": [-100, -100, 6, -100, -100, 9, 2, -100]},
        {"input_ids": [1, 5], "labels": [-100, -100]},
        {"input_ids": [6, 2], "labels": [6, 2]},
    ]
    assert questions_of(rows) == [Question((1, 5, 6, 7, 8), (9, 2))]
    with pytest.raises(DataError, match="None of the 2 rows asks for an answer that could be generated"):
        questions_of(rows[1:])


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
