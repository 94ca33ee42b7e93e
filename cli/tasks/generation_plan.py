"""What the build of a language model would do, with sizes, memory and a time estimate, without doing it.

Rows are encoded as the build encodes them, so that what would be cut or dropped is counted, not guessed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from edgetune.export.once.pack import check_place
from edgetune.extras import installed_extras
from edgetune.plan import place_lines
from edgetune.serve.cores import usable_cores
from edgetune.tasks.generation_costs import GenerationCosts, PartTokens
from edgetune.tasks.generation_recipe import GenerationRecipe
from edgetune.tune.data.dataset import PART_NAMES
from edgetune.tune.models.base import Base, find_base
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import open_pretrained
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.trainer import automatic_epochs

SAMPLE = 16  # rows of the timed pass


@dataclass(frozen=True)
class GenerationPlan:
    """What would be done. Seconds are estimates from one timed forward pass; sizes and memory are bytes, rough.

    `missing` names packages of the extra [llm] that are not installed, `install` the command that brings them.
    """

    base: str
    base_bytes: int
    parameters: int
    context_tokens: int
    data: str
    format: str
    findings: tuple[str, ...]
    parts: dict[str, PartTokens]
    method: str
    trained_parameters: int
    epochs: float
    device: str
    precision: str
    metrics: tuple[str, ...]
    schemes: tuple[str, ...]
    size_bytes: dict[str, int]
    memory_bytes: int
    work_bytes: int
    threads: int
    missing: tuple[str, ...]
    install: str | None
    out: str
    replaces: bool
    seconds: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Each stage and what it would do."""
        rows = ", ".join(f"{part.rows:,} {name}" for name, part in self.parts.items())
        longest = ", ".join(f"{part.longest_tokens:,} {name}" for name, part in self.parts.items() if part.rows)
        share = self.trained_parameters / self.parameters
        sizes = ", ".join(f"{name} about {size / 1e6:.1f} MB" for name, size in self.size_bytes.items())
        gpu = ", the GPU's and this computer's together" if self.device == "cuda" else ""
        metrics = f"; answers scored by {', '.join(self.metrics)}" if self.metrics else ""
        return [
            ("data", f"{self.data}: {rows}; {self.format}; longest row in tokens: {longest}"),
            *(("", finding) for finding in self.findings),
            (
                "base",
                f"{self.base}: {self.parameters / 1e6:.1f} million parameters, {self.base_bytes / 1e6:.1f} MB, "
                f"{self.context_tokens:,} tokens of context",
            ),
            (
                "tune",
                f"{self.method}, {self.trained_parameters:,} weights trained ({share:.1%} of the model's number), "
                f"at most {self.epochs:g} epochs in {self.precision} on {self.device}{metrics}",
            ),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB at its peak, roughly{gpu}"),
            ("compress", f"tries {', '.join(self.schemes)}, until one passes the gate ({sizes})"),
            ("bench", f"base in PyTorch beside the bundle, {self.threads} threads each"),
            *(
                [("install", f"the extra [llm] lacks {', '.join(self.missing)}: {self.install}")]
                if self.missing
                else ()
            ),
            *place_lines(
                self.out,
                self.replaces,
                f"at most about {self.work_bytes / 1e6:.0f} MB",
                self.seconds,
                "one timed pass, as if every scheme were tried",
            ),
        ]


def plan_generation(recipe: GenerationRecipe) -> GenerationPlan:
    """Encode the data, open the base, time one pass over a sample, and estimate the rest.

    Raises:
        EdgetuneError: whatever would stop the build before it starts.
    """
    tune = recipe.tune
    check_place(Path(recipe.out))
    base = find_base(recipe.base, allow_pickle=tune.allow_pickle)
    conversations = Conversations.load(recipe.data, seed=recipe.seed)
    device = choose_device(recipe.device)
    model = open_pretrained(base, trust_remote_code=tune.trust_remote_code).to(device)
    encoded = EncodedConversations.of(conversations, base, recipe.data, trust_remote_code=tune.trust_remote_code)
    bf16 = fast_bf16(device) if tune.precision == "auto" else tune.precision == "bf16"
    train = encoded.parts.train
    costs = GenerationCosts(
        recipe=recipe,
        config=model.config.get_text_config(),
        parts={name: PartTokens.of(getattr(encoded.parts, name)) for name in PART_NAMES},
        seconds_a_token=_seconds_a_token(model, train[:SAMPLE], bf16=bf16),
        parameters=sum(weight.numel() for weight in model.parameters()),
        trained_parameters=_trained_parameters(model, tune),
        epochs=float(automatic_epochs(len(train), tune.batch_size) if tune.epochs == "auto" else tune.epochs),
        bf16=bf16,
    )
    return _plan(costs, encoded, base, device)


def _plan(costs: GenerationCosts, encoded: EncodedConversations, base: Base, device: str) -> GenerationPlan:
    recipe, llm = costs.recipe, installed_extras()["llm"]
    return GenerationPlan(
        base=base.id,
        base_bytes=base.weights_bytes,
        parameters=costs.parameters,
        context_tokens=int(getattr(costs.config, "max_position_embeddings", 0)),
        data=encoded.conversations.source,
        format=encoded.conversations.format,
        findings=encoded.findings,
        parts=dict(costs.parts),
        method=recipe.tune.method,
        trained_parameters=costs.trained_parameters,
        epochs=costs.epochs,
        device=device,
        precision="bf16" if costs.bf16 else "fp32",
        metrics=recipe.tune.metrics,
        schemes=costs.schemes,
        size_bytes=costs.scheme_bytes,
        memory_bytes=costs.memory_bytes,
        work_bytes=costs.work_bytes,
        threads=usable_cores(),
        missing=llm.missing,
        install=llm.do,
        out=recipe.out,
        replaces=(Path(recipe.out) / "manifest.json").is_file(),
        seconds=costs.seconds,
    )


def _seconds_a_token(model: Any, sample: tuple[EncodedRow, ...], *, bf16: bool) -> float:
    """Of a forward pass in the precision of training, after one that warms up."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
        measure_perplexity(model, sample[:2])
        start = time.perf_counter()
        measure_perplexity(model, sample)
    return (time.perf_counter() - start) / sum(len(row["input_ids"]) for row in sample)


def _trained_parameters(model: Any, recipe: GenerationTuneRecipe) -> int:
    """How many weights the method trains; the model is not fit for anything else afterwards."""
    method = METHODS[recipe.method]
    # PiSSA's start takes a singular value decomposition of every layer, and changes no number.
    options = {name: value for name, value in method.options.items() if name != "init_lora_weights"}
    prepared = replace(method, options=options).prepare(model, recipe)
    return sum(weight.numel() for weight in prepared.parameters() if weight.requires_grad)
