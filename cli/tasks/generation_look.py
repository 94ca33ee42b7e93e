"""What a look at texts or chats shows, and the commented recipe of a language model that repeats it.

Reads through the same code as a build, so that what is said here is what a build will do. Tokens are counted where the
base is on this machine; nothing is fetched for a look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.recipe_text import comment, comments, lines_of, scalar, stem
from edgetune.tasks.generation_recipe import GenerationRecipe
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

TEMPLATE = """\
# A recipe for edgetune, written from a look at {source}. To run it: edgetune build {place}
#
# What was found:
{findings}

# A decoder with its head (Llama, Qwen, Gemma, Phi, GPT-2, SmolLM kinds): a folder or a hub id.
base: {base}
task: text-generation

data:
{data}  # Training, validation and test; rows that ask the same stay together; only for the parts that are not given.
  split: {split}
  clean: {clean}
{hints}
tune:
  method: lora      # or rslora, dora, pissa, loraplus, qlora (least memory), freeze, full
  epochs: auto
  metrics: []       # of generated answers: bleu, chrf, rouge_l, exact_match, or file.py:function; edgetune[llm]

compress:
  schemes: auto     # int4_g128, int4, int4_head8, int8, fp32: the first that passes the gate is packed

gate:
  max_rise: 0.02    # a bundle's perplexity may rise by two percent, no more
  confidence: 0.95

benchmark: {{}}
seed: 0
out: {out}
"""

# What a user may want to change next, by key; those that are said already stand among the values.
_HINTS = {
    "template": "plain  # of chats: Jinja text, a file or a name; without it the model's own, where it has none plain",
    "max_tokens": "auto  # of a row: the model's context, at most 1,024",
    "over_long": "cut  # or drop",
    "packing": "false  # several short rows in one sequence: faster",
}


@dataclass(frozen=True)
class GenerationLook:
    """Texts or chats as a build would read them; `encoded` only where the base is on this machine."""

    base: str
    recipe: ConversationRecipe
    columns: Mapping[str, str]
    conversations: Conversations
    encoded: EncodedConversations | None

    @classmethod
    def of(cls, data: Mapping[str, Any], base: str | None) -> GenerationLook:
        """Read the data; see `edgetune.look.look_at`."""
        base = base or FIRST_BASE
        recipe = GenerationRecipe.of_values({"base": base, "data": data}, None).data
        raw = read_raw_parts(Named(recipe.source, recipe.validation, recipe.test), recipe.said)
        columns = choose_format(raw.train, recipe.format, recipe.columns).columns
        conversations = Conversations.of_rows(raw, recipe, 0)
        encoded = _encoded(conversations, base, recipe) if Path(base).is_dir() else None
        return cls(base, recipe, columns, conversations, encoded)

    @property
    def findings(self) -> list[str]:
        """What reading and encoding found."""
        if self.encoded is None:
            return [*self.conversations.findings, NOT_COUNTED]
        return list(self.encoded.findings)

    def recipe_text(self, place: Path) -> str:
        """A commented recipe as YAML; `place` is where it will stand."""
        values = self._data_values()
        hints = {key: hint for key, hint in _HINTS.items() if key not in values}
        if self.conversations.kind != "chat":
            hints.pop("template", None)
        return TEMPLATE.format(
            source=comment(self.recipe.source),
            place=place,
            findings=comments(self.findings),
            base=scalar(self.base),
            data=lines_of(values, {}),
            split=scalar(list(self.recipe.split)),
            clean=scalar(self.recipe.clean.model_dump()),
            hints="".join(f"  # {key}: {hint}\n" for key, hint in hints.items()),
            out=scalar(f"bundles/{stem(self.recipe.source)}"),
        )

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        found = self.conversations
        return {
            "source": found.source,
            "format": found.format,
            "columns": dict(self.columns),
            "rows": {name: len(getattr(found, name)) for name in PART_NAMES},
            "tokens": self._tokens(),
            "digest": found.digest,
            "findings": self.findings,
        }

    def _tokens(self) -> dict[str, int] | None:
        """All tokens of each part, or None where they were not counted."""
        if self.encoded is None:
            return None
        parts = {name: getattr(self.encoded.parts, name) for name in PART_NAMES}
        return {name: sum(len(row["input_ids"]) for row in rows) for name, rows in parts.items()}

    def _data_values(self) -> dict[str, Any]:
        """What the user said, and without what a build would have to guess again."""
        said = self.recipe.model_dump(mode="json", exclude_unset=True, exclude={"split", "clean"})
        return {**said, "format": self.conversations.format, "columns": dict(self.columns)}


def _encoded(conversations: Conversations, base: str, recipe: ConversationRecipe) -> EncodedConversations:
    from edgetune.tune.stepwise.encoded import EncodedConversations
    from edgetune.tune.stepwise.model import language_config

    found = find_base(base)
    language_config(found)  # an encoder is refused before its tokens are told
    return EncodedConversations.of(conversations, found, recipe)
