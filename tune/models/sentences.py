"""What a sentence-transformers folder says beside its pooling: further modules, and the prompts of its texts.

Must not import torch: the data set is read by the prompts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetune.serve.errors import ModelError

# Modules that are not lost where a vector is the pooled states scaled to length one, by the end of their type.
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
_E5 = re.compile(r"(^|[/_.-])e5([/_.-]|$)")
_DOCUMENT_NAMES = ("document", "passage", "corpus")


def check_modules(folder: Path) -> None:
    """Refuse a folder whose vectors go through a layer behind the pooling, which would be left out.

    Raises:
        ModelError: naming the module.
    """
    modules = _json(folder / "modules.json")
    for module in modules if isinstance(modules, list) else ():
        kind = str(module.get("type", "")).rpartition(".")[2] if isinstance(module, dict) else ""
        if kind and kind not in KNOWN_MODULES:
            raise ModelError(
                f"modules.json of {folder} has a module {kind!r} behind the pooling, whose weights are not read.",
                expected="Transformer, Pooling and Normalize alone",
                action="choose another --base; without that layer its vectors would be others",
            )


def base_prompts(folder: Path) -> dict[str, str]:
    """What the folder puts before texts, as `query` and `document`; empty where it says nothing of them."""
    settings = _json(folder / "config_sentence_transformers.json")
    prompts = settings.get("prompts") if isinstance(settings, dict) else None
    if not isinstance(prompts, dict):
        return {}
    known = {str(name): text for name, text in prompts.items() if isinstance(text, str) and text}
    document = next((known[name] for name in _DOCUMENT_NAMES if name in known), "")
    chosen = {"query": known.get("query", ""), "document": document}
    return {name: text for name, text in chosen.items() if text}


def unsaid_prompts(base_id: str, prompts: Mapping[str, str]) -> str:
    """A sentence where a base by its name was trained with words before its texts, and none are known; else ""."""
    if prompts or not _E5.search(base_id.casefold()):
        return ""
    return (
        f"{base_id} has the name of a family that was trained with 'query: ' and 'passage: ' before texts, and "
        "neither stands there: data.prompts names them."
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
