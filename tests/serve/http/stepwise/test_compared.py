"""`edgetune compare` of language models: two bundles, a bundle and the server that serves it, and its judges."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.benchmarks.compare.address import Address, Client
from edgetune.benchmarks.compare.comparison import ComparisonRequest
from edgetune.benchmarks.compare.generation import Judging, compare_writers
from edgetune.benchmarks.compare.judges import preferences
from edgetune.benchmarks.compare.questions import BundleWriter, Question, read_questions
from edgetune.serve.errors import EdgetuneError, InputError
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.training.progress import Silent

ROWS = [{"prompt": f"Where is {thing}?", "completion": f" {thing} is here."} for thing in ("it", "that", "the card")]


@pytest.fixture
def recipe(tmp_path: Path) -> ConversationRecipe:
    file = tmp_path / "chats.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in ROWS
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return ConversationRecipe(path=str(file))


def _compared(names: tuple[object, object], recipe: ConversationRecipe, metric: str = "", judge: object = "") -> Any:
    request = ComparisonRequest(calls=0, metric=metric)
    return compare_writers((str(names[0]), str(names[1])), recipe, request, Judging(str(judge), 6), Silent())


def test_two_bundles_of_one_tokenizer_are_judged_by_perplexity(tiny_bundle: Path, recipe: ConversationRecipe) -> None:
    found = _compared((tiny_bundle, tiny_bundle), recipe)
    assert (found.gain.metric, found.gain.gain, found.rows, found.agreement) == ("perplexity", 0.0, 3, None)
    assert found.gain.a == found.gain.b > 1


def test_the_perplexity_is_that_of_the_tokens_one_by_one(tiny_bundle: Path, recipe: ConversationRecipe) -> None:
    question = read_questions(recipe, 10, 0)[0][0]
    writer = BundleWriter.open(tiny_bundle)
    nats, tokens = writer.nats(question)
    generator = writer.generator
    prompt = generator.prompt_ids(question.prompt)
    reference = generator.codec.encode(question.reference, special=False)
    by_hand = 0.0
    for place, token in enumerate(reference):
        logits, _ = generator.decoder.prefill([[*prompt, *reference[:place]]])
        row = np.asarray(logits).reshape(-1).astype(np.float64)
        by_hand += np.log(np.exp(row - row.max()).sum()) + row.max() - row[token]
    assert (nats, tokens) == (pytest.approx(by_hand, rel=1e-3), len(reference))
    writer.close()


def test_a_server_writes_what_its_bundle_does(tiny_bundle: Path, recipe: ConversationRecipe, server: Any) -> None:
    found = _compared((tiny_bundle, f"{server.url}/v1/models/tiny"), recipe, metric="exact_match")
    assert (found.agreement, found.gain.gain, found.gain.metric) == (1.0, 0.0, "exact_match")
    alone = _compared((f"{server.url}/v1", tiny_bundle), recipe, metric="exact_match")  # the only model there
    assert alone.agreement == 1.0
    with pytest.raises(InputError, match="does not tell what it thinks"):
        _compared((tiny_bundle, f"{server.url}/v1"), recipe)
    with pytest.raises(EdgetuneError, match="gave 404"):
        _compared((tiny_bundle, f"{server.url}/v1/models/nobody"), recipe, metric="exact_match")


class _Judge:
    """Says what it is told to, by the two answers that it is shown."""

    def __init__(self, says: Callable[[str, str], str]) -> None:
        self._says = says

    def chat(self, messages: list[dict[str, str]], *, max_tokens: int) -> str:
        shown = messages[1]["content"].split("Answer A:\n")[1]
        first, second = shown.split("\n\nAnswer B:\n")
        return self._says(first, second)


QUESTIONS = [Question("Well?", "")] * 4


@pytest.mark.parametrize(
    ("says", "a", "b", "first_share", "changed", "unread"),
    [
        (lambda one, other: "A" if len(one) > len(other) else "B", 0, 4, 0.5, 0, 0),  # prefers the longer, ever b's
        (lambda one, other: "A.", 0, 0, 1.0, 4, 0),  # prefers what stands first, whatever it is
        (lambda one, other: "tie", 0, 0, None, 0, 0),
        (lambda one, other: "I cannot say", 0, 0, None, 0, 8),
    ],
)
def test_a_judge_is_asked_in_both_orders_and_its_bias_told(
    says: Callable[[str, str], str], a: int, b: int, first_share: float | None, changed: int, unread: int
) -> None:
    judged = preferences(_Judge(says), QUESTIONS, ["no"] * 4, ["longer"] * 4)  # type: ignore[arg-type]
    assert (judged.a.sum(), judged.b.sum(), judged.first_share) == (a, b, first_share)
    assert (judged.changed, judged.unread) == (changed, unread)
    assert f"on {changed:,} rows the order changed" in judged.findings[0]


def test_a_reward_bundle_judges_what_both_write(
    tiny_bundle: Path, recipe: ConversationRecipe, kind_bundle: Callable[..., Path]
) -> None:
    found = _compared((tiny_bundle, tiny_bundle), recipe, judge=kind_bundle("number", "text-pair"))
    assert (found.gain.metric, found.gain.gain) == ("reward", 0.0)
    with pytest.raises(InputError, match="answers with a label"):
        _compared((tiny_bundle, tiny_bundle), recipe, judge=Path("tests/golden/bundle-v1").absolute())


def test_an_address_of_the_inference_protocol_gives_labels(run_server: Any) -> None:
    golden = Path(__file__).parent.parent.parent.parent / "golden" / "bundle-v1"
    url = run_server(sources={"golden": golden}).url
    client = Client(Address.of(f"{url}/v2/models/golden"))
    labels = client.infer(("text",), ["where is my card", "courier is late"], "label")
    client.close()
    assert len(labels) == 2
    assert set(labels) <= {"account", "delivery", "payment"}
