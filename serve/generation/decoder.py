"""A decoder graph that answers token ids with token ids; of text it knows nothing.

One graph does the prompt and each step behind it: keys and values go out of one run into the next as they are.
Needs numpy and onnxruntime only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import BundleDamaged, EdgetuneError, InputError
from edgetune.serve.generation.answer import Answer
from edgetune.serve.generation.cache import Cache, Store, empty_cache
from edgetune.serve.generation.codec import TokenCodec
from edgetune.serve.generation.group import answer_together
from edgetune.serve.generation.sampling import Sampling
from edgetune.serve.generation.spec import GenerationSpec
from edgetune.serve.session import open_session

# Tokens of a prompt that go through the graph at once: attention takes memory by their square, and the speed of matrix
# products has long been reached.
PREFILL_TOKENS = 512

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Logits = NDArray[np.float32]


class Decoder:
    """A session and what its graph is. Thread-safe: it keeps no state between calls.

    Attributes:
        spec: of the graph.
        store: where its caches lie.
    """

    def __init__(
        self,
        graph: Path,
        spec: GenerationSpec,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = True,
    ) -> None:
        """Open a graph; arguments as for `open_session`.

        Raises:
            BundleDamaged: the graph is not the one that the specification tells of.
            EdgetuneError: as `open_session` does.
        """
        self.spec = spec
        self._session: Any = open_session(graph, provider=provider, threads=threads, spinning=spinning)
        taken = {value.name: value for value in self._session.get_inputs()}
        given = {value.name: value for value in self._session.get_outputs()}
        _check_names(graph, spec, taken, given)
        self._outputs = ("logits", *spec.present_names())
        self._takes, self._past = frozenset(taken), spec.past_names()
        past = [taken[name] for name in self._past]
        import onnxruntime

        self.store = Store(
            onnxruntime.OrtValue,
            provider,
            tuple((_size(value.shape[1], spec.kv_heads), _size(value.shape[3], spec.head_dim)) for value in past),
            tuple(_DTYPES[value.type] for value in past),
        )

    def check(self, ids: Sequence[int]) -> None:
        """Refuse a prompt that the graph cannot answer.

        Raises:
            InputError: it is empty, leaves no room in the context, or has ids that the graph does not know.
        """
        if not len(ids):
            raise InputError("The prompt is empty.", expected="at least one token")
        if len(ids) >= self.spec.context_tokens:
            raise InputError(
                f"The prompt has {len(ids):,} tokens.",
                expected=f"at most {self.spec.context_tokens - 1:,}: the context holds {self.spec.context_tokens:,}, "
                "the answer included",
                action="shorten the prompt",
            )
        foreign = [token for token in ids if not 0 <= token < self.spec.vocabulary]
        if foreign:
            raise InputError(
                f"The prompt has token ids that the graph does not know: {foreign[:5]}.",
                expected=f"ids from 0 to {self.spec.vocabulary - 1:,}",
            )

    def room(self, ids: Sequence[int]) -> int:
        """Tokens that the context takes behind a prompt."""
        return self.spec.context_tokens - len(ids)

    def answer(self, ids: Sequence[int], sampling: Sampling, codec: TokenCodec | None = None) -> Answer:
        """The state of an answer to a prompt, which is checked; arguments as for `Answer`."""
        self.check(ids)
        return Answer(
            ids,
            sampling,
            eos_ids=self.spec.eos_ids,
            vocabulary=self.spec.vocabulary,
            room=self.room(ids),
            codec=codec,
        )

    def run(self, ids: NDArray[np.int64], cache: Cache, real: NDArray[np.int64] | None = None) -> tuple[Logits, Cache]:
        """One run of the graph behind a cache.

        Args:
            ids: (rows, tokens) int64.
            cache: of the tokens before, of as many rows.
            real: (rows, tokens) int64, 0 where an id is padding; None has none.

        Returns:
            logits (rows, vocabulary) float32 behind the last token of each row, and the cache with these tokens.

        Raises:
            EdgetuneError: the decoder is closed.
        """
        session = self._session
        if session is None:
            raise EdgetuneError("The decoder is closed.", action="open the bundle again")
        real = np.ones_like(ids) if real is None else real
        mask = np.concatenate((cache.mask, real), axis=1)
        positions = cache.mask.sum(axis=1, keepdims=True) + real.cumsum(axis=1) - 1
        feed = {
            "input_ids": ids,
            "attention_mask": mask,
            # What stands at padding is never looked at; the number is the one that transformers gives it.
            "position_ids": np.where(real == 0, 1, positions),
        }
        # A value shares its array's memory: `fed` keeps both alive until the run is over.
        fed = {
            name: self.store.value(np.ascontiguousarray(array)) for name, array in feed.items() if name in self._takes
        }
        fed.update(zip(self._past, cache.values, strict=True))
        logits, *values = self._given(session, fed)
        return logits.numpy()[:, -1].astype(np.float32, copy=False), Cache(tuple(values), mask)

    def _given(self, session: Any, fed: dict[str, Any]) -> list[Any]:
        """The outputs of a run as OrtValues, the logits on the CPU and the cache where caches lie."""
        if self.store.device == "cpu":  # binding takes a tenth to a fifth of a small model's step
            found: list[Any] = session.run_with_ort_values(list(self._outputs), fed)
            return found
        binding = session.io_binding()
        for name, value in fed.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu" if name == "logits" else self.store.device)
        session.run_with_iobinding(binding)
        outputs: list[Any] = binding.get_outputs()
        return outputs

    def prefill(
        self, prompts: Sequence[Sequence[int]], cache: Cache | None = None, *, chunk: int = PREFILL_TOKENS
    ) -> tuple[Logits, Cache]:
        """Run prompts, the shorter ones padded on the left, in pieces of `chunk` tokens.

        Args:
            prompts: ids of each row, checked, none of them empty.
            cache: of what stands before them, of as many rows; None is nothing.
            chunk: at most so many tokens in a run.

        Returns:
            as `run`.
        """
        longest = max(map(len, prompts))
        real = np.zeros((len(prompts), longest), dtype=np.int64)
        ids = np.full((len(prompts), longest), self.spec.pad_id or 0, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            real[row, longest - len(prompt) :] = 1
        cache = self.empty(len(prompts)) if cache is None else cache
        logits = np.empty((0, 0), dtype=np.float32)
        for start in range(0, longest, chunk):
            stop = start + chunk
            logits, cache = self.run(ids[:, start:stop], cache, real[:, start:stop])
        return logits, cache

    def empty(self, rows: int) -> Cache:
        """The cache before the first token."""
        return empty_cache(self.store, rows)

    def generate_ids(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling | None = None, *, batch_size: int = 8
    ) -> list[list[int]]:
        """Answer prompts, in order, with ids: those that `generate` of transformers gives behind each prompt.

        Args:
            prompts: ids of each.
            sampling: greedy where None.
            batch_size: rows that take their steps together.

        Raises:
            InputError: as `check` does, or stop strings were given, which need text.
        """
        sampling = sampling or Sampling()
        if sampling.stop:
            raise InputError("Stop strings were given where there is no text.", action="use Generator.generate_batch()")
        answers = [self.answer(ids, sampling) for ids in prompts]
        for _ in answer_together(self, answers, batch_size=batch_size):
            pass
        return [answer.token_ids for answer in answers]

    @property
    def providers(self) -> list[str]:
        """The execution providers of the session, as ONNX Runtime names them; none when closed."""
        return list(self._session.get_providers()) if self._session is not None else []

    def close(self) -> None:
        """Free the graph; running it afterwards raises EdgetuneError."""
        self._session = None


def _size(said: object, otherwise: int) -> int:
    """A fixed size of a graph's input, which exporters write as a number or as its digits."""
    return int(said) if isinstance(said, int) or (isinstance(said, str) and said.isdigit()) else otherwise


def _check_names(graph: Path, spec: GenerationSpec, taken: dict[str, Any], given: dict[str, Any]) -> None:
    past, present = spec.past_names(), spec.present_names()
    faults = [f"it does not take {name}" for name in ("input_ids", *past) if name not in taken]
    known = {"input_ids", "attention_mask", "position_ids", *past}
    faults += [f"it takes {name}" for name in taken if name not in known]
    faults += [f"it does not give {name}" for name in ("logits", *present) if name not in given]
    faults += [f"{name} is {taken[name].type}" for name in past if name in taken and taken[name].type not in _DTYPES]
    if "logits" in given and _size(given["logits"].shape[-1], spec.vocabulary) != spec.vocabulary:
        faults.append(f"it gives {given['logits'].shape[-1]} logits instead of {spec.vocabulary:,}")
    if faults:
        shown = "; ".join(faults[:8]) + (f" and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise BundleDamaged(
            f"The graph {graph} is not the decoder that was described: {shown}.",
            expected="a graph and a description that were packed together",
            action="copy the bundle again from where it was built, or build it again",
        )
