"""How chats become text: the recipe's chat template, the model's own, or a named one; and where in it answers stand.

An answer is found by the template's own `{% generation %}` marks, else by rendering the chat up to it and behind it:
only a span that both renderings confirm is learnt. Nothing is searched for by its words, which may come twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import jinja2
from transformers.utils.chat_template_utils import render_jinja_template

from edgetune.serve.errors import EdgetuneError, ModelError, RecipeError
from edgetune.serve.stepwise.messages import template_messages
from edgetune.tune.stepwise.chats import Chat, Turn, message
from edgetune.tune.stepwise.named_templates import NAMED_TEMPLATES, named_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What templates do with what they do not expect: text added to None, keys and indices that are not there, macros that
# call themselves, texts without end.
_TEMPLATE_ERRORS = (
    *(jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
    *(RecursionError, MemoryError),
)
_TRIAL = (Turn("user", "Which fruit?"), Turn("assistant", "Pears."))


class TemplateFault(Exception):
    """A template cannot render a chat; the words say why."""


@dataclass(frozen=True)
class ChatTemplate:
    """A chat template.

    Args:
        text: Jinja, as a tokenizer's `chat_template` is.
        origin: whose it is, for messages.
        findings: what there is to say about how it was found.
    """

    text: str
    origin: str
    findings: tuple[str, ...] = ()

    @property
    def marks_answers(self) -> bool:
        """Whether it says itself which text the assistant writes."""
        return MARKS_ANSWERS.search(self.text) is not None


@dataclass(frozen=True)
class AnswerSpan:
    """Where an answer begins and ends in a text, and where its turn does, which may close behind it; in characters."""

    start: int
    end: int
    turn_end: int


@dataclass(frozen=True)
class Rendered:
    """A chat as text.

    Args:
        spans: of each answer that is learnt.
        unconfirmed: answers that stand there and could not be told from the rest.
        left_out: what the template did not write, such as "system turn" or "reasoning text", one each.
    """

    text: str
    spans: tuple[AnswerSpan, ...]
    unconfirmed: int = 0
    left_out: tuple[str, ...] = ()


def choose_template(
    tokenizer: PreTrainedTokenizerBase,
    source: str | None,
    fallback: str = "plain",
    variables: Mapping[str, object] = MappingProxyType({}),
) -> ChatTemplate:
    """The recipe's template, else the model's own, else the named one `fallback`; tried on a small chat.

    Args:
        tokenizer: a transformers tokenizer.
        source: a name, Jinja text or a file, by the recipe.
        variables: of the template's own, by the recipe; they become its defaults, wherever it is rendered.

    Raises:
        RecipeError: what the recipe names is no template, or a variable is none of its own.
        ModelError: the model's own template fails, or answers could not end since the tokenizer has no EOS token.
    """
    own = _own_template(tokenizer)
    if source is not None:
        replaced = ("The recipe's chat template is used in place of the model's own.",) if own else ()
        template = ChatTemplate(_source_text(source, tokenizer), "the recipe's", replaced)
    elif own:
        template = ChatTemplate(own, "the model's own", ("Chats are written by the model's own chat template.",))
    else:
        finding = f"The model has no chat template: the one named {fallback!r} is used, and saved with the model."
        template = ChatTemplate(_named(fallback, tokenizer), f"edgetune's {fallback!r}", (finding,))
    template = _with_variables(template, variables)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "The tokenizer has no EOS token, so that a model could not learn where an answer ends.",
            expected="a tokenizer whose eos_token is set.",
            action="set eos_token in its tokenizer_config.json.",
        )
    try:
        written = render(tokenizer, template, Chat(_TRIAL))
    except TemplateFault as fault:
        raise _unusable(template, f"cannot render a question and its answer: {fault}") from fault
    if written.left_out:
        raise _unusable(
            template,
            f"leaves out the words of the {' and the '.join(noun.removesuffix(' turn') for noun in written.left_out)}",
        )
    return template


def _with_variables(template: ChatTemplate, variables: Mapping[str, object]) -> ChatTemplate:
    """The template with defaults for some of its variables, which who renders it may still set otherwise."""
    unknown = [name for name in variables if not re.search(rf"\b{name}\b", template.text)]
    if unknown:
        raise RecipeError(
            f"data.chat_template_kwargs names {', '.join(map(repr, unknown))}, and the chat template "
            f"({template.origin}) does not.",
            expected="variables that the template reads",
            action="leave them out of data.chat_template_kwargs",
        )
    if not variables:
        return template
    settings = "".join(
        f"{{% if {name} is not defined %}}{{% set {name} = {_literal(value)} %}}{{% endif %}}"
        for name, value in variables.items()
    )
    # Jinja takes a line break off that follows a block.
    text = settings + "\n" * template.text.startswith("\n") + template.text
    named = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in variables.items())
    return replace(template, text=text, findings=(*template.findings, f"The chat template is rendered with {named}."))


def _literal(value: object) -> str:
    """A value of YAML as Jinja writes it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(str(name))}: {_literal(inner)}' for name, inner in value.items())}}}"
    return json.dumps(value if isinstance(value, bool | int | float) else str(value), ensure_ascii=False)


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    # A checkpoint may have several by name; the tokenizer knows which is the usual one.
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


def _source_text(source: str, tokenizer: PreTrainedTokenizerBase) -> str:
    if source in NAMED_TEMPLATES:
        return _named(source, tokenizer)
    if "{%" in source or "{{" in source:
        return source
    try:
        return Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # a path may hold what no file's name does
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RecipeError(
            f"data.template names {source!r:.200}, which is no chat template: {reason}.",
            expected=f"Jinja text, a file of it in UTF-8, or one of {', '.join(NAMED_TEMPLATES)}.",
            action="mend data.template.",
        ) from error


def _named(name: str, tokenizer: PreTrainedTokenizerBase) -> str:
    return named_template(name, with_bos=begins_with_bos(tokenizer))


def begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its BOS token before every text by itself."""
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def _unusable(template: ChatTemplate, reason: str) -> EdgetuneError:
    kind = RecipeError if template.origin == "the recipe's" else ModelError
    return kind(
        f"The chat template ({template.origin}) {reason}.",
        expected="a Jinja template that writes `messages`, each with `role` and `content`.",
        action="give another with --set data.template=FILE, or a named one: " + ", ".join(NAMED_TEMPLATES) + ".",
    )


def render(tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, chat: Chat) -> Rendered:
    """The chat as text, with the places of its answers.

    Raises:
        TemplateFault: the template fails on it.
    """
    if template.marks_answers:
        text, marked = _render(tokenizer, template, chat.turns, chat.tools, marks=True)
        spans, unconfirmed = _marked_spans(tokenizer, template, chat, text, marked)
    else:
        text, _ = _render(tokenizer, template, chat.turns, chat.tools)
        candidates = [_confirmed_span(tokenizer, template, chat, answer, text) for answer in chat.answers]
        spans = tuple(span for span in candidates if span is not None)
        unconfirmed = len(candidates) - len(spans)
    left_out = [f"{turn.role} turn" for turn in chat.turns if turn.content.strip() not in text]
    left_out += ["reasoning text" for turn in chat.turns if turn.reasoning.strip() not in text]
    return Rendered(text, spans, unconfirmed, tuple(left_out))


def prompt_text(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, turns: Sequence[Turn], tools: str = ""
) -> str:
    """The turns as text up to where the assistant's next answer begins.

    Raises:
        TemplateFault: the template fails on them.
    """
    return _render(tokenizer, template, turns, tools, prompt=True)[0]


def _marked_spans(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    chat: Chat,
    whole: str,
    marked: Sequence[tuple[int, int]],
) -> tuple[tuple[AnswerSpan, ...], int]:
    """The spans that the template marks, without those of answers that are context alone, and how many are missing."""
    written = [i for i, turn in enumerate(chat.turns) if turn.role == "assistant"]
    if len(marked) != len(written):
        # Which mark is whose cannot be told; that matters only where one of them is not to be learnt.
        spans = tuple(AnswerSpan(start, end, end) for start, end in marked if end > start)
        if not all(chat.turns[i].learnt for i in written):
            return (), len(chat.answers)
        return spans, max(len(chat.answers) - len(spans), 0)
    answer_spans = []
    for answer, (start, end) in zip(written, marked, strict=True):
        if answer in chat.answers and end > start:
            after = _render(tokenizer, template, chat.turns[: answer + 1], chat.tools)[0]
            answer_spans.append(AnswerSpan(start, end, len(after) if whole.startswith(after) else end))
    return tuple(answer_spans), len(chat.answers) - len(answer_spans)


def _confirmed_span(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, chat: Chat, answer: int, whole: str
) -> AnswerSpan | None:
    """Where the answer stands, if the chat rendered up to it and the chat rendered with it are how `whole` begins."""
    try:
        before = _render(tokenizer, template, chat.turns[:answer], chat.tools, prompt=True)[0]
        after = _render(tokenizer, template, chat.turns[: answer + 1], chat.tools)[0]
    except TemplateFault:  # a beginning that it takes only with what follows, such as nothing before the first answer
        return None
    confirmed = len(before) < len(after) and after.startswith(before) and whole.startswith(after)
    return AnswerSpan(len(before), len(after), len(after)) if confirmed else None


def _render(
    tokenizer: PreTrainedTokenizerBase,
    template: ChatTemplate,
    turns: Sequence[Turn],
    tools: str,
    *,
    prompt: bool = False,
    marks: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    try:
        texts, marked = render_jinja_template(
            conversations=[template_messages([message(turn) for turn in turns], template.text)],
            tools=json.loads(tools) if tools else None,
            chat_template=template.text,
            add_generation_prompt=prompt,
            return_assistant_tokens_mask=marks,
            **tokenizer.special_tokens_map,
        )
    except _TEMPLATE_ERRORS as error:
        raise TemplateFault(f"{type(error).__name__}: {error}".rstrip(".: ")) from error
    return texts[0], marked[0] if marks else []
