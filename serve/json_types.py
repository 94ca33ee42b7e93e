"""The type of a JSON object that others have laid out: a body, a config.json, a tokenizer.json."""

from __future__ import annotations

from typing import Any

# Its members are of any JSON type, and are checked where they are used.
JsonObject = dict[str, Any]
