"""A data set as one base takes it: its tokenizer, which carries the template of chats, and every part encoded.

Made again in each stage that needs it, since encoding costs less than keeping. Imports transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.tune.data.slices import frozen_rows
from edgetune.tune.models.base import Base, read_config
from edgetune.tune.stepwise.chats import Chat
from edgetune.tune.stepwise.context import context_finding, position_limit
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded_parts import MOST_TOKENS, EncodedParts, encode_parts
from edgetune.tune.stepwise.tokenizer import open_language_tokenizer
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.stepwise.tuning import LanguageRows


@dataclass(frozen=True)
class EncodedConversations:
    """A data set, the tokenizer that encoded it, its rows, and what there is to say about the base's context."""

    conversations: Conversations
    tokenizer: Any
    parts: EncodedParts
    context: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, conversations: Conversations, base: Base, recipe: ConversationRecipe, *, trust_remote_code: bool = False
    ) -> EncodedConversations:
        """Encode every part with the base's tokenizer.

        Raises:
            DataError, ModelError, RecipeError: as `encode_parts` does.
        """
        tokenizer = open_language_tokenizer(base, trust_remote_code=trust_remote_code)
        config = read_config(base, trust_remote_code=trust_remote_code).get_text_config()
        parts = encode_parts(
            conversations,
            recipe,
            tokenizer,
            context_tokens=position_limit(config) or MOST_TOKENS,
            vocabulary=int(config.vocab_size),
        )
        if parts.template is not None:
            tokenizer.chat_template = parts.template
        return cls(conversations.without(parts.refused), tokenizer, parts, context_finding(config))

    @property
    def findings(self) -> tuple[str, ...]:
        """What reading and encoding found, one sentence each."""
        return (*self.conversations.findings, *self.context, *self.parts.findings)

    @property
    def judging(self) -> tuple[EncodedRow, ...]:
        """The rows of the test part; of the validation part where there is no test part."""
        return self.parts.test or self.parts.validation

    def language_rows(self, most_judged: int, seed: int) -> LanguageRows:
        """The rows as tuning takes them; at most `most_judged` of the test part, drawn by `seed`."""
        parts, asked = self.parts, dict(self.parts.asked)
        if "test" in asked:
            asked["test"] = frozen_rows(asked["test"], most_judged, seed)
        return LanguageRows(parts.train, parts.validation, frozen_rows(parts.test, most_judged, seed), asked)

    def prompt_texts(self, chats: Sequence[Chat]) -> list[str]:
        """What each chat asks, as text; of a plain text its own words."""
        return [chat.turns[-1 if self.conversations.kind == "text" else -2].content for chat in chats]
