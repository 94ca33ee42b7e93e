"""A language model's bundle that answers: prompts and chats in, text out, whole or piece by piece.

Needs numpy, onnxruntime and tokenizers only; a chat needs jinja2 too. Many callers at once: scheduler.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edgetune.serve.bundle import GRAPH_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.codecs import list_inputs, stripped
from edgetune.serve.codecs.text import CHARACTERS_A_TOKEN
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import BundleFormatError, EdgetuneError, InputError, PromptTooLong
from edgetune.serve.forks import never_free, watch_forks
from edgetune.serve.identity import identity_of, same_bundle
from edgetune.serve.kept_settings import kept_settings
from edgetune.serve.processor import cpu_name
from edgetune.serve.stepwise.answer import Answer, Generation, TokenPiece
from edgetune.serve.stepwise.cache import without_room
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.constraint import Constraints
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.defaults import GENERATION_CONFIG_NAME, SamplingDefaults
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.messages import Message
from edgetune.serve.stepwise.prefixes import Prefixes, common_tokens
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.template import ChatTemplate

# Memory for beginnings of prompts: about 2,000 tokens of a model of 60 M parameters.
PREFIX_BYTES = 32 * 2**20

Prompt = str | Sequence[Message]
_NO_DEFAULTS = SamplingDefaults()


class Generator:
    """Answers prompts with one decoder. All its methods may be called from any thread at any time.

    A prompt is a text, which is continued as it stands, or a chat, which the model's own template renders. Prompts that
    begin as an earlier one did start from its cache, within `prefix_bytes` (prefixes.py).

    One that was opened from a bundle can be pickled: there it is opened again from its folder, which must hold the same
    bundle. In a forked child the graph is opened again too, with the child's first run; beginnings are learnt anew.

    Attributes:
        decoder: the graph.
        codec: the tokenizer.
        template: of chats; None where the model has none.
        prefixes: what is known of beginnings.
        constraints: of answers that are JSON.
        defaults: how the model's authors draw, for servers whose clients are silent; without one answers are greedy.
        strip_inputs: whether what is said in a chat is stripped, as it was in training.
    """

    def __init__(
        self,
        decoder: Decoder,
        codec: TokenCodec,
        template: ChatTemplate | None = None,
        *,
        prefix_bytes: int = PREFIX_BYTES,
        defaults: SamplingDefaults = _NO_DEFAULTS,
        strip_inputs: bool = False,
    ) -> None:
        """Put opened parts together.

        Raises:
            BundleDamaged: the tokenizer is that of another model.
        """
        codec.check(decoder.spec)
        self.decoder, self.codec, self.template = decoder, codec, template
        self.prefixes = Prefixes(prefix_bytes)
        self.defaults, self.strip_inputs = defaults, strip_inputs
        self.constraints = Constraints(codec.path, decoder.spec)
        self._bundle: Bundle | None = None
        self._asked: tuple[int | None, str, bool] = (None, "auto", False)
        watch_forks(self)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        threads: int | None = None,
        provider: str = "auto",
        prefix_bytes: int = PREFIX_BYTES,
        verify: bool = True,
        lookup: bool = False,
    ) -> Generator:
        """Open a bundle of the task text-generation.

        Args:
            folder: of the bundle.
            threads: of one run; None takes what was kept beside the bundle for this class of machine, else the cores
                that this process may use.
            provider: "auto" (the one that the bundle was built for), "cpu" or "cuda".
            prefix_bytes: memory for beginnings of prompts; 0 keeps none.
            verify: compare the files with what was packed.
            lookup: guess tokens of single answers from what followed the last ones earlier in prompt and answer; no
                answer changes but by rounding, and those that quote their prompt come in fewer steps.

        Raises:
            InputError: `lookup` of a bundle whose graph cannot take guesses back.
            BundleError: it is no bundle, it is damaged, or it is one of another task.
            ProviderError: the provider does not run here.
        """
        bundle = Bundle.open(folder, verify=verify)
        spec = bundle.manifest.generation
        if spec is None:
            raise BundleFormatError(
                f"{bundle.folder} is for the task {bundle.manifest.task!r}, its manifest tells of no decoder.",
                expected="a bundle of the task 'text-generation'",
                action="open it with edgetune.serve.load",
            )
        runs_on = bundle.manifest.provider if provider == "auto" else provider
        if threads is None:
            kept = kept_settings(bundle, bundle.manifest.scheme, cpu_name(), usable_cores())
            threads = kept.threads if kept else None
        generator = cls(
            Decoder(bundle.folder / GRAPH_NAME, spec, threads=threads, provider=runs_on, lookup=lookup),
            TokenCodec(bundle.folder / TOKENIZER_NAME),
            ChatTemplate.open(bundle.folder, listed=bundle.manifest.files),
            prefix_bytes=prefix_bytes,
            defaults=SamplingDefaults.open(bundle.path(GENERATION_CONFIG_NAME)),
            strip_inputs=bundle.manifest.strip_inputs,
        )
        generator._bundle = Bundle(bundle.folder.absolute(), bundle.manifest)
        generator._asked = (threads, provider, lookup)
        return generator

    def generate(self, prompt: Prompt, sampling: Sampling | None = None, *, adapter: str | None = None) -> Generation:
        """Answer one prompt, greedily where `sampling` is None.

        Args:
            prompt: a text or a chat.
            sampling: how to draw and where to end.
            adapter: which of the bundle's virtual tokens it is answered behind; None takes those that stand first.

        Raises:
            InputError: the prompt is empty or longer than the context, a chat that the template refuses, or there is no
                such adapter.
        """
        return self.generate_batch([prompt], sampling, adapter=adapter)[0]

    def predict(
        self, prompts: Iterable[Prompt], sampling: Sampling | None = None, *, adapter: str | None = None
    ) -> list[Generation]:
        """Answer prompts, in order: `generate_batch` by the name that the bundles of all tasks have.

        Raises:
            InputError: as `generate_batch` does; no prompt at all, or a bare text instead of a list.
        """
        return self.generate_batch(list_inputs(prompts, one="generate()"), sampling, adapter=adapter)

    def stream(
        self, prompt: Prompt, sampling: Sampling | None = None, *, adapter: str | None = None
    ) -> Iterator[TokenPiece]:
        """Answer one prompt piece by piece; faults of the prompt are raised here, before the first piece.

        Raises:
            InputError: as `generate` does.
        """
        answer = self.answer(self.prompt_ids(prompt), sampling or Sampling(), adapter)
        pieces = answer_together(self.decoder, [answer], batch_size=1, prefixes=self._used())
        return (piece for _, piece in pieces)

    def generate_batch(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling | None = None,
        *,
        batch_size: int = 8,
        adapter: str | None = None,
    ) -> list[Generation]:
        """Answer prompts, in order; up to `batch_size` of like length take their steps together.

        Raises:
            InputError: as `generate` does, of any of them, before the first is run.
        """
        answers = [self.answer(self.prompt_ids(prompt), sampling or Sampling(), adapter) for prompt in prompts]
        pieces: list[list[TokenPiece]] = [[] for _ in answers]
        for number, piece in answer_together(self.decoder, answers, batch_size=batch_size, prefixes=self._used()):
            pieces[number].append(piece)
        return [Generation.of(some, answer) for some, answer in zip(pieces, answers, strict=True)]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, with what the tokenizer puts around it (often a token of the beginning).

        Raises:
            InputError: it is no text, or empty.
            PromptTooLong: it has more characters than the context can hold, whatever its tokens are.
        """
        self._check_length(text)
        ids = self.codec.encode(text)
        if not text:
            raise InputError("The prompt is empty.", expected="at least one character")
        return ids

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """Ids of a chat up to where the assistant's next answer begins.

        Args:
            messages: of the chat.
            tools: functions that the model may call, as OpenAI's clients send them.
            variables: of the template's own, such as enable_thinking.

        Raises:
            InputError: the model has no template or one that tells of no tools, no message is the user's, or the
                template refuses the chat.
            PromptTooLong: as `encode`.
            MissingDependency: jinja2 is not installed.
        """
        template = self._template()
        if tools and not template.tells_tools:
            raise InputError(
                "The chat template of this model tells of no tools.",
                expected="a model whose template knows tools",
                action="leave tools out",
            )
        messages = [_stripped(message) for message in messages] if self.strip_inputs else messages
        text = template.render(messages, tools=tools, variables=variables)
        self._check_length(text)
        return self.codec.encode(text, special=False)

    def text_of(self, ids: Sequence[int]) -> str:
        """The text of a prompt's ids, special tokens included."""
        return self.codec.decode(ids, special=True)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of a text or a chat."""
        return self.encode(prompt) if isinstance(prompt, str) else self.chat_ids(prompt)

    def answer(self, ids: Sequence[int], sampling: Sampling, adapter: str | None = None) -> Answer:
        """The state of an answer to come, for who runs the graph himself (the scheduler does).

        Raises:
            InputError: the graph cannot answer this prompt, or there is no such adapter.
        """
        schema = sampling.json_schema
        constraint = None if schema is None else self.constraints.of_schema(schema)
        return self.decoder.answer(ids, sampling, self.codec, constraint, adapter)

    def token_text(self, token: int) -> str:
        """What one token looks like alone, special tokens too: for lists of log-probabilities."""
        return self.codec.decode([token], special=True)

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names that requests may choose by; the first is taken where they name none."""
        return tuple(filter(None, self.decoder.first.names))

    def remember(self, prefix: Prompt, *, adapter: str | None = None) -> int:
        """Run what many prompts begin with, and keep it for good: how many tokens are kept.

        Args:
            prefix: a text, or the first messages of chats (the system's may stand alone).
            adapter: whose prompts begin so, as for `generate`.

        Raises:
            InputError: it takes more than `prefix_bytes`, or is no prompt.
        """
        ids = self.codec.encode(prefix) if isinstance(prefix, str) else self._chat_beginning(prefix)
        self.decoder.check(ids)
        name = self.decoder.first.name(adapter)
        _, cache = self.decoder.prefill([ids], self.decoder.start(1, coming=len(ids), adapter=name))
        key = (*self.decoder.first.virtual_ids(name), *ids)
        self.prefixes.keep(key, without_room(self.decoder.store, cache), pinned=True)
        return len(ids)

    def _chat_beginning(self, messages: Sequence[Message]) -> list[int]:
        """Ids that all chats share which begin with these messages, whatever the user says next."""
        messages = [_stripped(message) for message in messages] if self.strip_inputs else messages
        one, other = (
            self.codec.encode(self._template().render([*messages, {"role": "user", "content": text}]), special=False)
            for text in ("Apples", "1 + 1")
        )
        return one[: common_tokens(one, other)]

    def _check_length(self, text: str) -> None:
        """Refuse by its characters what need not be tokenized: a megabyte takes seconds, and has no room anyway."""
        context = self.decoder.spec.context_tokens
        if isinstance(text, str) and len(text) > CHARACTERS_A_TOKEN * context:
            raise PromptTooLong(
                f"The prompt has {len(text):,} characters.",
                expected=f"at most {CHARACTERS_A_TOKEN * context:,}: the context holds {context:,} tokens, the answer "
                "included",
                action="shorten the prompt",
            )

    def _template(self) -> ChatTemplate:
        if self.template is None:
            raise InputError(
                "This model has no chat template.",
                expected="a prompt as plain text",
                action="write the conversation into one text, or build the bundle with a template in its recipe",
            )
        return self.template

    def _used(self) -> Prefixes | None:
        return self.prefixes if self.prefixes.most_bytes > 0 else None

    def after_fork(self) -> None:
        """In a forked child: locks may be held by threads of the parent, which has the caches' and the graph's."""
        for thing in (self.prefixes, self.constraints):
            never_free(thing)
        self.prefixes = Prefixes(self.prefixes.most_bytes)
        self.constraints = Constraints(self.codec.path, self.decoder.spec)
        self.decoder.after_fork(self._check_same)

    def _check_same(self) -> None:
        """Refuse a folder that holds another bundle by now.

        Raises:
            BundleError, BundleDamaged: it does, or is gone.
        """
        if self._bundle is not None:
            same_bundle(self._bundle.folder, identity_of(self._bundle))

    def __reduce__(self) -> tuple[Callable[..., Generator], tuple[object, ...]]:
        """The folder, which bundle it held, and how it was opened.

        Raises:
            EdgetuneError: it is closed, or was put together from parts.
        """
        if self._bundle is None or not self.decoder.providers:
            what = "was put together from parts" if self._bundle is None else "is closed"
            raise EdgetuneError(f"A generator that {what} cannot be pickled.", action="open a bundle, and pickle that")
        prefix_bytes = self.prefixes.most_bytes
        return _open_pickled, (str(self._bundle.folder), identity_of(self._bundle), *self._asked, prefix_bytes)

    def close(self) -> None:
        """Free the graph and what is remembered; answering afterwards raises EdgetuneError."""
        self.prefixes.clear()
        self.decoder.close()

    def __enter__(self) -> Generator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _stripped(message: Message) -> Message:
    """A turn as training strips it; the model's own turns stay as they were given."""
    content = message.get("content") if isinstance(message, Mapping) else None  # what is no turn is refused later
    if not isinstance(content, str) or message.get("role") == "assistant":
        return message
    return {**message, "content": stripped(content)}


def _open_pickled(
    folder: str, identity: str, threads: int | None, provider: str, lookup: bool, prefix_bytes: int
) -> Generator:
    """What a pickled generator is there; arguments as for `Generator.open`, and raises as it does.

    Raises:
        BundleDamaged: as `Generator.open` does, or the folder holds another bundle than the one that was pickled.
    """
    same_bundle(Path(folder), identity)
    return Generator.open(folder, threads=threads, provider=provider, prefix_bytes=prefix_bytes, lookup=lookup)
