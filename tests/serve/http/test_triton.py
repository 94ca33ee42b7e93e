"""What Triton's perf_analyzer asks before and behind its measurements."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_the_configuration_of_a_model(service, version):
    config = service.get(f"/v2/models/golden{version}/config").json()
    metadata = service.get("/v2/models/golden").json()
    assert (config["name"], config["platform"], config["max_batch_size"]) == ("golden", "onnxruntime_onnx", 256)
    assert config["model_transaction_policy"] == {"decoupled": False}
    for ours, theirs in (("inputs", "input"), ("outputs", "output")):
        assert [each["name"] for each in metadata[ours]] == [each["name"] for each in config[theirs]]
        # The dimensions of one input: those of the metadata without the batch.
        assert [len(each["shape"]) - 1 for each in metadata[ours]] == [len(each["dims"]) for each in config[theirs]]
    # A request brings texts alone: whoever takes all that is not optional asks rightly.
    assert [each["name"] for each in config["input"] if not each.get("optional")] == ["text"]
    assert {each["data_type"] for each in config["output"]} <= {"TYPE_STRING", "TYPE_INT64", "TYPE_FP32", "TYPE_BOOL"}


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_the_statistics_of_a_model_grow_with_what_is_asked(make_service, version):
    service = make_service()

    def told():
        (stats,) = service.get(f"/v2/models/golden{version}/stats").json()["model_stats"]
        assert (stats["name"], stats["version"]) == ("golden", "1")
        return stats

    before = told()
    assert service.classify({"texts": ["card", "where is my parcel", "account"]}).status_code == 200
    assert service.classify({"texts": []}).status_code == 422
    after = told()
    assert after["inference_count"] - before["inference_count"] == 3
    assert after["execution_count"] > before["execution_count"]
    grown = {
        name: value["count"] - before["inference_stats"][name]["count"]
        for name, value in after["inference_stats"].items()
    }
    assert (grown["success"], grown["fail"]) == (1, 1)
    assert grown["compute_infer"] == after["execution_count"] - before["execution_count"]
    assert grown["queue"] >= 1
    for name in ("success", "queue", "compute_infer"):
        assert after["inference_stats"][name]["ns"] > before["inference_stats"][name]["ns"]


def test_the_statistics_of_all_models(service):
    names = {each["name"] for each in service.post("/v2/repository/index", {"ready": True}).json()}
    stats = service.get("/v2/models/stats").json()["model_stats"]
    assert {each["name"] for each in stats} == names
    assert len(stats) == len(names)
    assert next(each for each in stats if each["name"] == "golden").keys() == (
        service.get("/v2/models/golden/stats").json()["model_stats"][0].keys()
    )


@pytest.mark.parametrize(
    "parameter", [{"classification": 2}, {"shared_memory_region": "r", "shared_memory_byte_size": 8}]
)
def test_an_extension_that_is_not_there_is_refused_and_not_left_out(service, parameter):
    text = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["card"]}
    body = {"inputs": [text], "outputs": [{"name": "scores", "parameters": parameter}]}
    answer = service.infer(body)
    assert answer.status_code == 400
    assert next(iter(parameter)) in answer.json()["error"]


@pytest.mark.parametrize("path", ["config", "stats"])
def test_a_model_that_is_not_there(service, path):
    assert service.get(f"/v2/models/nobody/{path}").status_code == 404
    assert service.get(f"/v2/models/golden/versions/7/{path}").status_code == 404
