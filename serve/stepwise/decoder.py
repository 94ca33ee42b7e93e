"""A decoder graph that answers token ids with token ids; of text it knows nothing.

One graph does the prompt and each step behind it: keys and values go out of one run into the next as they are.
Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import BundleDamaged, EdgetuneError, InputError, RunError
from edgetune.serve.forks import never_free
from edgetune.serve.json_types import JsonObject
from edgetune.serve.session import open_session, run_error, session_errors
from edgetune.serve.stepwise.answer import Answer
from edgetune.serve.stepwise.bound import LOGITS_FROM, Bound
from edgetune.serve.stepwise.cache import Cache, Store, Tail, empty_cache, first_cache, gather, with_room
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.constraint import Constraint
from edgetune.serve.stepwise.first_caches import FirstCaches
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnxruntime

# Tokens of a prompt that go through the graph at once: memory grows with them, and the speed of matrix products has
# been reached (512 tokens of a model of 60 M parameters take no less time at once, and 30 MB more).
PREFILL_TOKENS = 128

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
Logits = NDArray[np.float32]


class Decoder:
    """A session and what its graph is. Thread-safe: it keeps no state between calls, but a session of its own in a
    forked child.

    Attributes:
        spec: of the graph.
        store: where its caches lie.
        first: what sequences start from instead of an empty cache, if it has any.
        lookup: whether single answers guess ahead.
    """

    def __init__(
        self,
        graph: Path,
        spec: GenerationSpec,
        *,
        threads: int | None = None,
        provider: str = "cpu",
        spinning: bool = True,
        lookup: bool = False,
    ) -> None:
        """Open a graph; arguments as for `open_session`, and whether single answers guess ahead (lookup.py).

        Raises:
            InputError: the graph gives no logits but the last ones, which guessing ahead needs.
            BundleDamaged: the graph is not the one that the specification tells of.
            EdgetuneError: as `open_session` does.
        """
        self.spec, self._graph = spec, graph.absolute()  # wherever the process goes
        self._open = partial(
            open_session, self._graph, provider=provider, threads=threads, spinning=spinning, varying=True
        )
        self._session: Any = self._open()
        self._lock = threading.Lock()
        self._check_same: Callable[[], object] | None = None  # in a forked child, until it has opened the graph
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
            roomy=spec.in_place and provider == "cpu" and given["logits"].type == "tensor(float)",
            context_tokens=spec.context_tokens + max((one.tokens for one in spec.first_caches), default=0),
        )
        self.first = FirstCaches(graph.parent, spec)
        fed = {value.name for value in self._session.get_overridable_initializers()}
        if lookup and not (self.store.roomy and LOGITS_FROM in fed):
            raise InputError(
                f"The graph {graph} gives the logits behind the last token alone, or makes its cache anew each step.",
                expected="a graph that can take guessed tokens back (lookup)",
                action="build the bundle again with this release, or open it without lookup",
            )
        self.lookup = lookup

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

    def answer(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        codec: TokenCodec | None = None,
        constraint: Constraint | None = None,
        adapter: str | None = None,
    ) -> Answer:
        """The state of an answer to a prompt, which is checked; arguments as for `Answer`, None the first adapter."""
        self.check(ids)
        strangers = [token for token, _ in sampling.logit_bias if token >= self.spec.vocabulary]
        if strangers:
            raise InputError(
                f"The bias names token ids that the graph does not know: {strangers[:5]}.",
                expected=f"ids from 0 to {self.spec.vocabulary - 1:,}",
            )
        return Answer(
            ids,
            sampling,
            eos_ids=self.spec.eos_ids,
            vocabulary=self.spec.vocabulary,
            room=self.room(ids),
            codec=codec,
            constraint=constraint,
            adapter=self.first.name(adapter),
        )

    def run(self, ids: NDArray[np.int64], cache: Cache, real: NDArray[np.int64] | None = None) -> tuple[Logits, Cache]:
        """One run of the graph behind a cache.

        Args:
            ids: (rows, tokens) int64; several tokens of several rows only where the cache has no column.
            cache: of the tokens before, of as many rows.
            real: (rows, tokens) int64, 0 where an id is padding; None has none.

        Returns:
            logits (rows, vocabulary) float32 behind the last token of each row, which hold until the cache with these
            tokens, the second value, is run on.

        Raises:
            EdgetuneError: the decoder is closed.
            RunError: the graph failed.
        """
        session = self._session if self._check_same is None else self._opened_again(self._check_same)
        if session is None:
            raise EdgetuneError("The decoder is closed.", action="open the bundle again")
        try:
            if self.store.roomy:
                return self._run_in_place(session, ids, cache, real)
            return self._run_on(session, ids, cache, real)
        except session_errors() as error:
            raise run_error(str(self._graph), error) from error

    def _run_on(
        self,
        session: onnxruntime.InferenceSession,
        ids: NDArray[np.int64],
        cache: Cache,
        real: NDArray[np.int64] | None,
    ) -> tuple[Logits, Cache]:
        """Give the graph the cache and take a longer one from it."""
        mask, taken = self._feed(ids, cache, real)
        # A value shares its array's memory: `fed` keeps both alive until the run is over.
        fed = {name: self.store.value(np.ascontiguousarray(array)) for name, array in taken.items()}
        fed.update(zip(self._past, cache.values, strict=True))
        result, *values = self._given(session, fed)
        logits: Logits = result.numpy()
        expected = (len(ids), self.spec.vocabulary)
        if logits.ndim != 3 or (logits.shape[0], logits.shape[2]) != expected or not logits.shape[1]:
            raise RunError(
                f"The graph {self._graph} gave logits of the shape {logits.shape}.",
                expected=f"{expected[0]} rows of {expected[1]:,} logits",
                action="build the bundle again",
            )
        return logits[:, -1].astype(np.float32, copy=False), Cache(tuple(values), mask)

    def _feed(
        self, ids: NDArray[np.int64], cache: Cache, real: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
        """The mask with these tokens, and what the graph takes of ids, mask and positions."""
        mask = np.concatenate((cache.mask, np.ones_like(ids) if real is None else real), axis=1)
        feed = {"input_ids": ids, "attention_mask": mask, "position_ids": _positions(cache.mask, ids.shape[1], real)}
        return mask, {name: array for name, array in feed.items() if name in self._takes}

    def _run_in_place(
        self,
        session: onnxruntime.InferenceSession,
        ids: NDArray[np.int64],
        cache: Cache,
        real: NDArray[np.int64] | None,
    ) -> tuple[Logits, Cache]:
        """Write behind the cache in its own tensors; in larger ones where they are full or written by another."""
        tokens = ids.shape[1]
        cache, tail = self._bound(session, cache, tokens)
        logits: Logits
        if tokens == 1 and real is None:
            logits, mask = tail.bound.step(ids, cache.mask)
        else:
            mask, feed = self._feed(ids, cache, real)
            logits = tail.bound.run(feed)
        tail.used = mask.shape[1]
        return logits, Cache(cache.values, mask, tail)

    def _bound(self, session: onnxruntime.InferenceSession, cache: Cache, tokens: int) -> tuple[Cache, Tail]:
        """The cache with room for so many tokens, its tensors bound to the session."""
        cache = with_room(self.store, cache, tokens)
        tail = cast(Tail, cache.tail)
        if tail.bound is None:
            names = list(zip(self._past, self.spec.present_names(), strict=True))
            tail.bound = Bound(session, self.store, names, cache.values, self.spec.vocabulary, self._takes)
        return cache, tail

    def run_ahead(self, ids: NDArray[np.int64], cache: Cache) -> tuple[Logits, Cache]:
        """As `run`, of one row whose last tokens are guesses: the logits (tokens, vocabulary) float32 behind each.

        What is not to stay of the cache is taken back by `cache.shortened`. For decoders that `lookup`.
        """
        session = self._session
        if session is None:
            raise EdgetuneError("The decoder is closed.", action="open the bundle again")
        try:
            cache, tail = self._bound(session, cache, ids.shape[1])
            mask, feed = self._feed(ids, cache, None)
            logits: Logits = tail.bound.run_ahead({**feed, "input_ids": ids})
        except session_errors() as error:
            raise run_error(str(self._graph), error) from error
        tail.used = mask.shape[1]
        return logits, Cache(cache.values, mask, tail)

    def _given(self, session: onnxruntime.InferenceSession, fed: JsonObject) -> list[Any]:
        """The outputs of a run as OrtValues, the logits on the CPU and the cache where caches lie."""
        if self.store.device == "cpu":  # binding takes a tenth to a fifth of a small model's step
            results: list[Any] = session.run_with_ort_values(list(self._outputs), fed)
            return results
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
        """Run prompts in pieces of `chunk` tokens; the shorter ones are padded on the left, or run alone.

        Args:
            prompts: ids of each row, checked, none of them empty.
            cache: of what stands before them, of as many rows; None is what sequences start from.
            chunk: at most so many tokens in a run.

        Returns:
            as `run`.
        """
        longest = max(map(len, prompts))
        cache = self.start(len(prompts), coming=longest) if cache is None else cache
        ragged = self.spec.begins_apart and min(map(len, prompts)) < longest
        if len(prompts) > 1 and (ragged or cache.columns or longest > chunk):
            return self._prefill_apart(prompts, cache, chunk)
        real = np.zeros((len(prompts), longest), dtype=np.int64)
        ids = np.full((len(prompts), longest), self.spec.pad_id or 0, dtype=np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            real[row, longest - len(prompt) :] = 1
        logits = np.empty((0, 0), dtype=np.float32)
        for start in range(0, longest, chunk):
            stop = start + chunk
            logits, cache = self.run(ids[:, start:stop], cache, real[:, start:stop])
        return logits, cache

    def _prefill_apart(self, prompts: Sequence[Sequence[int]], cache: Cache, chunk: int) -> tuple[Logits, Cache]:
        """Each row alone: behind a cache ONNX Runtime's attention takes several tokens for one row only, and rows of
        unlike length not where it rotates them itself."""
        logits, parts = [], []
        for row, prompt in enumerate(prompts):
            row_logits, after = self.prefill([prompt], gather(self.store, [(cache, [row])]), chunk=chunk)
            logits.append(row_logits)
            parts.append((after, [0]))
        return np.concatenate(logits), gather(self.store, parts)

    def start(self, rows: int, *, coming: int = 1, adapter: str | None = None) -> Cache:
        """The cache before the first token; with room for so many where the graph writes into it.

        Raises:
            InputError: there is no adapter of that name.
        """
        name = self.first.name(adapter)
        if name is None:
            return empty_cache(self.store, rows, coming=coming)
        return first_cache(self.store, self.first.arrays(name), rows, coming=coming)

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
        if sampling.stop or sampling.json_schema is not None:
            given = "Stop strings were" if sampling.stop else "A JSON schema was"
            raise InputError(f"{given} given where there is no text.", action="use Generator.generate_batch()")
        answers = [self.answer(ids, sampling) for ids in prompts]
        for _ in answer_together(self, answers, batch_size=batch_size):
            pass
        return [answer.token_ids for answer in answers]

    @property
    def providers(self) -> list[str]:
        """The execution providers of the session, as ONNX Runtime names them; none when closed."""
        return list(self._session.get_providers()) if self._session is not None else []

    def after_fork(self, check_same: Callable[[], object]) -> None:
        """In a forked child: the graph's threads are the parent's, so the first run opens it again.

        Args:
            check_same: called before; raises where the graph's folder holds another bundle by then.
        """
        self._lock = threading.Lock()
        if self._session is not None:
            never_free(self._session)
            self._check_same = check_same

    def _opened_again(self, check_same: Callable[[], object]) -> Any:
        """The session of a forked child; None when closed."""
        with self._lock:
            if self._check_same is not None and self._session is not None:
                check_same()
                self._session, self._check_same = self._open(), None
            return self._session

    def close(self) -> None:
        """Free the graph; running it afterwards raises EdgetuneError."""
        self._session = None


def _positions(before: NDArray[np.int64], tokens: int, real: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """The places of tokens in their rows, (rows, tokens), behind what the mask `before` tells of."""
    start = before.sum(axis=1, keepdims=True)
    # What stands at padding is never looked at; the number is the one that transformers gives it.
    positions: NDArray[np.int64] = (
        start + np.arange(tokens) if real is None else np.where(real == 0, 1, start + real.cumsum(axis=1) - 1)
    )
    return positions


def _size(value: object, otherwise: int) -> int:
    """A fixed size of a graph's input, which exporters write as a number or as its digits."""
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdigit()) else otherwise


def _check_names(graph: Path, spec: GenerationSpec, taken: JsonObject, given: JsonObject) -> None:
    past, present = spec.past_names(), spec.present_names()
    faults = [f"it does not take {name}" for name in ("input_ids", *past) if name not in taken]
    known = {"input_ids", "attention_mask", "position_ids", *past}
    faults += [f"it takes {name}" for name in taken if name not in known]
    faults += [f"it does not give {name}" for name in ("logits", *present) if name not in given]
    faults += [f"{name} is {taken[name].type}" for name in past if name in taken and taken[name].type not in _DTYPES]
    faults += [
        f"{name} has {len(taken[name].shape)} dimensions instead of 4"
        for name in past
        if name in taken and len(taken[name].shape) != 4
    ]
    if len(set(past)) < len(past) or len(set(present)) < len(present):
        faults.append("its cache has two tensors of one name")
    if "logits" in given and given["logits"].type not in _DTYPES:
        faults.append(f"logits are {given['logits'].type}")
    elif "logits" in given and not given["logits"].shape:
        faults.append("logits have no dimensions")
    elif "logits" in given and _size(given["logits"].shape[-1], spec.vocabulary) != spec.vocabulary:
        faults.append(f"it gives {given['logits'].shape[-1]} logits instead of {spec.vocabulary:,}")
    if faults:
        shown = "; ".join(faults[:8]) + (f" and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise BundleDamaged(
            f"The graph {graph} is not the decoder that was described: {shown}.",
            expected="a graph and a description that were packed together",
            action="copy the bundle again from where it was built, or build it again",
        )
