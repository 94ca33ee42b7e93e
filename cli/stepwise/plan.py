"""What the build of a language model would do, with sizes, memory and a time estimate, without doing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from edgetune.clock import choose_clock
from edgetune.export.once.pack import check_place
from edgetune.export.stepwise.trial import check_exportable
from edgetune.extras import Extra, installed_extras
from edgetune.plan import Plan
from edgetune.serve.cores import usable_cores
from edgetune.stepwise.costs import PartTokens, StepwiseCosts
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.data.dataset import PART_NAMES
from edgetune.tune.models.base import Base, find_base
from edgetune.tune.stepwise.context import position_limit
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import open_pretrained
from edgetune.tune.stepwise.objectives import OBJECTIVES
from edgetune.tune.stepwise.objectives.rewards import Rewards
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.memory import told_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLE, ENOUGH_SECONDS = 16, 0.5  # most rows and time of the timed passes


def plan(recipe: StepwiseRecipe) -> Plan:
    """See `edgetune.plan.make_plan`; rows are encoded as in a build, so that what would be cut is counted."""
    check_place(Path(recipe.out))
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    check_base(recipe, base)
    conversations = Conversations.load(recipe.data, seed=recipe.seed)
    check_objective(recipe, conversations)
    Rewards.open(recipe.tune.reward)  # what is missing there is told now, and not by the build
    encoded = EncodedConversations.of(conversations, base, recipe.data, trust_remote_code=recipe.tune.trust_remote_code)
    costs = estimate(recipe, base, encoded)
    llm, parts = installed_extras()["llm"], costs.parts
    context = position_limit(costs.config) or 0
    return Plan(
        base=base.id,
        base_bytes=base.weights_bytes,
        parameters=costs.parameters,
        data=conversations.source,
        findings=encoded.findings,
        rows={name: part.rows for name, part in parts.items()},
        method=recipe.tune.method,
        epochs=costs.epochs,
        device=costs.device,
        precision="bf16" if costs.bf16 else "fp32",
        schemes=costs.schemes,
        size_bytes=costs.scheme_bytes,
        work_bytes=costs.work_bytes,
        threads=usable_cores(),
        out=recipe.out,
        replaces=(Path(recipe.out) / "manifest.json").is_file(),
        seconds=costs.seconds,
        facts={
            "format": conversations.format,
            "parts": {name: asdict(part) for name, part in parts.items()},
            "context_tokens": context,
            "trained_parameters": costs.trained_parameters,
            "metrics": recipe.tune.metrics,
            "memory_bytes": costs.memory_bytes,
            "missing": llm.missing,
            "install": llm.do,
        },
        words=_words(costs, conversations, context),
        more=_more_lines(costs, llm),
        basis="a few timed passes, as if the first scheme passed",
    )


def check_base(recipe: StepwiseRecipe, base: Base) -> None:
    """Refuse a base of which no graph can be made, before anything is tuned.

    Raises:
        ModelError: it cannot be exported.
    """
    code = recipe.tune.trust_remote_code
    check_exportable(base, trust_remote_code=code, batch_one=recipe.export.batch == "one")


def check_objective(recipe: StepwiseRecipe, conversations: Conversations) -> None:
    """Refuse rows that cannot teach the recipe's objective.

    Raises:
        DataError: with what they could teach.
    """
    OBJECTIVES[recipe.tune.objective].check(conversations.judged, conversations.kind, conversations.source)


def _words(costs: StepwiseCosts, conversations: Conversations, context: int) -> dict[str, str]:
    longest = ", ".join(f"{part.longest_tokens:,} {name}" for name, part in costs.parts.items() if part.rows)
    share = costs.trained_parameters / costs.parameters
    metrics = costs.recipe.tune.metrics
    scored = f"; answers scored by {', '.join(metrics)}" if metrics else ""
    return {
        "data": f"{conversations.format}; longest row in tokens: {longest}",
        "base": f", {context:,} tokens of context",
        "tune": f"{costs.trained_parameters:,} weights trained ({share:.1%} of the model's number){scored}",
        "compress": "until one passes the gate",
    }


def _more_lines(costs: StepwiseCosts, llm: Extra) -> list[tuple[str, str]]:
    gpu = ", the GPU's and this computer's together" if costs.device == "cuda" else ""
    memory = ("memory", f"about {costs.memory_bytes / 1e9:.1f} GB at its peak, roughly{gpu}")
    if not llm.missing:
        return [memory]
    return [memory, ("install", f"the extra [llm] lacks {', '.join(llm.missing)}: {llm.do}")]


def estimate(recipe: StepwiseRecipe, base: Base, encoded: EncodedConversations) -> StepwiseCosts:
    """What a build will cost; opens the base and times a few passes."""
    tune, device = recipe.tune, choose_device(recipe.device)
    bf16 = fast_bf16(device) if tune.precision == "auto" else tune.precision == "bf16"
    train = encoded.parts.train
    with (
        told_out_of_memory(device, lambda: ["tune.batch_size"]),
        torch.random.fork_rng(),
    ):  # the build itself draws as if nothing had been timed
        model = open_pretrained(base, trust_remote_code=tune.trust_remote_code).to(device)
        config, parameters = model.config.get_text_config(), sum(weight.numel() for weight in model.parameters())
        forward = _forward_seconds(model, train[:SAMPLE], bf16=bf16)
        prepared = _prepared(model, tune)
        step = _step_seconds(prepared, train[:SAMPLE], bf16=bf16)
    return StepwiseCosts(
        recipe=recipe,
        config=config,
        parts={name: PartTokens.of(getattr(encoded.parts, name)) for name in PART_NAMES},
        forward_seconds=forward,
        step_seconds=step,
        parameters=parameters,
        trained_parameters=sum(weight.numel() for weight in prepared.parameters() if weight.requires_grad),
        epochs=tune.passes(len(train)),
        device=device,
        bf16=bf16,
    )


def _forward_seconds(model: PreTrainedModel, sample: Sequence[EncodedRow], *, bf16: bool) -> float:
    """Of a token of a forward pass in the precision of training."""

    def forward(row: EncodedRow) -> None:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=bf16):
            measure_perplexity(model, [row])

    return _token_seconds(forward, sample, model.device.type)


def _step_seconds(model: PreTrainedModel, sample: Sequence[EncodedRow], *, bf16: bool) -> float:
    """Of a token of a training step, but for the optimizer's part."""
    device = model.device

    def step(row: EncodedRow) -> None:
        ids = torch.tensor([row["input_ids"]], device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            logits = model(input_ids=ids).logits
        logits.float().square().mean().backward()
        model.zero_grad()

    model.train()
    return _token_seconds(step, sample, device.type)


def _token_seconds(run: Callable[[EncodedRow], None], sample: Sequence[EncodedRow], device: str) -> float:
    """Row after row until enough time has passed, after a short one that chooses the clock."""
    shortest = min(sample, key=lambda row: len(row["input_ids"]))
    clock = choose_clock(partial(run, shortest), device)
    seconds, tokens = 0.0, 0
    for row in sample:
        seconds += clock(partial(run, row))
        tokens += len(row["input_ids"])
        if seconds > ENOUGH_SECONDS:
            break
    return seconds / tokens


def _prepared(model: PreTrainedModel, recipe: GenerationTuneRecipe) -> PreTrainedModel:
    """The model with what the method trains; not fit for anything else afterwards."""
    method = METHODS[recipe.method]
    if method.name == "pissa":  # whose start takes a singular value decomposition of every layer, and changes no number
        method = METHODS["lora"]
    return method.prepare(model, recipe)
