"""Embeddings: how records are read, split and made rows, what is refused, and the losses by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgetune.serve.errors import RecipeError
from edgetune.tune.retrieval import DOCUMENT, EQUAL, MRR, NEGATIVE, QUERY, RECALLS, SCORED, SPEARMAN
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.vectors import SCALE, Vectors

NAME = "feature-extraction"
TASK = TASKS[NAME]


def pairs(count=40, **more):
    return [
        {"anchor": f"ask {n}", "positive": f"find {n}", **{key: f"{word} {n}" for key, word in more.items()}}
        for n in range(count)
    ]


def parts(dataset):
    return {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}


def test_a_pair_becomes_two_rows_of_one_group(load):
    dataset = load(NAME, pairs())
    assert "Columns 'anchor', 'positive' taken as anchor and positive: guessed." in dataset.findings
    texts = [text for part in parts(dataset).values() for text in part.texts]
    assert sorted(texts) == sorted(text for row in pairs() for text in row.values())
    for part in parts(dataset).values():
        rows = dict(zip(part.texts, part.targets, strict=True))
        for text, (group, role, _) in rows.items():
            other, number = ("find", "ask")[text.startswith("find")], text.split()[1]
            assert role == (QUERY if other == "find" else DOCUMENT)
            assert rows[f"{other} {number}"][0] == group
    assert TASK.input_columns(dataset.columns) == ()


def test_what_shares_a_text_is_in_one_part_and_one_group(load):
    rows = [{"anchor": f"ask {n}", "positive": f"find {n // 2}"} for n in range(60)]
    dataset = load(NAME, rows)
    finds = [{text for text in part.texts if text.startswith("find")} for part in parts(dataset).values()]
    assert sum(map(len, finds)) == len(set().union(*finds)) == 30
    test = dict(zip(dataset.test.texts, dataset.test.targets, strict=True))
    for text, (group, role, _) in test.items():
        if role == DOCUMENT:
            assert sum(one[0] == group for one in test.values()) == 3  # two anchors
            assert list(dataset.test.texts).count(text) == 1


def test_one_text_that_goes_with_all_does_not_join_them(load):
    rows = [{"anchor": f"ask {n}", "positive": "yes" if n % 2 else f"find {n}"} for n in range(60)]
    dataset = load(NAME, rows)
    assert len({target[0] for target in dataset.train.targets}) > 20


def test_triplets_keep_their_order_to_learn_from_and_judge_by_each_text_once(load):
    dataset = load(NAME, pairs(negative="other"))
    assert dataset.columns.texts == ("anchor", "positive", "negative")
    assert [target[1] for target in dataset.train.targets[:6]] == [QUERY, DOCUMENT, NEGATIVE] * 2
    objective = TASK.objective((), "", dataset.train.targets)
    assert (objective.texts_a_record, objective.metric) == (3, MRR)
    order = list(objective.order(objective.learnt(dataset.train.targets), np.random.default_rng(0)))
    assert sorted(order) == list(range(len(dataset.train)))
    assert all(
        one + 1 == two and two + 1 == three
        for one, two, three in zip(order[::3], order[1::3], order[2::3], strict=True)
    )
    assert objective.judging(dataset.test.targets) == len(dataset.test) // 3


def test_a_negative_that_is_a_find_elsewhere_is_one(load):
    rows = [*pairs(negative="other"), {"anchor": "ask x", "positive": "other 3", "negative": "find 3"}]
    dataset = load(NAME, rows, test=rows[-2:], clean={"deduplicate": False})
    judged = dict(zip(dataset.test.texts, (target[1] for target in dataset.test.targets), strict=True))
    assert judged == {
        "ask 39": QUERY,
        "find 39": DOCUMENT,
        "other 39": NEGATIVE,
        "ask x": QUERY,
        "other 3": DOCUMENT,
        "find 3": NEGATIVE,
    }


def test_scores_are_kept_by_pair(load):
    rows = [{"sentence1": f"a {n}", "sentence2": f"b {n}", "score": n / 8} for n in range(40)]
    dataset = load(NAME, rows)
    assert dataset.columns.labels == ("score",)
    assert {target[1] for target in dataset.train.targets} == {SCORED}
    scores = {
        text: target[2]
        for part in parts(dataset).values()
        for text, target in zip(part.texts, part.targets, strict=True)
    }
    assert (scores["a 3"], scores["b 3"]) == (375_000, 375_000)
    assert TASK.objective((), "", dataset.train.targets).metric == SPEARMAN
    with pytest.raises(RecipeError, match=r"gate.metric is 'mrr_at_10', and the rows are scored pairs"):
        TASK.objective((), "mrr_at_10", dataset.train.targets)


def test_labels_may_be_new_in_a_later_part(load):
    rows = [{"text": f"word {n}", "label": f"l{n % 4}"} for n in range(40)]
    test = [{"text": f"later {n}", "label": f"new{n % 2}"} for n in range(8)]
    dataset = load(NAME, rows, test=test)
    assert dataset.labels == ("l0", "l1", "l2", "l3", "new0", "new1")
    assert {target[1] for target in dataset.test.targets} == {EQUAL}
    objective = TASK.objective(dataset.labels, "recall_at_1", dataset.train.targets)
    assert (objective.metric, objective.rows_together) == (RECALLS[0], 2)
    learnt = objective.learnt(dataset.train.targets)
    order = list(objective.order(learnt, np.random.default_rng(0)))
    assert sorted(order) == list(range(len(dataset.train)))
    keys = learnt[order, 0]
    assert np.mean(keys[::2][: len(keys) // 2] == keys[1::2]) > 0.8
    assert "word 1" in dataset.train.texts or "word 1" in dataset.validation.texts


def test_prompts_stand_before_texts(load):
    prompts = {"query": "query: ", "document": "passage: "}
    dataset = load(NAME, pairs(), prompts=prompts)
    assert dataset.prompts == prompts
    assert all(text.startswith(("query: ask", "passage: find")) for text in dataset.train.texts)
    spec = TASK.objective((), "", dataset.train.targets).set_by(recipe(), dataset).head_spec(held_out(8))
    assert (spec.kind, spec.width, spec.lengths, spec.prompts) == ("embedding", 8, [4, 2], prompts)


def recipe(*lengths):
    from edgetune.tune.recipe import TuneRecipe

    return TuneRecipe(dimensions=lengths or (2, 4))


def held_out(width):
    return lambda: (np.zeros((1, 3)), np.zeros((1, width), dtype=np.float32))


def test_a_length_beyond_the_vectors_is_refused(load):
    dataset = load(NAME, pairs())
    objective = TASK.objective((), "", dataset.train.targets).set_by(recipe(8), dataset)
    with pytest.raises(RecipeError, match=r"tune.dimensions has 8, and the vectors have 8"):
        objective.head_spec(held_out(8))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"anchor": f"a {n}", "positive": f"A  {n}"} for n in range(20)], ("20 rows of 20", "row 1, 'a 0'")),
        ([{"anchor": f"a {n}", "positive": "yes"} for n in range(10)], ("All 10 pairs", "hang together", "'yes'")),
        ([{"anchor": f"a {n}", "positive": '["b", "c"]' if n == 4 else "b"} for n in range(20)], ("1 row", "row 5")),
        (
            [{"anchor": "a", "positive": "b", "negative": "c", "score": "1"} for _ in range(9)],
            (),  # a negative is taken, and the score is left
        ),
        (
            [{"sentence1": f"a {n}", "sentence2": f"b {n}", "score": "high" if n == 3 else n} for n in range(20)],
            ("1 row", "no finite number", "'high'"),
        ),
        ([{"text": f"a {n}", "label": "one"} for n in range(20)], ("All of 20 rows", "the one label 'one'")),
        ([{"text": f"a {n}", "label": f"l{n}"} for n in range(20)], ("Each of 20 rows", "a label of its own")),
        ([{"a": f"x {n}", "b": f"y {n}"} for n in range(20)], ("no columns of pairs", "anchor and positive")),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_named(fault, load, rows, words):
    options = {"label": "label"} if "label" in rows[0] else {}
    if not words:
        return
    message = fault(NAME, rows, suffix="jsonl", **options)
    for word in words:
        assert word in message


def test_negatives_and_scores_do_not_go_together(fault):
    rows = [{**row, "score": 1} for row in pairs(negative="other")]
    message = fault(NAME, rows, label="score")
    assert "a column of negatives, 'negative', and one of scores, 'score'" in message


def test_a_column_of_negatives_needs_its_pair(fault):
    rows = [{"a": "x", "b": "y", "c": "z"}] * 9
    assert "data.negative is 'c'" in fault(NAME, rows, negative="c")


def test_columns_by_name(load):
    rows = [{"a": f"x {n}", "b": f"y {n}", "c": f"z {n}"} for n in range(30)]
    assert load(NAME, rows, text="a", text_pair="c", negative="b").columns.texts == ("a", "c", "b")
    assert load(NAME, rows, text="c", text_pair="a").columns.texts == ("c", "a")


def test_a_part_without_two_texts_that_belong_together_is_refused(fault):
    rows = [{"text": f"word {n}", "label": f"l{n % 4}"} for n in range(40)]
    test = [{"text": "later", "label": "l0"}, {"text": "last", "label": "l1"}]
    assert "The test part has 2 rows and no two texts that belong together" in fault(NAME, rows, test=test)


def test_whole_groups_are_drawn(load):
    dataset = load(NAME, pairs(200))
    objective = TASK.objective((), "", dataset.train.targets)
    drawn = objective.drawn(dataset.train.targets, 50, seed=0)
    assert len(drawn) == 50
    assert drawn.tolist() == objective.drawn(dataset.train.targets, 50, seed=0).tolist() != list(range(50))
    groups = [dataset.train.targets[row][0] for row in drawn]
    assert all(groups.count(group) == 2 for group in groups)
    assert objective.drawn(dataset.train.targets, 10_000, seed=0).tolist() == list(range(len(dataset.train)))


def vectors(rows, width=6, seed=0):
    drawn = torch.randn((rows, width), generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=1).requires_grad_()


def of(learnt, **more):
    return Vectors((), MRR, **more), torch.tensor(learnt)


def loss_of(objective, given, learnt):
    return objective.loss(given, learnt, None) / learnt.numel()


def test_pairs_are_learnt_by_multiple_negatives_ranking():
    count = 5
    objective, learnt = of(
        [[n, role, 2 * n + role] for n in range(count) for role in (QUERY, DOCUMENT)], texts_a_record=2
    )
    given = vectors(2 * count)
    scores = SCALE * given[::2] @ given[1::2].T
    assert torch.allclose(loss_of(objective, given, learnt), functional.cross_entropy(scores, torch.arange(count)))


def test_the_negatives_of_triplets_stand_beside_the_others():
    count = 4
    rows = [[n, role, 3 * n + role] for n in range(count) for role in (QUERY, DOCUMENT, NEGATIVE)]
    objective, learnt = of(rows, texts_a_record=3)
    given = vectors(3 * count)
    scores = SCALE * given[::3] @ torch.cat([given[1::3], given[2::3]]).T
    assert torch.allclose(loss_of(objective, given, learnt), functional.cross_entropy(scores, torch.arange(count)))


def test_texts_of_one_group_are_not_told_apart():
    rows = [[0, QUERY, 0], [0, DOCUMENT, 1], [0, QUERY, 2], [0, DOCUMENT, 3], [1, QUERY, 4], [1, DOCUMENT, 3]]
    objective, learnt = of(rows, texts_a_record=2)
    given = vectors(6)
    alone, loss = loss_of(objective, given[:4], learnt[:4]), loss_of(objective, given, learnt)
    assert alone == 0
    (gradient,) = torch.autograd.grad(loss, given)
    assert torch.isfinite(gradient).all()


def test_a_batch_in_which_nothing_belongs_together_teaches_nothing():
    objective, learnt = of([[n, EQUAL, n] for n in range(4)])
    given = vectors(4)
    loss = loss_of(objective, given, learnt)
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss, given)
    assert (gradient == 0).all()


def test_scores_are_learnt_by_their_order():
    scores = [10, 30, 20]
    objective, learnt = of([[n, SCORED, score] for n, score in enumerate(scores) for _ in (0, 1)], texts_a_record=2)
    given = vectors(6)
    cosine = SCALE * (given[::2] * given[1::2]).sum(dim=1)
    wrong = [cosine[0] - cosine[1], cosine[0] - cosine[2], cosine[2] - cosine[1]]
    expected = torch.log(1 + torch.stack(wrong).exp().sum())
    assert expected > 1  # the order is far from right
    assert torch.allclose(loss_of(objective, given, learnt), expected)
    shuffled = torch.tensor([5, 0, 3, 1, 2, 4])
    assert torch.allclose(loss_of(objective, given[shuffled], learnt[shuffled]), expected)


def test_shorter_lengths_share_the_loss():
    rows = [[n, role, 2 * n + role] for n in range(4) for role in (QUERY, DOCUMENT)]
    objective, learnt = of(rows, texts_a_record=2)
    both, _ = of(rows, texts_a_record=2, lengths=(3,))
    given = vectors(8)
    short = functional.normalize(given[:, :3], dim=1)
    expected = (loss_of(objective, given, learnt) + loss_of(objective, short, learnt)) / 2
    assert torch.allclose(loss_of(both, given, learnt), expected)


def test_words_beside_a_pair_are_no_score(load, fault):
    rows = [{**row, "label": "refund"} for row in pairs()]
    assert load(NAME, rows).columns.labels == ()
    nli = [
        {"sentence1": f"a {n}", "sentence2": f"b {n}", "label": ("entailment", "contradiction")[n % 2]}
        for n in range(20)
    ]
    assert "no finite number, such as 'entailment'" in fault(NAME, nli)


def test_a_prompt_of_an_unknown_name_is_refused():
    from pydantic import ValidationError

    from edgetune.tune.data.dataset import DataRecipe

    with pytest.raises(ValidationError, match="there is no prompt 'passage'; expected query and document"):
        DataRecipe(path="x.csv", prompts={"passage": "passage: "})


@pytest.mark.parametrize(
    ("task", "values", "words"),
    [
        (NAME, {"tune": {"pooling": "head"}}, "pooling is head, but feature-extraction has none"),
        (NAME, {"tune": {"class_weights": "balanced"}}, "has no classes"),
        (NAME, {"answer": {"abstain_below": 0.5}}, "answers with a vector, which has no probability"),
        (NAME, {"gate": {"metric": "accuracy"}}, "for feature-extraction: mrr_at_10 or recall_at_1"),
        ("text-classification", {"tune": {"dimensions": [64]}}, "expected them for embeddings alone"),
        ("text-regression", {"data": {"path": "x.csv", "negative": "c"}}, "negative is given"),
        ("text-regression", {"data": {"path": "x.csv", "prompts": {"query": "q: "}}}, "prompts is given"),
    ],
)
def test_keys_that_would_do_nothing_are_refused(task, values, words):
    from edgetune.once.recipe import OnceRecipe

    with pytest.raises(RecipeError) as error:
        OnceRecipe.of_values({"base": "b", "task": task, "data": {"path": "x.csv"}, **values}, None)
    assert words in str(error.value)
