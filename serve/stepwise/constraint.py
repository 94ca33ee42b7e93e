"""Answers that are JSON of a schema: before each token those are found that keep the text within it.

By llguidance (its grammars, and masks over the vocabulary), which is imported where an answer is to be constrained, and
needs nothing else. Must not import Jinja or the web server.
"""

from __future__ import annotations

import importlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import InputError, MissingDependency
from edgetune.serve.stepwise.spec import GenerationSpec

# White space between values, at most one character: a model that is unsure would write it without end.
_LAYOUT = {"whitespace_pattern": r"[ \n]?"}
INSTALL = "pip install 'llguidance>=1.9'"


class Constraint:
    """The state of one constrained answer."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    @property
    def ended(self) -> bool:
        """Whether the text is whole, and nothing may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, (vocabulary,) bool."""
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        allowed = np.zeros(self._vocabulary, dtype=np.bool_)
        known = min(self._vocabulary, len(bits))
        allowed[:known] = bits[:known]
        return allowed

    def take(self, token: int) -> None:
        """Go on behind a token that was allowed."""
        self._matcher.consume_token(token)


class Constraints:
    """Makes the constraints of one tokenizer. Thread-safe; what they share is made with the first."""

    def __init__(self, tokenizer: Path, spec: GenerationSpec) -> None:
        self._path, self._spec = tokenizer, spec
        self._lock = threading.Lock()
        self._tokenizer: Any = None

    def of_schema(self, schema: str) -> Constraint:
        """A constraint to JSON of a schema.

        Args:
            schema: a JSON Schema as JSON text; `{"type": "object"}` takes any object.

        Raises:
            InputError: the schema is none, or uses what is not supported.
            MissingDependency: llguidance is not installed.
        """
        try:
            llguidance: Any = importlib.import_module("llguidance")
        except ModuleNotFoundError as error:
            raise MissingDependency(
                "Answers are constrained by llguidance, which is not installed.", action=INSTALL
            ) from error
        with self._lock:
            if self._tokenizer is None:
                spec = self._spec
                self._tokenizer = llguidance.LLTokenizer(
                    str(self._path), n_vocab=spec.vocabulary, eos_token=list(spec.eos_ids) or None
                )
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT)
            fault = llguidance.LLMatcher.validate_grammar(grammar, self._tokenizer)
        except (ValueError, TypeError, RuntimeError) as error:
            fault = str(error)
        if fault:
            raise InputError(
                f"The JSON schema cannot be followed: {str(fault).splitlines()[0]:.200}",
                expected="a JSON Schema of the usual keywords",
            )
        return Constraint(llguidance.LLMatcher(self._tokenizer, grammar), self._spec.vocabulary)
