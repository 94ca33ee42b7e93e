"""Chat messages to the text that a model was tuned on, by its own Jinja template, as transformers renders it.

Jinja is imported only where a chat is rendered: plain prompts do without it. A template comes with a model and is run
in a sandbox. Must not import transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.errors import BundleDamaged, InputError, MissingDependency
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.messages import Message, template_messages

TEMPLATE_NAME = "chat_template.jinja"
TOKENIZER_CONFIG_NAME = "tokenizer_config.json"

TEMPLATE_VALUES = ("messages", "tools", "documents", "add_generation_prompt")

# What templates do with values that they do not expect: strings added to None, keys and indices that are not there,
# macros that call themselves, texts without end.
_FAILURES = (
    *(TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
    *(RecursionError, MemoryError),
)


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

    @classmethod
    def open(cls, folder: Path) -> ChatTemplate | None:
        """The template of a model's folder: chat_template.jinja, or the default one in tokenizer_config.json.

        Returns:
            None where the model has none.

        Raises:
            BundleDamaged: a file cannot be read.
        """
        settings = _settings(folder / TOKENIZER_CONFIG_NAME)
        special = {name: text for name, value in settings.items() if name.endswith("_token") and (text := _text(value))}
        path = folder / TEMPLATE_NAME
        if path.is_file():
            try:
                return cls(path.read_text("utf-8"), special, origin=str(path))
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
        jinja2 = _jinja2()
        if self._compiled is None:
            try:
                self._compiled = _environment(jinja2).from_string(self.source)
            except (jinja2.TemplateError, RecursionError) as error:
                raise BundleDamaged(
                    f"The chat template {self._origin} is no Jinja template: {error}.",
                    action="put the model's own template there, or ask without a chat",
                ) from error
        values = {
            **(variables or {}),
            **self._special_tokens,
            "messages": plain,
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            text: str = self._compiled.render(values)
        except (jinja2.TemplateError, *_FAILURES) as error:
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


def _jinja2() -> Any:
    try:
        import jinja2
        import jinja2.ext
        import jinja2.nodes
        import jinja2.sandbox
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "A chat is rendered by Jinja, which is not installed.", action="pip install 'jinja2>=3.1.6'"
        ) from error
    return jinja2


def _environment(jinja2: Any) -> Any:
    """The environment that templates are written for (transformers' utils/chat_template_utils.py)."""

    class Generation(jinja2.ext.Extension):  # type: ignore[misc]
        """`{% generation %}` marks the assistant's text in training; here its body is rendered as it stands."""

        tags = {"generation"}  # noqa: RUF012 (read by Jinja from the class)

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models have seen it: Jinja's own filter would escape what HTML reserves."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _settings(path: Path) -> JsonObject:
    if not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
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
