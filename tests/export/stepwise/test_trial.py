"""A base of which no graph can be made is refused before it is tuned, and proven families cost nothing."""

from __future__ import annotations

import json

import pytest
from transformers import FalconConfig, Gemma3TextConfig, LlamaConfig, MambaConfig, MixtralConfig

from edgetune.export.stepwise import trial
from edgetune.export.stepwise.trial import check_exportable, small_config
from edgetune.serve.errors import BundleDamaged, ExportError, ModelError
from edgetune.tune.models.base import find_base


@pytest.fixture
def base(tmp_path):
    """`base(config)`: a base's folder with nothing but its configuration, which is all that a trial reads."""

    def write(config, architecture):
        config.save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": [architecture]}))
        (tmp_path / "model.safetensors").write_bytes(b"")
        return find_base(str(tmp_path))

    return write


@pytest.fixture
def exported(monkeypatch):
    """What was exported: (layers, fused) of each; `exported.error` is raised each time."""

    class Exported(list):
        error = None

        def __call__(self, model_folder, folder, *, batch_one=False, fused=True):
            config = json.loads((model_folder / "config.json").read_text())
            self.append((config["num_hidden_layers"], config["vocab_size"], fused))
            if self.error:
                raise self.error

    monkeypatch.setattr(trial, "export_decoder", one := Exported())
    return one


def test_a_proven_family_is_not_tried(base, exported):
    dynamic = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    check_exportable(base(LlamaConfig(num_hidden_layers=5, rope_parameters=dynamic), "LlamaForCausalLM"))
    assert exported == []


def test_another_one_is_tried_small(base, exported):
    unknown = {"rope_type": "dynamic", "factor": 2.0, "alpha": 9.0, "rope_theta": 1e4}
    config = LlamaConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=5, rope_parameters=unknown)
    check_exportable(base(config, "LlamaForCausalLM"))
    assert exported == [(2, 64, True)]


@pytest.mark.parametrize("error", [ExportError("No graph."), BundleDamaged("No session.")])
def test_what_cannot_be_exported_is_refused(base, exported, error):
    exported.error = error
    config = FalconConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=5, alibi=True)
    with pytest.raises(ModelError, match="cannot become a decoder graph: a small random falcon model") as refused:
        check_exportable(base(config, "FalconForCausalLM"))
    assert refused.value.found.endswith(error.found)
    assert "nothing was tuned" in str(refused.value)
    assert exported == [(2, 64, True), (2, 64, False)]


@pytest.mark.long  # four exports
def test_falcon_with_alibi_has_no_graph(base):
    config = FalconConfig(hidden_size=64, num_attention_heads=4, num_hidden_layers=2, alibi=True)
    with pytest.raises(ModelError, match="NOT_IMPLEMENTED"):
        check_exportable(base(config, "FalconForCausalLM"))


def test_a_small_model_has_a_layer_of_each_kind_and_few_experts():
    gemma = small_config(Gemma3TextConfig(num_hidden_layers=12, sliding_window_pattern=6, vocab_size=300))
    assert (gemma.num_hidden_layers, len(set(gemma.layer_types)), gemma.vocab_size) == (6, 2, 64)
    mixtral = small_config(MixtralConfig(num_hidden_layers=9))
    assert (mixtral.num_hidden_layers, mixtral.num_local_experts, mixtral.intermediate_size) == (2, 4, 64)
    assert mixtral.hidden_size == MixtralConfig().hidden_size
    assert small_config(MambaConfig()).num_hidden_layers == 2
