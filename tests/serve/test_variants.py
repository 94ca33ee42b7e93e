"""Several graphs in one bundle: which answers on which machine, what it says of its choice, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgetune.serve import EdgetuneError, golden, load, variants
from edgetune.serve.bundle import Bundle, RuntimeSettings, Variant
from edgetune.serve.errors import BundleDamaged, InputError, ProviderError
from edgetune.serve.golden import replay_golden
from edgetune.serve.variants import Machine, rank_variants

VNNI = ["avx512_vnni", "asimddp"]
BUILT_ON = {"cpu": "Build Machine", "cores": 4}


def entry(scheme: str, **changes: object) -> dict[str, object]:
    """A variant as the manifest tells it: fp32 is the main one."""
    main = scheme == "fp32"
    return {
        "scheme": scheme,
        "graph": "model.onnx" if main else f"model_{scheme}.onnx",
        "golden": "golden.json" if main else f"golden_{scheme}.json",
        "provider": "cpu",
        "dtypes": {"FLOAT": 1.0},
        **changes,
    }


def measured(p50_ms: float, **machine: object) -> dict[str, object]:
    return {"runtime": {"threads": 1, "spinning": True, **BUILT_ON, **machine}, "p50_ms": p50_ms}


def add_variants(bundle_copy, *others: dict[str, object], main: dict[str, object] | None = None) -> Path:
    """Give the copy further graphs; each gives logits that are turned around, so that it is told who answered."""
    import onnx

    for other in others:
        graph = onnx.load(bundle_copy.path("model.onnx"))
        for node in graph.graph.node:
            node.output[:] = ["plain" if name == "logits" else name for name in node.output]
        graph.graph.node.append(onnx.helper.make_node("Neg", ["plain"], ["logits"]))
        onnx.save(graph, bundle_copy.path(str(other["graph"])))
        golden = json.loads(bundle_copy.path("golden.json").read_text("utf-8"))
        labels = ["account", "delivery", "payment"]
        for case in golden["cases"]:
            case["logits"] = [-value for value in case["logits"]]
            case["label"] = labels[int(np.argmax(case["logits"]))]
        bundle_copy.path(str(other["golden"])).write_text(json.dumps(golden), "utf-8")
        for name in (other["graph"], other["golden"]):
            bundle_copy.digest_again(str(name))
    told = [entry("fp32", **(main or {})), *others]
    bundle_copy.change_manifest(lambda manifest: manifest.update(variants=told))
    return bundle_copy.folder


def on(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(variants.Machine, "here", classmethod(lambda cls, instructions=True: machine))


ANYWHERE = Machine("Some Machine", 2, ("avx2",))


def test_a_bundle_of_one_graph_says_so(bundle_copy):
    with load(bundle_copy.folder, threads=1) as predictor:
        assert predictor.variant == "fp32"
        assert predictor.variant_reason == "fp32: the bundle has no other graph for this provider."


def test_another_graph_answers_and_replays_its_own_golden_answers(bundle_copy, monkeypatch):
    folder = add_variants(bundle_copy, entry("int8_dynamic", needs=VNNI, **measured(1.0)), main=measured(2.0))
    on(monkeypatch, Machine("Some Machine", 2, ("avx2", "avx512_vnni")))
    with load(folder) as taken, load(folder, variant="fp32") as main:
        assert taken.variant == "int8_dynamic"
        assert taken.variant_reason == (
            "int8_dynamic: this processor has avx512_vnni, and it was the fastest where the bundle was built, "
            "1 ms (int8_dynamic) against 2 ms (fp32) (Build Machine)."
        )
        assert (main.variant, main.variant_reason) == ("fp32", "fp32: it was asked for.")
        texts = taken.encode(["where is my parcel"])
        np.testing.assert_allclose(taken.logits(texts), -main.logits(texts), atol=1e-6)
        assert replay_golden(taken).cases == replay_golden(main).cases == 8
        assert taken.golden() != main.golden()


def test_int8_stands_back_where_the_processor_has_no_instructions_for_it(bundle_copy, monkeypatch):
    folder = add_variants(bundle_copy, entry("int8_dynamic", needs=VNNI, **measured(1.0)), main=measured(2.0))
    on(monkeypatch, ANYWHERE)
    with load(folder) as predictor:
        assert predictor.variant == "fp32"
        assert predictor.variant_reason == (
            "fp32: int8_dynamic needs one of avx512_vnni, asimddp, which this processor lacks, and was not measured on "
            "one of its class."
        )


@pytest.mark.parametrize(("fp32_ms", "int8_ms", "taken"), [(2.0, 3.0, "fp32"), (2.0, 1.0, "int8_dynamic")])
def test_what_was_measured_on_this_class_decides(bundle_copy, monkeypatch, fp32_ms, int8_ms, taken):
    here = {"cpu": ANYWHERE.cpu, "cores": ANYWHERE.cores}
    folder = add_variants(
        bundle_copy,
        entry("int8_dynamic", needs=VNNI, **measured(int8_ms, **here, threads=2)),
        main=measured(fp32_ms, **here),
    )
    on(monkeypatch, ANYWHERE)
    with load(folder) as predictor:
        assert predictor.variant == taken
        assert predictor.threads == {"fp32": 1, "int8_dynamic": 2}[taken]
        assert "measured fastest on this class of machine" in predictor.variant_reason
        assert f"{min(fp32_ms, int8_ms):.3g} ms ({taken}) against" in predictor.variant_reason


def graph(scheme: str, p50_ms: float | None = None, **settings: object) -> Variant:
    runtime = RuntimeSettings(threads=1, spinning=True, **BUILT_ON) if p50_ms else None
    return Variant(
        **{"provider": "cpu", "graph": "g", "golden": "a", "dtypes": {}, **settings},
        scheme=scheme,
        runtime=runtime,
        p50_ms=p50_ms,
    )


def test_unknown_instruction_sets_are_not_held_against_a_graph():
    ranked = rank_variants([graph("int8", 1.0, needs=VNNI), graph("fused", 2.0)], Machine("Apple", 8))
    assert [one.scheme for one, _ in ranked] == ["int8", "fused"]
    assert "fastest where the bundle was built" in ranked[0][1]


def test_int8_alone_is_taken_whatever_the_processor():
    ranked = rank_variants([graph("int8", 1.0, needs=VNNI), graph("int8_static", 2.0, needs=VNNI)], ANYWHERE)
    assert ranked[0][0].scheme == "int8"
    assert "which has none of avx512_vnni, asimddp" in ranked[0][1]


def test_nothing_measured_leaves_the_main_graph_first():
    ranked = rank_variants([graph("a"), graph("b")], ANYWHERE)
    assert [(one.scheme, why) for one, why in ranked] == [("a", "a: nothing was measured."), ("b", "b: behind a.")]


def test_a_graph_for_a_gpu_stands_first_where_its_provider_is_there(monkeypatch):
    graphs = [graph("int8", 1.0, needs=VNNI), graph("fused", 2.0), graph("fp16", provider="cuda")]
    for there, wanted in ((True, ["fp16", "fused", "int8"]), (False, ["fused", "int8"])):
        monkeypatch.setattr(variants, "provider_is_built_in", lambda name, there=there: name == "cpu" or there)
        assert [one.scheme for one, _ in rank_variants(graphs, ANYWHERE)] == wanted


def test_a_gpu_that_does_not_run_is_told_and_left(bundle_copy, monkeypatch):
    folder = add_variants(bundle_copy, entry("fp16", provider="cuda"))
    real = variants.open_session

    def open_session(path, *, provider, threads, spinning):
        if provider == "cuda":
            raise ProviderError("The provider 'cuda' does not run here: no device.")
        return real(path, provider=provider, threads=threads, spinning=spinning)

    monkeypatch.setattr(variants, "open_session", open_session)
    monkeypatch.setattr(variants, "provider_is_built_in", lambda name: True)
    with load(folder, threads=1) as predictor:
        assert (predictor.variant, predictor.providers) == ("fp32", ["CPUExecutionProvider"])
        assert predictor.variant_reason == (
            "fp32: the only graph for the provider cpu. The provider 'cuda' does not run here: no device."
        )
    for settings in ({"provider": "cuda"}, {"variant": "fp16"}):
        with pytest.raises(ProviderError, match="no device"):
            load(folder, **settings)
    with load(folder, provider="cpu", threads=1) as predictor:
        assert predictor.variant == "fp32"


def test_a_variant_that_is_not_there(bundle_copy):
    folder = add_variants(bundle_copy, entry("int8_dynamic"))
    with pytest.raises(InputError) as refused:
        load(folder, variant="fp16")
    assert refused.value.found == "The bundle has no variant 'fp16'."
    assert refused.value.expected == "auto, fp32, int8_dynamic"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told[1].update(graph="../model.onnx"), "names files outside the bundle"),
        (lambda told: told[1].update(golden="/etc/passwd"), "names files outside the bundle"),
        (lambda told: told[1].update(graph="elsewhere.onnx"), "elsewhere.onnx is not listed"),
        (lambda told: told[1].update(scheme="fp32"), "'fp32' is there twice"),
        (lambda told: told.reverse(), "the first is not that of model.onnx"),
        (lambda told: told[1].pop("golden"), "missing required field `golden`"),
    ],
)
def test_variants_that_cannot_be_told(bundle_copy, change, said):
    folder = add_variants(bundle_copy, entry("int8_dynamic"))
    assert len(Bundle.open(folder).manifest.graphs) == 2
    bundle_copy.change_manifest(lambda manifest: change(manifest["variants"]))
    with pytest.raises(BundleDamaged) as refused:
        Bundle.open(folder)
    assert said in refused.value.found


def test_a_changed_variant_is_found_whichever_answers(bundle_copy):
    folder = add_variants(bundle_copy, entry("int8_dynamic"))
    path = bundle_copy.path("model_int8_dynamic.onnx")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(EdgetuneError, match=r"model_int8_dynamic\.onnx has changed bytes"):
        load(folder, variant="fp32")


def test_the_graph_that_was_proven_for_a_class_goes_before_a_faster_one(bundle_copy, monkeypatch):
    folder = add_variants(bundle_copy, entry("int8_dynamic", **measured(1.0)), main=measured(2.0))
    here = Machine("Build Machine", 4, ("avx2",), "x86-64-v3")
    monkeypatch.setattr(variants.Machine, "here", lambda **options: here)
    assert load(folder, threads=1).variant == "int8_dynamic"

    target = {"name": "x86-64-v3", "scheme": "fp32", "proof": "emulated"}
    bundle_copy.change_manifest(lambda manifest: manifest.update(targets=[target]))
    predictor = load(folder, threads=1)
    assert (predictor.variant, predictor.variant_reason) == (
        "fp32",
        "fp32: the graph for x86-64-v3 processors (emulated).",
    )
    assert load(folder, threads=1, variant="int8_dynamic").variant == "int8_dynamic"

    bundle_copy.change_manifest(lambda manifest: manifest.update(targets=[{**target, "name": "x86-64-vnni"}]))
    assert load(folder, threads=1).variant == "int8_dynamic"


def test_golden_answers_hold_to_what_was_measured_on_this_class(bundle_copy, monkeypatch):
    monkeypatch.setattr(golden, "target_here", lambda: "arm64")
    target = {"name": "arm64", "scheme": "fp32", "proof": "emulated", "tolerance": 1e-5}
    bundle_copy.change_manifest(lambda manifest: manifest.update(targets=[target]))
    allowed = Bundle.open(bundle_copy.folder).golden().tolerance
    assert replay_golden(load(bundle_copy.folder, threads=1)).tolerance == 1e-5 < allowed

    bundle_copy.change_manifest(lambda manifest: manifest.update(targets=[{**target, "name": "arm64-dotprod"}]))
    assert replay_golden(load(bundle_copy.folder, threads=1)).tolerance == allowed
