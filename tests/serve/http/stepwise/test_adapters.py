"""Adapters of a model by OpenAI's client: each is a model of its own by name, over one graph."""

import shutil

import msgspec
import numpy as np
import openai
import pytest

from edgetune.serve.bundle import Bundle
from edgetune.serve.stepwise.first_caches import first_cache_bytes
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import record
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.spec import FirstCacheSpec
from tests.serve.http.stepwise.conftest import write_manifest

PROMPT = "the card has not"


@pytest.fixture(scope="module")
def desk(tiny_bundle, tmp_path_factory):
    """The tiny bundle with two first caches."""
    folder = tmp_path_factory.mktemp("desk") / "desk"
    shutil.copytree(tiny_bundle, folder)
    spec = Bundle.open(folder).manifest.generation
    random = np.random.default_rng(0)
    for name in ("legal", "medical"):
        shape = (2 * spec.layers, 1, spec.kv_heads, 4, spec.head_dim)
        (folder / f"{name}.bin").write_bytes(first_cache_bytes(list(random.normal(0, 1, shape).astype(np.float32))))
    first = [FirstCacheSpec(name=name, file=f"{name}.bin", tokens=4) for name in ("legal", "medical")]
    spec = msgspec.structs.replace(spec, first_caches=first)
    write_manifest(folder, spec)
    with Generator.open(folder, threads=1) as generator:
        golden = record(generator, [PROMPT], tolerance=1e-3, tokens=4)
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    write_manifest(folder, spec)
    return folder


def test_a_request_names_who_answers(run_server, desk):
    with Generator.open(desk, threads=1) as generator:
        wanted = {
            name: generator.generate(PROMPT, Sampling(max_tokens=12), adapter=name).text
            for name in ("legal", "medical")
        }
    server = run_server({"desk": desk})
    with server.client() as client:

        def complete(model, **settings):
            return client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0, **settings)

        assert wanted["legal"] != wanted["medical"]
        assert {name: complete(f"desk:{name}").choices[0].text for name in wanted} == wanted
        assert complete("desk:legal").model == "desk:legal"
        assert complete("desk").choices[0].text == wanted["legal"]
        pieces = [event.choices[0].text for event in complete("desk:medical", stream=True)]
        assert "".join(pieces) == wanted["medical"]
        listed = {one.id: getattr(one, "parent", None) for one in client.models.list()}
        assert listed == {"desk": None, "desk:legal": "desk", "desk:medical": "desk"}
        assert client.models.retrieve("desk:medical").id == "desk:medical"
        with pytest.raises(openai.NotFoundError, match="has no adapter 'fiscal'"):
            complete("desk:fiscal")
        with pytest.raises(openai.NotFoundError, match="has no adapter ''"):
            complete("desk:")


def test_a_model_without_adapters_says_so(server):
    answer = server.post("/v1/completions", {"model": "tiny:legal", "prompt": PROMPT})
    assert answer.status_code == 404
    assert "has no adapter 'legal'" in answer.json()["error"]["message"]
