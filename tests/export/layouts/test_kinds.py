"""Every layout with every head and codec: carried with the right answers, or refused with the reason."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from edgetune.export.layouts import CANNOT, LANGUAGE_LAYOUTS, LAYOUTS, ONLY, layout_named, write_layout
from edgetune.serve import load
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import CODECS
from edgetune.serve.errors import BundleError
from tests.export.layouts.docker_rules import dockerfile_faults
from tests.export.layouts.oci_rules import artifact_faults
from tests.export.layouts.triton_rules import repository_faults
from tests.golden.kinds import ROW_CODECS, ROW_KINDS

# What the specifications ask, apart from what the product itself checks.
RULES = {"triton": repository_faults, "docker": dockerfile_faults, "oci": artifact_faults}
CARRIED = [name for name in LAYOUTS if name not in (*LANGUAGE_LAYOUTS, *ONLY)]
INPUTS = {
    "text": ["where is my parcel", "i forgot my password"],
    "text-pair": [["where is my parcel", "card"], ["card", "money"]],
}

every_kind = pytest.mark.parametrize("kind", ROW_KINDS)
labels_and_numbers = pytest.mark.parametrize("kind", [kind for kind in ROW_KINDS if kind != "embedding"])
every_codec = pytest.mark.parametrize("codec", ROW_CODECS)


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize(
    ("kind", "codec"), [*((kind, codec) for kind in ROW_KINDS for codec in ROW_CODECS), ("entities", "tokens")]
)
def test_a_layout_carries_a_kind_or_says_why_not(kind_bundle, tmp_path, name, kind, codec):
    bundle = Bundle.open(kind_bundle(kind, codec))
    reasons = [reason for word, reason in CANNOT.get(name, {}).items() if word in (kind, codec)]
    if not reasons:
        write_layout(bundle, name, tmp_path / "out")
        assert layout_named(name).check(tmp_path / "out") == RULES.get(name, lambda _: [])(tmp_path / "out") == []
        return
    with pytest.raises(BundleError) as caught:
        write_layout(bundle, name, tmp_path / "out")
    assert any(reason in caught.value.found for reason in reasons)
    assert "docker" in caught.value.expected
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_asks_for_other_scores_is_refused(kind_bundle, tmp_path):
    import shutil

    from edgetune.export.once.pack import write_manifest

    folder = tmp_path / "bundle"
    shutil.copytree(kind_bundle("labels"), folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["problem_type"] = "single_label_classification"
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    write_manifest(folder, Bundle.open(folder, verify=False).manifest)
    with pytest.raises(BundleError, match=r"problem_type .* is 'single_label_classification'"):
        write_layout(Bundle.open(folder), "transformersjs", tmp_path / "out")


def module_of(path: Path, monkeypatch, **stubs: Any) -> Any:
    """A generated module, with what it imports of other people's packages replaced."""
    for name, members in stubs.items():
        stub = types.ModuleType(name)
        vars(stub).update(members)
        monkeypatch.setitem(sys.modules, name, stub)
    spec = importlib.util.spec_from_file_location("generated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def packed(kind_bundle, tmp_path):
    """`packed(layout, kind, codec)`: the folder, and what the predictor answers to INPUTS as JSON."""

    def pack(name, kind, codec):
        folder = kind_bundle(kind, codec)
        write_layout(Bundle.open(folder), name, tmp_path / "out")
        predictor = load(folder, threads=1)
        # One text a call: neighbours change the last digits.
        answers = [predictor.head.as_json(predictor.predict_one(one), None) for one in INPUTS[codec]]
        return tmp_path / "out", answers

    return pack


def nearly(value: Any) -> Any:
    """The same value, numbers within what padding changes."""
    if isinstance(value, dict):
        return {name: nearly(member) for name, member in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], float):
        return pytest.approx(value, abs=1e-5)
    return pytest.approx(value, abs=1e-5) if isinstance(value, float) else value


@every_kind
@every_codec
def test_litserve_answers_as_the_predictor(packed, monkeypatch, kind, codec):
    folder, answers = packed("litserve", kind, codec)
    server = module_of(folder / "server.py", monkeypatch, litserve={"LitAPI": object})
    api = server.TextClassifier()
    api.setup("cpu")
    bodies = [
        dict(zip(CODECS[codec].parts, [one] if isinstance(one, str) else one, strict=True)) for one in INPUTS[codec]
    ]
    requests = [api.decode_request(body) for body in [*bodies, {"other": 1}, 3]]
    outputs = api.unbatch(api.predict(api.batch(requests)))
    assert [api.encode_response(output) for output in outputs[:2]] == list(map(nearly, answers))
    assert [api.encode_response(output).status_code for output in outputs[2:]] == [422, 422]


@labels_and_numbers
@every_codec
def test_bentoml_answers_as_the_predictor(packed, monkeypatch, kind, codec):
    pytest.importorskip("pydantic")
    folder, answers = packed("bentoml", kind, codec)
    bare = {"service": lambda **_: lambda made: made, "api": lambda **_: lambda made: made}
    service = module_of(folder / "service.py", monkeypatch, bentoml=bare)
    given = service.TextClassifier().classify(INPUTS[codec])
    assert [answer.model_dump() for answer in given] == list(map(nearly, answers))


@labels_and_numbers
@every_codec
def test_mlflow_answers_as_the_predictor(packed, monkeypatch, kind, codec):
    import pandas

    folder, answers = packed("mlflow", kind, codec)
    model = module_of(folder / "code" / "edgetune_pyfunc.py", monkeypatch)._load_pyfunc(str(folder / "bundle"))
    rows = [[one] if isinstance(one, str) else one for one in INPUTS[codec]]
    frame = pandas.DataFrame(rows, columns=list(CODECS[codec].parts), index=[7, 9])
    given = model.predict(frame)
    assert given.index.tolist() == [7, 9]
    assert given.to_dict("records") == list(map(nearly, answers))
    signature = json.loads((folder / "MLmodel").read_text("utf-8"))["signature"]
    assert [column["name"] for column in json.loads(signature["inputs"])] == list(CODECS[codec].parts)
    assert [column["name"] for column in json.loads(signature["outputs"])] == list(given.columns)


@labels_and_numbers
@every_codec
def test_mlserver_answers_as_the_predictor(packed, monkeypatch, kind, codec):
    folder, answers = packed("mlserver", kind, codec)
    codec_stub = types.SimpleNamespace(encode_output=lambda name, texts: {"name": name, "data": texts})
    value = types.SimpleNamespace
    stubs = {
        "mlserver": {"MLModel": object},
        "mlserver.codecs": {"StringCodec": codec_stub},
        "mlserver.errors": {"InferenceError": ValueError, "MLServerError": ValueError},
        "mlserver.types": {
            "InferenceRequest": value,
            "InferenceResponse": dict,
            "RequestInput": value,
            "ResponseOutput": dict,
        },
        "mlserver.utils": {"get_model_uri": None},
    }
    (path,) = folder.glob("*/edgetune_runtime.py")
    made = module_of(path, monkeypatch, **stubs).TextClassifier()
    made._predictor = load(path.parent / "bundle", threads=1)
    made.name, made.version = "x", "1"
    made.decode = lambda given, default_codec: given.data
    columns = [[one] if isinstance(one, str) else one for one in INPUTS[codec]]
    inputs = [
        value(name=part, datatype="BYTES", data=[row[place] for row in columns])
        for place, part in enumerate(CODECS[codec].parts)
    ]
    response = asyncio.run(made.predict(value(id=None, inputs=inputs)))
    outputs = {output["name"]: output for output in response["outputs"]}
    settings = json.loads((path.parent / "model-settings.json").read_text("utf-8"))
    assert [output["name"] for output in settings["outputs"]] == list(outputs)
    for name, output in outputs.items():
        wanted = [answer[name] for answer in answers]
        if name == "labels":
            assert [json.loads(row) for row in output["data"]] == wanted
        elif name == "scores":
            assert output["shape"] == [2, 3]
            rows = [
                dict(zip(made._predictor.labels, output["data"][3 * row : 3 * row + 3], strict=True)) for row in (0, 1)
            ]
            assert rows == [pytest.approx(row, abs=1e-5) for row in wanted]
        else:
            assert output["data"] == [nearly(one) for one in wanted]
    with pytest.raises(ValueError, match="inputs were given; expected"):
        asyncio.run(made.predict(value(id=None, inputs=[*inputs, *inputs])))


@labels_and_numbers
def test_fastembed_answers_as_the_predictor(packed, kind_bundle, monkeypatch, kind):
    folder, answers = packed("fastembed", kind, "text")
    stubs = {
        "fastembed": {"TextEmbedding": None},
        "fastembed.common": {},
        "fastembed.common.model_description": {"ModelSource": None, "PoolingType": None},
    }
    script = module_of(folder / "classify.py", monkeypatch, **stubs)
    predictor = load(kind_bundle(kind), threads=1)

    class Model:
        def embed(self, texts, batch_size):
            return iter(predictor.logits(predictor.encode(texts)))

    given = list(script.classify(Model(), INPUTS["text"]))
    shown = {"label": ["label", "score"], "number": ["value"]}.get(kind)
    wanted = [answer["labels"] if shown is None else [answer[name] for name in shown] for answer in answers]
    assert [list(answer) for answer in given] == [[nearly(cell) for cell in row] for row in wanted]


@every_kind
@every_codec
def test_triton_is_warmed_up_with_the_type_ids_of_pairs(packed, kind, codec):
    import numpy as np

    folder, _ = packed("triton", kind, codec)
    (model,) = (path for path in folder.iterdir() if path.is_dir())
    types_ = [np.fromfile(path, dtype="<i8") for path in (model / "warmup").glob("token_type_ids-*")]
    assert types_
    assert all(values.max() == (codec == "text-pair") for values in types_)
    assert (model / "labels.txt").exists() is (kind in ("label", "labels"))
    readme = (folder / "README.md").read_text("utf-8")
    assert ('tokenizer.encode("a text", "another")' in readme) is (codec == "text-pair")
    assert ("class_count=1" in readme) is (kind == "label")


def test_fastembed_is_told_to_scale_vectors(packed, kind_bundle, monkeypatch):
    folder, answers = packed("fastembed", "embedding", "text")
    assert "normalization=True" in (folder / "classify.py").read_text("utf-8")
    stubs = {
        "fastembed": {"TextEmbedding": None},
        "fastembed.common": {},
        "fastembed.common.model_description": {"ModelSource": None, "PoolingType": None},
    }
    script = module_of(folder / "classify.py", monkeypatch, **stubs)
    predictor = load(kind_bundle("embedding"), threads=1)
    model = types.SimpleNamespace(embed=lambda texts, batch_size: iter(predictor.embed(texts)))
    given = list(script.classify(model, INPUTS["text"]))
    assert given == [nearly(answer["embedding"]) for answer in answers]  # all three numbers


def test_tei_pools_the_states_of_one_token(packed, kind_bundle):
    import numpy as np
    import onnxruntime

    folder, answers = packed("tei", "embedding", "text")
    assert json.loads((folder / "1_Pooling" / "config.json").read_text("utf-8"))["pooling_mode_cls_token"] is True
    assert "/embed " in (folder / "README.md").read_text("utf-8")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["last_hidden_state"]
    predictor = load(kind_bundle("embedding"), threads=1)
    for text, answer in zip(INPUTS["text"], answers, strict=True):
        (states,) = session.run(None, predictor.feed(predictor.encode([text])))
        assert states.shape == (1, 1, 3)
        vector = states[0, 0] / np.linalg.norm(states[0, 0])
        assert vector.tolist() == nearly(answer["embedding"])
    (folder / "1_Pooling" / "config.json").write_text("{}")
    assert layout_named("tei").check(folder) == ["1_Pooling/config.json does not say pooling_mode_cls_token"]


@labels_and_numbers
def test_sentence_transformers_is_for_vectors(kind_bundle, tmp_path, kind):
    with pytest.raises(BundleError, match="it is for models that give vectors") as error:
        write_layout(Bundle.open(kind_bundle(kind)), "sentence-transformers", tmp_path / "out")
    assert "docker" in error.value.expected
    assert "sentence-transformers" not in error.value.expected


PICTURE_LAYOUTS = [name for name in CARRIED if "picture" not in CANNOT.get(name, {})]


@pytest.mark.parametrize("name", CARRIED)
def test_a_layout_carries_pictures_or_says_why_not(picture_bundle, tmp_path, name):
    bundle = Bundle.open(picture_bundle)
    if name in PICTURE_LAYOUTS:
        write_layout(bundle, name, tmp_path / "out")
        assert layout_named(name).check(tmp_path / "out") == RULES.get(name, lambda _: [])(tmp_path / "out") == []
        return
    with pytest.raises(BundleError, match="is of the kind 'picture', which"):
        write_layout(bundle, name, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_generated_server_answers_pictures_in_base64(picture_bundle, tmp_path, monkeypatch):
    import base64

    from tests.golden.pictures import picture_bytes

    write_layout(Bundle.open(picture_bundle), "litserve", tmp_path / "out")
    assert "[cpu,pictures]" in (tmp_path / "out" / "requirements.txt").read_text("utf-8")
    server = module_of(tmp_path / "out" / "server.py", monkeypatch, litserve={"LitAPI": object})
    api = server.TextClassifier()
    api.setup("cpu")
    bodies = [{"image": base64.b64encode(picture_bytes("green")).decode()}, {"image": "/etc/passwd"}]
    outputs = api.unbatch(api.predict(api.batch([api.decode_request(body) for body in bodies])))
    assert api.encode_response(outputs[0])["label"] == "green"
    assert api.encode_response(outputs[1]).status_code == 422
