"""One graph for several tasks: the trunk is run once, and each task's own head reads its states.

The heads are those of the models as tuning wrote them: each model is run whole, with what the trunk gave in the place
of its own trunk. So whatever an architecture's head does is in the graph, and the graph is proven against each model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedModel

from edgetune.export.once.encoding import check_encoding
from edgetune.export.once.export import spread_texts
from edgetune.export.once.graph import Graph, count_nodes, write_graph
from edgetune.export.once.parity import check_graph
from edgetune.serve.errors import BundleDamaged, ExportError
from edgetune.serve.heads import PER_TOKEN
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Input
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.several.shared_trunk import trunk_of
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

_PREFIX = "logits."


def output_name(task: str) -> str:
    """The graph's output that a task's head reads."""
    return _PREFIX + task


class _Given(nn.Module):
    """Stands in the place of a trunk and gives what the shared one gave, whatever it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.states: tuple[Any, ...] = ()
        self.forward = self._give

    @property
    def _give(self) -> Callable[..., Any]:
        return lambda *_, **__: self.states[0]


class JoinedModels(PreTrainedModel):
    """The models of all tasks on one trunk: outputs by their name."""

    base_model_prefix = "trunk"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, models: Mapping[str, Model], trunk: Any) -> None:
        """Of models in evaluation mode, whose trunks are all as `trunk`; they are changed in place."""
        super().__init__(trunk.config)
        self.trunk = trunk
        self.given = _Given()
        for model in models.values():
            setattr(model, model.base_model_prefix, self.given)
        self.names = tuple(models)
        self.models = nn.ModuleList(models.values())

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Outputs of all tasks, (batch, width) or (batch, tokens, width) float32, by the task's name."""
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        self.given.states = (self.trunk(**batch),)
        return {name: model(**batch).logits for name, model in zip(self.names, self.models, strict=True)}


def export_together(
    tuned: Mapping[str, TunedModel], datasets: Mapping[str, Dataset], provider: str, folder: Path, progress: Progress
) -> Graph:
    """Export all tasks as one graph into `folder`, and prove it and the tokenizer on the test part of each.

    Raises:
        ExportError: the architecture has no graph, the models' trunks differ, or texts are read from their ends.
        ParityError: graph or tokenizer answer differently.
    """
    for name, one in tuned.items():
        progress.say(f"{name}: {check_encoding(one.model_folder, Encoder.of(one), datasets[name].test.texts)}")
    _check_side(tuned)
    models = {name: open_model(one.model_folder) for name, one in tuned.items()}
    picked = {name: spread_texts(datasets[name].test.texts, Encoder.of(one).max_tokens) for name, one in tuned.items()}
    texts = [text for of_task in picked.values() for text in of_task]

    def proven(*, fused: bool) -> Graph:
        path = _write(tuned, texts, provider, folder, fused=fused)
        differences = [
            check_graph(path, models[name], Encoder.of(one), picked[name], provider, output=output_name(name))
            for name, one in tuned.items()
        ]
        return Graph(path, count_nodes(path), max(differences), fused)

    try:
        graph = proven(fused=True)
    except (ExportError, BundleDamaged) as error:
        progress.say(f"graph: {error.found} It is made again without fusions, which answers slower.")
        graph = proven(fused=False)
    graph.save(folder)
    progress.say(f"graph: outputs of {len(tuned)} tasks within {graph.max_abs_diff:.1e} of their models'")
    return graph


def _write(
    tuned: Mapping[str, TunedModel], texts: Sequence[Input], provider: str, folder: Path, *, fused: bool
) -> Path:
    attention = "eager" if fused else None
    models = {name: open_model(one.model_folder, attention=attention) for name, one in tuned.items()}
    joined = JoinedModels(models, shared_trunk(models)).eval()
    one = next(iter(tuned.values()))
    names = [output_name(name) for name in models]
    return write_graph(joined, Encoder.of(one).example(texts), folder, one.base_id, provider if fused else None, names)


def shared_trunk(models: Mapping[str, Model]) -> Any:
    """The trunk that all models have: of one whose head reads its pooler, if any does.

    Raises:
        ExportError: a model's differs from it.
    """
    trunks = {name: trunk_of(model) for name, model in models.items()}
    shared = max(trunks.values(), key=lambda trunk: len(trunk.state_dict()))
    weights = shared.state_dict()
    for name, trunk in trunks.items():
        for place, values in trunk.state_dict().items():
            if place not in weights or not torch.equal(values, weights[place]):
                raise ExportError(
                    f"The model of the task {name} has another {place} than the others.",
                    expected="models of one training",
                    action="run the build again with --fresh",
                )
    return shared


def _check_side(tuned: Mapping[str, TunedModel]) -> None:
    """Refuse to read the ends of long texts for one task where all tokens are read for another.

    Raises:
        ExportError: the tokenizer cuts texts at their beginning.
    """
    if len({one.head.kind in PER_TOKEN for one in tuned.values()}) < 2:
        return
    side = getattr(Encoder.of(next(iter(tuned.values()))).tokenizer, "truncation_side", "right")
    if side != "right":
        raise ExportError(
            f"The tokenizer cuts long texts on the {side}, and a task on tokens reads them from the beginning on.",
            expected="a tokenizer that cuts at the end",
            action="build the tasks on tokens and those on whole texts apart",
        )
