"""Chat messages to the text that a model was tuned on, by its own Jinja template, as transformers renders it.

Jinja is imported only where a chat is rendered: plain prompts do without it. A template comes with a model and is run
in a sandbox. Must not import transformers.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgetune.serve.bundle import MOST_JSON_BYTES, NOT_JSON
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.files import read_regular
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.messages import Message, template_messages
from edgetune.serve.stepwise.sandbox import MOST_SECONDS, MOST_STEPS, Budget, Overrun, environment, jinja

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"

TEMPLATE_VALUES = ("messages", "tools", "documents", "add_generation_prompt")

# What templates do with values that they do not expect: strings added to None, keys and indices that are not there,
# macros that call themselves, texts without end.
_FAILURES = (
    *(TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
    *(RecursionError, MemoryError),
)


class TemplateOverrun(InputError):
    """A template takes more steps or time on a chat than it may."""


class ChatTemplate:
    """A model's template, compiled when a chat is first rendered."""

    def __init__(self, source: str, special_tokens: Mapping[str, str], *, origin: str = TEMPLATE_NAME) -> None:
        """Keep a template.

        Args:
            source: the Jinja text.
            special_tokens: what it may name, "bos_token" for one.
            origin: where it comes from, for messages.
        """
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._origin = origin
        self._compiled: Any = None
        self._budget = Budget()

    @classmethod
    def open(cls, folder: Path, *, listed: Container[str] | None = None) -> ChatTemplate | None:
        """The template of a model's folder: chat_template.jinja, or the default one in tokenizer_config.json.

        Args:
            folder: of a bundle or a model.
            listed: names of the files that may be read; None lets all. Of a bundle, what its manifest lists.

        Returns:
            None where the model has none.

        Raises:
            BundleDamaged: a file cannot be read.
        """

        def is_there(name: str) -> bool:
            return (listed is None or name in listed) and (folder / name).is_file()

        settings = _settings(folder / TOKENIZER_CONFIG_NAME) if is_there(TOKENIZER_CONFIG_NAME) else {}
        special = {name: text for name, value in settings.items() if name.endswith("_token") and (text := _text(value))}
        path = folder / TEMPLATE_NAME
        if is_there(TEMPLATE_NAME):
            try:
                return cls(read_regular(path, MOST_JSON_BYTES).decode("utf-8"), special, origin=str(path))
            except (OSError, UnicodeDecodeError) as error:
                raise BundleDamaged(f"{path} cannot be read: {error}.") from error
        source = _default(settings.get("chat_template"))
        return cls(source, special, origin=str(folder / TOKENIZER_CONFIG_NAME)) if source else None

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The text of a chat, ending where the assistant's next answer begins.

        Args:
            messages: at least one of the user's.
            tools: JSON schemas of functions, for templates that tell of them.
            variables: of the template's own, such as enable_thinking.
            add_generation_prompt: False ends behind the last message instead.

        Raises:
            InputError: the user says nothing, a message has no role, or the template refuses the chat.
            BundleDamaged: the template is no Jinja.
            MissingDependency: jinja2 is not installed.
        """
        plain = _checked(messages, self.source)
        self._check_variables(variables or {})
        compiled = self._compile()
        values = {
            **(variables or {}),
            **self._special_tokens,
            "messages": plain,
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            with self._budget.granted(MOST_STEPS, MOST_SECONDS):
                text: str = compiled.render(values)
        except Overrun as error:
            raise TemplateOverrun(
                f"The chat template {self._origin} takes more than it may on this chat ({_roles(plain)}): {error}.",
                expected=f"at most {MOST_STEPS:,} passes of loops and {MOST_SECONDS:.0f} seconds",
                action="do not use the bundle, or build it again with a template of its own",
            ) from error
        except (jinja().TemplateError, *_FAILURES) as error:
            raise InputError(
                f"The chat template {self._origin} fails on this chat ({_roles(plain)}): "
                f"{str(error) or type(error).__name__}",
                expected="messages in the roles and the order that the template takes",
                action="change the order or the roles of the messages, or mend the template",
            ) from error
        if not text:
            raise InputError(
                f"The chat template {self._origin} writes nothing for this chat ({_roles(plain)}).",
                expected="a template that writes `messages`, each with `role` and `content`",
                action="build the bundle with another template in its recipe",
            )
        return text

    def prove(self) -> None:
        """Render a chat of each shape, so that a template without an end is known before anybody asks for it.

        Raises:
            BundleDamaged: the template is no Jinja, or has no end.
            MissingDependency: jinja2 is not installed.
        """
        user = {"role": "user", "content": "hello"}
        for messages in ([user], [{"role": "system", "content": "be brief"}, user, _HELLO, user]):
            try:
                self.render(messages)
            except TemplateOverrun as error:
                raise BundleDamaged(error.found, expected=error.expected, action=error.action) from error
            except InputError:
                continue  # a template may refuse a chat

    def _compile(self) -> Any:
        if self._compiled is None:
            jinja2 = jinja()
            try:
                self._compiled = environment(self._budget).from_string(self.source)
            except (jinja2.TemplateError, RecursionError, Overrun) as error:
                raise BundleDamaged(
                    f"The chat template {self._origin} is no Jinja template: {error}.",
                    action="put the model's own template there, or ask without a chat",
                ) from error
        return self._compiled

    @property
    def tells_tools(self) -> bool:
        """Whether it writes the tools that are offered."""
        return re.search(r"\btools\b", self.source) is not None

    def _check_variables(self, variables: Mapping[str, Any]) -> None:
        """Refuse those that would change what a chat is rendered with."""
        taken = sorted({*TEMPLATE_VALUES, *self._special_tokens} & set(variables))
        if taken:
            raise InputError(
                f"The variables of the chat template name {', '.join(map(repr, taken))}, which the server sets.",
                expected="variables of the template's own, such as enable_thinking",
            )


_HELLO = {"role": "assistant", "content": "hi"}


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(str(message["role"]) for message in messages)


def _checked(messages: Sequence[Message], template: str) -> list[JsonObject]:
    """The messages as the template takes them, where somebody asks something."""
    plain = template_messages(messages, template)
    if not any(message["role"] == "user" for message in plain):
        raise InputError(
            f"The chat of {len(plain)} message(s) has none of the user's.",
            expected='at least one message with the role "user"',
        )
    if not any(message["role"] == "user" and _says(message.get("content")) for message in plain):
        raise InputError(
            "The prompt is empty: the user's messages say nothing.", expected="words in one of the user's messages"
        )
    return plain


def _says(content: object) -> bool:
    """Whether there are words, or what a template may know beside words."""
    return bool(content.strip() if isinstance(content, str) else content)


def _settings(path: Path) -> JsonObject:
    try:
        return msgspec.json.decode(read_regular(path, MOST_JSON_BYTES), type=dict[str, Any])
    except (OSError, *NOT_JSON) as error:
        raise BundleDamaged(f"{path} cannot be read: {error}") from error


def _text(value: object) -> str | None:
    """A special token as tokenizer_config.json has it: its text, or a table with it."""
    content = value.get("content") if isinstance(value, dict) else value
    return content if isinstance(content, str) else None


def _default(value: Any) -> str | None:
    """The template of that name where there are several."""
    if isinstance(value, list):
        named = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
