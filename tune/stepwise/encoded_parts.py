"""All parts of a data set as token ids for one model: template, length and packing settled in one place.

What the data section of a recipe says and what a model can take meet here; training gets rows and nothing to decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.stepwise.chats import Chat
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoding import Encoder
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.objectives.pairs import paired_votes
from edgetune.tune.stepwise.objectives.rewards import asked_words
from edgetune.tune.stepwise.packing import pack
from edgetune.tune.stepwise.template import choose_template
from edgetune.tune.stepwise.traces import EncodedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TOKENS = 1_024  # of a row where nothing is said: what a row takes of memory grows with its length


@dataclass(frozen=True)
class EncodedParts:
    """Rows to train on, to choose by and to judge by.

    Args:
        train: packed, with position_ids, where the recipe asks for it; validation and test never are.
        template: the chat template to save with the model; None where the rows are no chats.
        stop_ids: the tokens that answers end with: generation has to stop at these.
        encoder: makes prompts of chats for generated answers.
        packed: whether the training rows are packed; then `check_packing` is due before training.
        findings: what was chosen, cut, dropped and counted.
        refused: chats of all parts that the template cannot render.
        asked: of each part what its rows ask, in words, a row each; none of plain texts.
    """

    train: tuple[EncodedRow, ...]
    validation: tuple[EncodedRow, ...]
    test: tuple[EncodedRow, ...]
    template: str | None
    stop_ids: tuple[int, ...]
    encoder: Encoder
    packed: bool
    findings: tuple[str, ...]
    refused: tuple[Chat, ...] = ()
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def encode_parts(
    conversations: Conversations,
    recipe: ConversationRecipe,
    tokenizer: PreTrainedTokenizerBase,
    *,
    context_tokens: int,
    vocabulary: int,
) -> EncodedParts:
    """Encode what `recipe` gave for a model with this tokenizer.

    Args:
        context_tokens: the longest input of the model.
        vocabulary: how many tokens it knows.

    Raises:
        RecipeError: rows may be longer than the model's context, or the template is none.
        DataError: a template fails on all rows of a part or on most of the training rows, or a part has nothing to
            learn from.
        ModelError: the tokenizer does not fit the model or cannot be used.
    """
    template = None
    if conversations.kind == "chat":
        fallback = FORMATS[conversations.format].template
        template = choose_template(tokenizer, conversations.template, fallback, recipe.chat_template_kwargs)
    elif recipe.chat_template_kwargs:
        raise RecipeError(
            f"data.chat_template_kwargs is given, and the rows are no chats but of the kind {conversations.kind!r}.",
            expected="chats, which a template renders",
            action="leave data.chat_template_kwargs out, or give data.template",
        )
    most = _most_tokens(recipe, context_tokens, tokenizer)
    encoder = Encoder(
        tokenizer,
        conversations.kind,
        template,
        max_tokens=most,
        over_long=recipe.over_long,
        separator=conversations.separator,
        vocabulary=vocabulary,
    )
    named = {"train": conversations.train, "validation": conversations.validation, "test": conversations.test}
    parts = {name: encoder.encode(chats, name) for name, chats in named.items() if chats}
    findings = [
        *(template.findings if template else ()),
        *(finding for part in parts.values() for finding in part.findings),
    ]
    rows = {name: part.rows for name, part in parts.items()}
    if conversations.judged == "votes":
        for name in [part for part in rows if part != "train"]:
            rows[name], finding = _judging_pairs(rows[name], name)
            findings.append(finding)
    if recipe.packing and conversations.judged:
        raise RecipeError(
            "data.packing is true, and the rows are judged answers.", expected="rows that are not packed for these"
        )
    if recipe.packing:
        rows["train"], finding = _packed(rows["train"], most)
        findings.append(finding)
    return EncodedParts(
        train=rows["train"],
        validation=rows.get("validation", ()),
        test=rows.get("test", ()),
        template=template.text if template else None,
        stop_ids=parts["train"].stop_ids,
        encoder=encoder,
        refused=tuple(chat for part in parts.values() for chat in part.refused),
        packed=recipe.packing,
        asked={}
        if conversations.kind == "text" or conversations.judged == "votes"
        else {name: tuple(asked_words(chat.turns[:-1]) for chat in part.chats) for name, part in parts.items()},
        findings=tuple(findings),
    )


def _judging_pairs(rows: Sequence[EncodedRow], name: str) -> tuple[tuple[EncodedRow, ...], str]:
    """Held-out votes as pairs of a liked and a disliked answer, which judge."""
    pairs, left = paired_votes(rows)
    if not pairs:
        raise DataError(
            f"The {title(name)} has {counted(len(rows), 'vote')}, all of one kind.",
            expected="answers that were liked and answers that were not, in every part.",
            action=f"add rows, or name a file of both with --set data.{name}=...",
        )
    rest = f"; {counted(left, 'vote')} without a partner left out" if left else ""
    return tuple(
        pairs
    ), f"Paired the votes of the {title(name)}, liked with disliked: {counted(len(pairs), 'pair')}{rest}."


def _packed(rows: Sequence[EncodedRow], most: int) -> tuple[tuple[EncodedRow, ...], str]:
    packed = tuple(pack(rows, most))
    filled = sum(len(row["input_ids"]) for row in packed) / (most * len(packed))
    count = counted(len(packed), "sequence")
    return packed, (
        f"Packed {counted(len(rows), 'training row')} into {count} of at most {most:,} tokens, {filled:.0%} full."
    )


def _most_tokens(recipe: ConversationRecipe, context_tokens: int, tokenizer: PreTrainedTokenizerBase) -> int:
    # A tokenizer that knows no limit gives a number far beyond any context.
    limit = min(context_tokens, tokenizer.model_max_length)
    if recipe.max_tokens == "auto":
        return min(limit, MOST_TOKENS)
    if recipe.max_tokens > limit:
        raise RecipeError(
            f"data.max_tokens is {recipe.max_tokens:,}, and the model takes {limit:,} tokens.",
            expected=f"at most {limit:,}, or auto.",
            action=f"--set data.max_tokens={limit}",
        )
    return recipe.max_tokens
