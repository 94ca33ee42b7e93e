"""A graph behind a first cache: gates find the model's answers and refuse others; bundles of one graph are joined."""

import dataclasses
import shutil

import msgspec
import pytest
import torch
from transformers import AutoTokenizer

from edgetune.export.layouts import write_layout
from edgetune.export.once.pack import pretty_json, write_manifest
from edgetune.export.stepwise.borders import check_borders
from edgetune.export.stepwise.first_cache import FIRST_CACHE_FILE, write_first_cache
from edgetune.export.stepwise.graph import open_decoder
from edgetune.export.stepwise.joining import bundle_of_weights, join_bundles
from edgetune.export.stepwise.parity import check_decoder
from edgetune.export.stepwise.weights import model_digest
from edgetune.serve.bundle import FIRST_CACHE_FORMAT, Bundle
from edgetune.serve.errors import BundleDamaged, BundleError, CompressError, InputError, ParityError
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import read_golden, record, replay
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.tune.stepwise.first_cache import FirstCache

TOKENS = 6


def drawn(spec, seed):
    """A first cache of random keys and values."""
    random = torch.Generator().manual_seed(seed)
    shape = (1, spec.kv_heads, TOKENS, spec.head_dim)
    return FirstCache(tuple(tuple(torch.randn(shape, generator=random) for _ in range(2)) for _ in range(spec.layers)))


@pytest.fixture
def behind(tiny_decoder, llama_graph, tmp_path):
    """`behind(seed)`: a model's folder with a first cache, and the graph of the model with the same beside it."""

    def made(seed=0):
        model, folder = tmp_path / f"model{seed}", tmp_path / f"graph{seed}"
        shutil.copytree(tiny_decoder("llama"), model)
        shutil.copytree(llama_graph.path.parent, folder)
        drawn(llama_graph.spec, seed).save(model)
        first = write_first_cache(model, folder)
        spec = msgspec.structs.replace(
            llama_graph.spec, first_caches=first, context_tokens=llama_graph.spec.context_tokens - TOKENS
        )
        return model, dataclasses.replace(llama_graph, path=folder / llama_graph.path.name, spec=spec)

    return made


def test_the_gates_hold_a_graph_against_the_model_behind_its_first_cache(behind, prompts):
    folder, graph = behind()
    model, tokenizer = open_decoder(folder), AutoTokenizer.from_pretrained(folder)
    rows = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert check_decoder(graph, model, tokenizer, prompts, tokens=12) < 1e-3
    assert check_borders(graph, model, rows).crossed == (128,)
    drawn(graph.spec, 1).save(folder)
    write_first_cache(folder, graph.path.parent)
    with pytest.raises(ParityError, match="answers unlike the model"):
        check_decoder(graph, model, tokenizer, prompts, tokens=12)
    with pytest.raises(ParityError, match="in the shipped runtime"):
        check_borders(graph, model, rows)


@pytest.fixture
def bundles(behind, write_language_bundle, prompts, tmp_path):
    """Two bundles of one graph, each with a first cache of its own and golden answers."""
    named = {}
    for seed, name in enumerate(("legal", "medical"), 1):
        model, graph = behind(seed)
        plain = dataclasses.replace(graph, spec=msgspec.structs.replace(graph.spec, first_caches=[]))
        bundle = write_language_bundle(model, plain, tmp_path / name)
        shutil.copyfile(graph.path.parent / FIRST_CACHE_FILE, bundle.folder / FIRST_CACHE_FILE)
        manifest = msgspec.structs.replace(
            bundle.manifest,
            format=FIRST_CACHE_FORMAT,
            model_digest=model_digest(model),
            data_digest=name,
            generation=graph.spec,
        )
        write_manifest(bundle.folder, manifest)
        with Generator.open(bundle.folder, threads=1) as generator:
            golden = record(generator, prompts[:2], tolerance=1e-3)
        (bundle.folder / "golden.json").write_bytes(pretty_json(golden))
        write_manifest(bundle.folder, manifest)
        named[name] = bundle.folder
    return named


def test_a_joined_bundle_answers_as_each_of_its_own(bundles, prompts, tmp_path):
    joined = join_bundles(bundles, tmp_path / "desk")
    assert {path.name for path in joined.folder.iterdir()} == {
        "config.json", "first-cache-legal.bin", "first-cache-medical.bin", "generation_config.json", "golden.json",
        "manifest.json", "model.onnx", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert (joined.manifest.name, joined.manifest.format) == ("desk", FIRST_CACHE_FORMAT)
    asked = Sampling(max_tokens=8)
    with Generator.open(joined.folder, threads=1) as generator:
        assert replay(generator, read_golden(joined)).cases == 4
        answers = {
            name: [generator.generate(one, asked, adapter=name).token_ids for one in prompts] for name in bundles
        }
    for name, folder in bundles.items():
        with Generator.open(folder, threads=1) as generator:
            assert [generator.generate(one, asked).token_ids for one in prompts] == answers[name]
    assert answers["legal"] != answers["medical"]
    join_bundles(dict(reversed(bundles.items())), tmp_path / "desk")  # an older one is replaced
    with Generator.open(tmp_path / "desk", threads=1) as generator:
        assert generator.generate(prompts[0], asked).token_ids == answers["medical"][0]
    with pytest.raises(BundleError, match="has several adapters"):
        join_bundles({"a": tmp_path / "desk", "b": bundles["legal"]}, tmp_path / "more")


def test_what_cannot_be_joined_is_refused(bundles, language_bundle, tmp_path):
    out = tmp_path / "desk"
    with pytest.raises(InputError, match="1 bundle is named"):
        join_bundles({"legal": bundles["legal"]}, out)
    with pytest.raises(BundleError, match="has no virtual tokens"):
        join_bundles({"legal": bundles["legal"], "plain": language_bundle.folder}, out)
    manifest = Bundle.open(bundles["medical"]).manifest
    spec = msgspec.structs.replace(manifest.generation, eos_ids=[7])
    write_manifest(bundles["medical"], msgspec.structs.replace(manifest, generation=spec))
    with pytest.raises(BundleError, match="differ in what ends an answer"):
        join_bundles(bundles, out)
    with (bundles["medical"] / "model.onnx").open("ab") as graph:
        graph.write(b"\x72\x00")  # an empty field of the graph's
    write_manifest(bundles["medical"], manifest)
    with pytest.raises(BundleError, match="graphs that differ") as error:
        join_bundles(bundles, out)
    assert error.value.action.endswith(f"--set compress.graph_of={bundles['legal']}")
    assert not out.exists()
    assert not list(tmp_path.glob(".desk*"))


def test_a_graph_is_taken_of_the_same_weights_alone(bundles, tiny_decoder, tmp_path):
    opened = Bundle.open(bundles["legal"])
    spec = msgspec.structs.replace(opened.manifest.generation, first_caches=[])
    model = tiny_decoder("llama")
    assert bundle_of_weights(opened.folder, model, spec).folder == opened.folder
    with pytest.raises(CompressError, match="made of other weights"):
        bundle_of_weights(opened.folder, tiny_decoder("gpt2"), spec)
    with pytest.raises(CompressError, match="fed otherwise"):
        bundle_of_weights(opened.folder, model, msgspec.structs.replace(spec, batch_one=not spec.batch_one))


def test_engines_that_know_no_first_cache_do_not_get_it(bundles, tmp_path):
    bundle = Bundle.open(bundles["legal"])
    for layout in ("genai", "hf", "gguf"):
        with pytest.raises(BundleError, match="of the kind 'first cache'"):
            write_layout(bundle, layout, tmp_path / layout)
    (bundle.folder / FIRST_CACHE_FILE).unlink()
    manifest = bundle.manifest
    write_manifest(bundle.folder, manifest)
    with pytest.raises(BundleDamaged, match=f"{FIRST_CACHE_FILE} is not listed"):
        Bundle.open(bundle.folder)
