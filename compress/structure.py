"""Where the architectures keep their layers and feed-forward blocks, and how a model with fewer of them is made.

A cut model is built anew from its changed config and then filled, so that what is saved opens by the config alone.
Heads are not cut: no config here can say it, since the width of a head is the model's width by the number of heads.
Must stay light: `unsuitable` reads the table, so torch comes in only where a model is at hand.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.errors import CompressError
from edgetune.serve.json_types import JsonObject

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Layout:
    """Names of an architecture's parts.

    Attributes:
        layers: the list of layers, in the trunk.
        up, down: the two linear layers of the feed-forward block, in a layer.
        depth, width: the config's fields for the number of layers and of feed-forward columns.
        gated: `up` gives the columns and then as many gates.
        shared: the one layer there is runs `depth` times.
    """

    layers: str = "encoder.layer"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    depth: str = "num_hidden_layers"
    width: str = "intermediate_size"
    gated: bool = False
    shared: bool = False


_BERT = Layout()
LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "mpnet"), _BERT),
    **dict.fromkeys(("deberta", "deberta-v2"), _BERT),
    "distilbert": Layout("transformer.layer", "ffn.lin1", "ffn.lin2", "n_layers", "hidden_dim"),
    "albert": Layout("encoder.albert_layer_groups.0.albert_layers", "ffn", "ffn_output", shared=True),
    "modernbert": Layout("layers", "mlp.Wi", "mlp.Wo", gated=True),
}


@dataclass(frozen=True)
class Shape:
    """What a config says of a model: its layout, the number of layers and of feed-forward columns."""

    layout: Layout
    layers: int
    columns: int


def uncuttable(model_folder: Path) -> str:
    """Why a saved model cannot be cut, a sentence that starts small; empty where it can. Reads config.json alone."""
    config = _config(model_folder)
    layout = LAYOUTS.get(config["model_type"])
    if layout is None:
        return f"where a {config['model_type']!r} model keeps its layers is not known"
    if layout.shared and (config.get("num_hidden_groups", 1), config.get("inner_group_num", 1)) != (1, 1):
        return "its layers are shared in several groups"
    return ""


def read_shape(model_folder: Path) -> Shape:
    """The shape of a saved model, from its config.json alone.

    Raises:
        CompressError: the model cannot be cut.
    """
    if reason := uncuttable(model_folder):
        raise CompressError(f"The model in {model_folder} cannot be cut: {reason}.")
    config = _config(model_folder)
    layout = LAYOUTS[config["model_type"]]
    return Shape(layout, int(config[layout.depth]), int(config[layout.width]))


def _config(model_folder: Path) -> JsonObject:
    return json.loads((model_folder / "config.json").read_text(encoding="utf-8"))


def spread_layers(layers: int, kept: int) -> tuple[int, ...]:
    """Which layers a student starts from: the first, the last, and the others evenly between.

    On banking77 a linear map from the pooled states of an untaught student to the teacher's explains most with first
    and last layer kept: R2 0.69 to 0.71 for three of six, 0.63 for the first or the last three. The first
    must stay for ModernBERT too, whose first layer has no norm of its own.
    """
    if kept == 1:
        return (0,)
    return tuple(round(place * (layers - 1) / (kept - 1)) for place in range(kept))


def with_layers(model: PreTrainedModel, kept: Sequence[int]) -> PreTrainedModel:
    """A new model of the layers `kept` (indices, rising, the first one 0), in fp32 and evaluation mode.

    Raises:
        CompressError: the model cannot be built from its changed config.
    """
    config = copy.deepcopy(model.config)
    layout = LAYOUTS[config.model_type]
    setattr(config, layout.depth, len(kept))
    if getattr(config, "layer_types", None) is not None:  # ModernBERT: which of them look at a window only
        config.layer_types = [config.layer_types[layer] for layer in kept]
    weights = model.state_dict()
    if not layout.shared:
        inside = f"{_trunk_prefix(model)}{layout.layers}."
        places = {str(layer): str(place) for place, layer in enumerate(kept)}
        weights = dict(_renumbered(weights, inside, places))
    return _built(model, config, weights)


def _renumbered(
    weights: dict[str, torch.Tensor], inside: str, places: dict[str, str]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in weights.items():
        layer, _, rest = name.removeprefix(inside).partition(".")
        if not name.startswith(inside):
            yield name, weight
        elif layer in places:
            yield f"{inside}{places[layer]}.{rest}", weight


def feed_forward(model: PreTrainedModel) -> list[tuple[nn.Linear, nn.Linear]]:
    """The two linear layers of each feed-forward block, bottom to top; one pair for a shared layer."""
    layout = LAYOUTS[model.config.model_type]
    layers = model.base_model.get_submodule(layout.layers)
    return [(layer.get_submodule(layout.up), layer.get_submodule(layout.down)) for layer in layers]


def with_columns(model: PreTrainedModel, kept: Sequence[Sequence[int]]) -> PreTrainedModel:
    """A new model of the feed-forward columns `kept`, as many indices for each of the layers, in evaluation mode.

    Raises:
        CompressError: the model cannot be built from its changed config.
    """
    import torch

    config = copy.deepcopy(model.config)
    layout = LAYOUTS[config.model_type]
    weights = dict(model.state_dict())
    for layer, columns in enumerate(kept):
        base = f"{_trunk_prefix(model)}{layout.layers}.{layer}."
        index = torch.tensor(columns)
        rows = torch.cat([index, index + getattr(config, layout.width)]) if layout.gated else index
        for part in ("weight", "bias"):
            if f"{base}{layout.up}.{part}" in weights:
                weights[f"{base}{layout.up}.{part}"] = weights[f"{base}{layout.up}.{part}"][rows]
        weights[f"{base}{layout.down}.weight"] = weights[f"{base}{layout.down}.weight"][:, index]
    setattr(config, layout.width, len(kept[0]))
    return _built(model, config, weights)


def _trunk_prefix(model: PreTrainedModel) -> str:
    return f"{model.base_model_prefix}."


def _built(model: PreTrainedModel, config: PreTrainedConfig, weights: dict[str, torch.Tensor]) -> PreTrainedModel:
    cut = type(model)(config)
    try:
        cut.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise CompressError(
            f"A cut {config.model_type!r} model has other weights than its config builds: {str(error).splitlines()[-1]}"
        ) from error
    return cut.float().eval()


def write_cut(cut: PreTrainedModel, source: Path, folder: Path) -> None:
    """Write a cut model to `folder/model` with the tokenizer's files of the folder `source`, whole or not at all."""
    part, place = folder / "part-model", folder / "model"
    shutil.rmtree(part, ignore_errors=True)
    cut.save_pretrained(part)
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and not (part / path.name).exists():
            shutil.copyfile(path, part / path.name)
    shutil.rmtree(place, ignore_errors=True)
    part.rename(place)
