"""A model behind an address: OpenAI's routes below /v1, or the Open Inference Protocol below /v2.

By http.client, one connection that is kept: nothing but the standard library and msgspec is needed.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from edgetune.serve.errors import EdgetuneError, InputError

EXAMPLES = (
    "http://HOST:PORT/v1/models/NAME (OpenAI's routes) or http://HOST:PORT/v2/models/NAME (Open Inference Protocol)"
)
TIMEOUT_SECONDS = 300.0
_SHOWN_CHARACTERS = 300


def is_address(name: str) -> bool:
    """Whether a name of a side is an address, and no folder."""
    return name.startswith(("http://", "https://"))


@dataclass(frozen=True)
class Address:
    """Where a model answers.

    Attributes:
        url: as it was given.
        protocol: "v1" for OpenAI's routes, "v2" for the Open Inference Protocol.
        root: the path that the protocol's routes begin with, such as "/v1".
        model: its name; "" to ask the server, which must then have a single one.
    """

    url: str
    protocol: str
    root: str
    model: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Take an address apart.

        Raises:
            InputError: it names neither protocol.
        """
        parts = [unquote(part) for part in urlsplit(url).path.split("/") if part]
        place = next((place for place, part in enumerate(parts) if part in ("v1", "v2")), None)
        rest = parts[place + 1 :] if place is not None else []
        if place is None or rest[:1] not in ([], ["models"]) or len(rest) == 1 or not urlsplit(url).hostname:
            raise InputError(f"The address {url} names no model's routes.", expected=EXAMPLES)
        return cls(url, parts[place], "/" + "/".join(parts[: place + 1]), "/".join(rest[1:]))


class Client:
    """Asks one address; not for several threads.

    Args:
        address: whom to ask.
        key: sent as `Authorization: Bearer`; None sends none.
    """

    def __init__(self, address: Address, key: str | None = None) -> None:
        self.address = address
        parts = urlsplit(address.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        self._headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        self.model = address.model or self._only_model()

    def ask(self, path: str, body: object | None = None) -> Any:
        """The JSON answer of a route below the protocol's root: POST with a body, GET without.

        Raises:
            EdgetuneError: nobody answers there, or with an error or no JSON.
        """
        method = "GET" if body is None else "POST"
        sent = None if body is None else msgspec.json.encode(body)
        for attempt in range(2):
            try:
                self._connection.request(method, self.address.root + path, sent, self._headers)
                reply = self._connection.getresponse()
                content = reply.read()
                break
            except (http.client.HTTPException, OSError) as error:
                self._connection.close()
                # A server may have closed a connection that was kept: that shows at the next request alone.
                kept = isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError))
                if not kept or attempt:
                    raise EdgetuneError(
                        f"{self.address.url} does not answer: {error or type(error).__name__}.",
                        expected="a server that listens there",
                        action="check host and port",
                    ) from error
        if reply.status != 200:
            told = content.decode("utf-8", "replace")[:_SHOWN_CHARACTERS]
            raise EdgetuneError(f"{method} {self.address.root}{path} at {self.address.url} gave {reply.status}: {told}")
        try:
            return msgspec.json.decode(content)
        except msgspec.DecodeError as error:
            raise EdgetuneError(f"{self.address.url} gave no JSON: {error}.", expected=EXAMPLES) from error

    def _only_model(self) -> str:
        if self.address.protocol == "v2":
            raise InputError(f"The address {self.address.url} names no model.", expected=EXAMPLES)
        listed = self.ask("/models")
        names = [str(entry.get("id")) for entry in listed.get("data", [])] if isinstance(listed, dict) else []
        if len(names) != 1:
            raise InputError(
                f"{self.address.url} has {len(names)} models, and the address names none: {', '.join(names[:10])}.",
                expected=EXAMPLES,
            )
        return names[0]

    def infer(self, parts: Sequence[str], inputs: Sequence[Any], output: str) -> list[Any]:
        """The values of one output of the Open Inference Protocol, one for each input, which are texts or pairs.

        Raises:
            EdgetuneError: the server does not answer so.
        """
        rows = [[given] if isinstance(given, str) else list(given) for given in inputs]
        tensors = [
            {"name": part, "datatype": "BYTES", "shape": [len(rows)], "data": [row[place] for row in rows]}
            for place, part in enumerate(parts)
        ]
        answer = self.ask(
            f"/models/{quote(self.model, safe='')}/infer", {"inputs": tensors, "outputs": [{"name": output}]}
        )
        found = [one for one in answer.get("outputs", []) if one.get("name") == output]
        if not found or not isinstance(found[0].get("data"), list):
            raise EdgetuneError(f"{self.address.url} gave no output {output!r}.", expected="a model of the same task")
        data, width = found[0]["data"], len(found[0]["data"]) // max(len(rows), 1)
        return data if len(data) == len(rows) else [data[row * width : (row + 1) * width] for row in range(len(rows))]

    def chat(self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float = 0.0) -> str:
        """The answer to a chat, by /chat/completions.

        Raises:
            EdgetuneError: the server does not answer so.
        """
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": temperature}
        try:
            return str(self.ask("/chat/completions", body)["choices"][0]["message"]["content"] or "")
        except (KeyError, IndexError, TypeError) as error:
            raise EdgetuneError(f"{self.address.url} gave no chat completion.", expected=EXAMPLES) from error

    def complete(self, prompt: str, *, max_tokens: int) -> str:
        """The greedy continuation of a text, by /completions.

        Raises:
            EdgetuneError: the server does not answer so.
        """
        body = {"model": self.model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        try:
            return str(self.ask("/completions", body)["choices"][0]["text"])
        except (KeyError, IndexError, TypeError) as error:
            raise EdgetuneError(f"{self.address.url} gave no completion.", expected=EXAMPLES) from error

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def key_of(variable: str | None) -> str | None:
    """The key in an environment variable; None without one.

    Raises:
        InputError: the variable is not set.
    """
    if variable is None:
        return None
    if not os.environ.get(variable):
        raise InputError(f"The environment has no {variable}.", action=f"export {variable}=...")
    return os.environ[variable]
