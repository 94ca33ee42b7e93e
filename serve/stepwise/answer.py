"""One answer while it is made: chooses its tokens, turns them into text, and knows when it ends.

It knows nothing of graphs and threads, so the single stream, the batch and the scheduler share it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.constraint import Constraint
from edgetune.serve.stepwise.lookup import Lookup
from edgetune.serve.stepwise.sampling import Sampler, Sampling, TokenLogprob, token_logprob
from edgetune.serve.stepwise.text import StopStrings, TextStream

# Of a prompt's tokens, where they were asked for; None of the first, which nothing foretells.
PromptLogprobs: TypeAlias = Sequence[TokenLogprob | None]


@dataclass(frozen=True)
class TokenPiece:
    """What is new of an answer. `finish` is None before the end, then "stop" or "length".

    Attributes:
        text: to be shown; it may be empty in the last piece.
        token_ids: since the piece before. The token that ends an answer is among them, without text.
        logprobs: of these tokens where they were asked for, else empty.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: str | None = None


@dataclass(frozen=True)
class Generation:
    """A whole answer.

    Attributes:
        text: without the stop string, and without special tokens.
        token_ids: all that were generated, the one that ended the answer included.
        finish: "stop" (an end token or a stop string) or "length" (max_tokens, or the end of the context).
        prompt_tokens: that were answered.
        logprobs: of the tokens where they were asked for, else empty.
        cached_tokens: of the prompt that had been computed before.
        prompt_logprobs: of the prompt's tokens where they were asked for, else empty.
        guessed_tokens: that were run ahead where the generator looks them up, and `right_tokens` of them were right.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: str
    prompt_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    guessed_tokens: int = 0
    right_tokens: int = 0

    @classmethod
    def of(cls, pieces: Iterable[TokenPiece], answer: Answer) -> Generation:
        """Put together the pieces of a whole answer."""
        listed = list(pieces)
        return cls(
            text="".join(piece.text for piece in listed),
            token_ids=tuple(token for piece in listed for token in piece.token_ids),
            finish=(listed[-1].finish if listed else None) or "stop",
            prompt_tokens=len(answer.prompt),
            logprobs=tuple(one for piece in listed for one in piece.logprobs),
            cached_tokens=answer.cached_tokens,
            prompt_logprobs=tuple(answer.prompt_logprobs),
            guessed_tokens=0 if answer.lookup is None else answer.lookup.guessed,
            right_tokens=0 if answer.lookup is None else answer.lookup.right,
        )


@dataclass
class _Unsent:
    text: list[str] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def piece(self, finish: str | None) -> TokenPiece:
        return TokenPiece("".join(self.text), tuple(self.tokens), tuple(self.logprobs), finish)


class Answer:
    """The state of one answer.

    Attributes:
        prompt: its ids.
        token_ids: so far.
        finish: None while it goes on.
        cached_tokens: of the prompt that had been computed before; set by who computed it.
        prompt_logprobs: of the prompt's tokens, where `echo_logprobs` asks for them; set by who computed it.
        lookup: what its tokens are guessed from; set and fed by who guesses.
        adapter: the first cache that it starts from; None where there is none.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        eos_ids: Collection[int],
        vocabulary: int,
        room: int,
        codec: TokenCodec | None = None,
        constraint: Constraint | None = None,
        adapter: str | None = None,
    ) -> None:
        """Begin.

        Args:
            prompt: ids, checked already.
            sampling: how to draw and where to end.
            eos_ids: tokens that end an answer.
            vocabulary: width of the logits.
            room: tokens that the context still takes.
            codec: for text; None gives ids only.
            constraint: on its tokens; None leaves them free.
            adapter: the name of a first cache, as the decoder knows it.
        """
        self.prompt, self.adapter = tuple(prompt), adapter
        self.token_ids: list[int] = []
        self.finish: str | None = None
        self.cached_tokens = 0
        self.prompt_logprobs: list[TokenLogprob | None] = []
        self.echoes = sampling.echo_logprobs and sampling.logprobs is not None
        self.lookup: Lookup | None = None
        self._logprobs = sampling.logprobs
        self._sampler = Sampler(sampling, self.prompt, vocabulary)
        self._eos_ids = frozenset(eos_ids)
        self._most = min(sampling.max_tokens, room)
        self._text = TextStream(codec, self.prompt) if codec else None
        self._stop = StopStrings(sampling.stop)
        self._unsent = _Unsent()
        self._constraint = constraint

    @property
    def left(self) -> int:
        """Tokens that it may still have."""
        return self._most - len(self.token_ids)

    def note_prompt(self, token: int, logits: NDArray[np.float32] | None) -> None:
        """Keep the log-probability of a prompt's token by logits (vocabulary,) float32 before it, if any."""
        self.prompt_logprobs.append(None if logits is None else token_logprob(logits, token, self._logprobs))

    def take(self, logits: NDArray[np.float32]) -> TokenPiece | None:
        """Choose the next token.

        Args:
            logits: (vocabulary,) float32.

        Returns:
            what is new, or None while nothing can be shown yet.

        Raises:
            EdgetuneError: the logits are no numbers.
        """
        constraint = self._constraint
        token, logprob = self._sampler.choose(logits, None if constraint is None else constraint.allowed())
        self.token_ids.append(token)
        self._unsent.tokens.append(token)
        if logprob is not None:
            self._unsent.logprobs.append(logprob)
        stopped = self._show(token)
        if constraint is not None and token not in self._eos_ids:
            constraint.take(token)
        if stopped or token in self._eos_ids or (constraint is not None and constraint.ended):
            self.finish = "stop"
        elif len(self.token_ids) >= self._most:
            self.finish = "length"
        if self.finish and not stopped:
            self._show_rest()
        if not self.finish and not any(self._unsent.text) and self._text is not None:
            return None
        piece, self._unsent = self._unsent.piece(self.finish), _Unsent()
        return piece

    def _show(self, token: int) -> bool:
        """Add the text of a token; whether a stop string has come."""
        if self._text is None or token in self._eos_ids:
            return False
        text, stopped = self._stop.push(self._text.push(token))
        self._unsent.text.append(text)
        return stopped

    def _show_rest(self) -> None:
        """At the end: what was held back, in which a stop string may yet be."""
        if self._text is None:
            return
        text, stopped = self._stop.push(self._text.flush())
        self._unsent.text += [text] if stopped else [text, self._stop.flush()]
        if stopped:
            self.finish = "stop"
