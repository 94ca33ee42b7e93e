"""What a look at texts or chats shows. Tokens are counted where the base is on this machine; nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.look import Look, given_values
from edgetune.serve.json_types import JsonObject
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.data.dataset import PART_NAMES
from edgetune.tune.data.sources import Named
from edgetune.tune.models.base import find_base
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.format_choice import choose_format
from edgetune.tune.stepwise.raw_parts import read_raw_parts

if TYPE_CHECKING:
    from edgetune.tune.stepwise.encoded import EncodedConversations

FIRST_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
NOT_COUNTED = "Tokens were not counted: the base is not on this machine; edgetune build --plan counts them."

SPLIT_REMARK = (
    "Training, validation and test; rows that ask the same stay together; only for the parts that are not given."
)

SECTIONS = """\
tune:
  method: lora      # or rslora, dora, pissa, loraplus, qlora (least memory), freeze, full
  epochs: auto
  metrics: []       # of generated answers: bleu, chrf, rouge_l, exact_match, or file.py:function; edgetune[llm]

compress:
  schemes: auto     # int4_g128, int4, int4_head8, mixed, int8, fp32: the first that passes the gate is packed

gate:
  max_rise: 0.02    # a bundle's perplexity may rise by two percent, no more
  confidence: 0.95
"""

# What a user may want to change next, by key; those that are given already stand among the values.
_HINTS = {
    "template": "plain  # of chats: Jinja text, a file or a name; without it the model's own, where it has none plain",
    "max_tokens": "auto  # of a row: the model's context, at most 1,024",
    "over_long": "cut  # or drop",
    "packing": "false  # several short rows in one sequence: faster",
}


def look(task: str, data: JsonObject, base: str | None) -> Look:
    """Read the data; see `edgetune.look.look_at`."""
    base = base or FIRST_BASE
    recipe = StepwiseRecipe.of_values({"base": base, "task": task, "data": data}, None).data
    raw = read_raw_parts(Named(recipe.source, recipe.validation, recipe.test), recipe.file_options)
    columns = dict(choose_format(raw.train, recipe.format, recipe.columns).columns)
    conversations = Conversations.of_rows(raw, recipe, 0)
    encoded = _encoded(conversations, base, recipe) if Path(base).is_dir() else None
    findings = encoded.findings if encoded else (*conversations.findings, NOT_COUNTED)
    values = {**given_values(recipe), "format": conversations.format, "columns": columns}
    facts = {
        "source": conversations.source,
        "format": conversations.format,
        "columns": columns,
        "rows": {name: len(getattr(conversations, name)) for name in PART_NAMES},
        "tokens": _tokens(encoded),
        "digest": conversations.digest,
        "findings": list(findings),
    }
    return Look(
        task=task,
        base=base,
        recipe=recipe,
        findings=tuple(findings),
        facts=facts,
        base_remark="A decoder with its head (Llama, Qwen, Gemma, Phi, GPT-2, SmolLM kinds): a folder or a hub id.",
        values=values,
        split_remark=SPLIT_REMARK,
        hints=_hints(values, conversations),
        sections=SECTIONS,
    )


def _hints(values: JsonObject, conversations: Conversations) -> str:
    hints = {key: hint for key, hint in _HINTS.items() if key not in values}
    if conversations.kind != "chat":
        hints.pop("template", None)
    return "".join(f"  # {key}: {hint}\n" for key, hint in hints.items())


def _tokens(encoded: EncodedConversations | None) -> dict[str, int] | None:
    """All tokens of each part, or None where they were not counted."""
    if encoded is None:
        return None
    parts = {name: getattr(encoded.parts, name) for name in PART_NAMES}
    return {name: sum(len(row["input_ids"]) for row in rows) for name, rows in parts.items()}


def _encoded(conversations: Conversations, base: str, recipe: ConversationRecipe) -> EncodedConversations:
    from edgetune.tune.stepwise.encoded import EncodedConversations
    from edgetune.tune.stepwise.model import language_config

    model = find_base(base)
    language_config(model)  # an encoder is refused before its tokens are counted
    return EncodedConversations.of(conversations, model, recipe)
