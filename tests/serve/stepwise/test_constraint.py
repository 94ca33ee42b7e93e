"""Answers that follow a JSON schema, of a model whose weights are random: whatever it likes, the text is valid."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from edgetune.serve.errors import InputError, MissingDependency
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.scheduler import Scheduler

SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["card", "cash"]}, "sure": {"type": "boolean"}},
    "required": ["kind", "sure"],
    "additionalProperties": False,
}


def _sampling(schema: Any = SCHEMA, **more: Any) -> Sampling:
    return Sampling(json_schema=json.dumps(schema), **{"max_tokens": 120, **more})


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_is_json_of_the_schema(generator: Generator, texts: list[str], temperature: float) -> None:
    pytest.importorskip("llguidance")
    answers = generator.generate_batch(texts, _sampling(temperature=temperature, seed=3, logprobs=0))
    for answer in answers:
        value = json.loads(answer.text)
        assert set(value) == {"kind", "sure"}
        assert value["kind"] in ("card", "cash")
        assert isinstance(value["sure"], bool)
        assert answer.finish == "stop"
        assert len(answer.logprobs) == len(answer.token_ids)


def test_it_holds_among_others_that_are_free(generator: Generator, texts: list[str]) -> None:
    pytest.importorskip("llguidance")
    free = Sampling(max_tokens=30)
    ids = [generator.encode(text) for text in texts]
    alone = [generator.generate(text, free).text for text in texts]
    with Scheduler(generator, rows=4) as scheduler:
        handles = [scheduler.submit(one, sampling) for one in ids for sampling in (free, _sampling())]
        answers = [handle.result(seconds=60).text for handle in handles]
    assert answers[::2] == alone
    assert all(set(json.loads(text)) == {"kind", "sure"} for text in answers[1::2])


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"type": "object", "properties": 5}, {"allOf": 3}])
def test_what_is_no_schema_is_refused(generator: Generator, schema: Any) -> None:
    pytest.importorskip("llguidance")
    with pytest.raises(InputError, match="The JSON schema cannot be followed: "):
        generator.generate("card", _sampling(schema))


def test_without_llguidance_the_command_is_named(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependency, match="pip install 'llguidance"):
        generator.generate("card", _sampling())


def test_ids_alone_have_no_schema(generator: Generator) -> None:
    with pytest.raises(InputError, match="A JSON schema was given where there is no text"):
        generator.decoder.generate_ids([[5]], _sampling())
