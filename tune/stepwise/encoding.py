"""Texts and chats as token ids, with the loss on what is to be learnt: all of a text, the answers of a chat.

Encodes a whole row at once, as the model will read it, and finds the answers' tokens by their characters. Where the
prompt alone gives other tokens than the prompt with its answer, that is counted and said.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgetune.serve.errors import DataError, ModelError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.stepwise.batches import IGNORED
from edgetune.tune.stepwise.chats import Chat, Kind, message
from edgetune.tune.stepwise.faults import Fault, faults_error, places_of
from edgetune.tune.stepwise.template import AnswerSpan, ChatTemplate, Rendered, TemplateFault, prompt_text, render
from edgetune.tune.stepwise.traces import EncodedRow, OverLong, Trace, fit, learnt_tokens, seen

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Offsets = list[tuple[int, int]]
# Where the template refuses more of the training rows than this share, the rest is not the data set that was meant.
MOST_REFUSED = 0.5


@dataclass(frozen=True)
class Encoded:
    """The rows of a part.

    Args:
        rows: as the model learns them.
        chats: those that the rows were made of, in the same order; one whose text was cut stands there for each piece.
        stop_ids: the tokens that whole answers end with, the most frequent first: generation has to stop at these.
        refused: chats that the template cannot render, which give no rows.
        findings: what was cut, dropped and counted.
    """

    rows: tuple[EncodedRow, ...]
    chats: tuple[Chat, ...]
    stop_ids: tuple[int, ...]
    refused: tuple[Chat, ...]
    findings: tuple[str, ...]


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, as token ids, and the answer that the data gives."""

    ids: list[int]
    answer: str


@dataclass(frozen=True)
class Request:
    """A prompt as a client sends it, and its token ids as training fed them.

    Args:
        prompt: a text, or messages in OpenAI's form.
        tools: that go with messages.
    """

    prompt: str | list[JsonObject]
    tools: list[JsonObject] | None
    ids: list[int]


class Encoder:
    """Encodes the rows of one data set for one model.

    Args:
        tokenizer: a fast transformers tokenizer that appends no EOS, as `open_language_tokenizer` gives it.
        kind: what the rows are.
        template: of chats; None for texts and completions.
        max_tokens: the longest row.
        over_long: what happens to a longer one: a text is cut into pieces, a chat at its end, or the row is dropped.
        separator: what each completion begins with.
        vocabulary: how many tokens the model knows; ids beyond are refused.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        kind: Kind,
        template: ChatTemplate | None,
        *,
        max_tokens: int,
        over_long: OverLong = "cut",
        separator: str = "",
        vocabulary: int | None = None,
    ) -> None:
        if not tokenizer.is_fast:
            raise ModelError(
                "The tokenizer cannot say which characters its tokens stand for.",
                expected="a fast tokenizer, with a tokenizer.json.",
                action="convert it once with AutoTokenizer.from_pretrained(...).save_pretrained(...).",
            )
        if kind == "chat" and template is None:
            raise ValueError("chats need a template")
        self._tokenizer, self._kind, self._template = tokenizer, kind, template
        self._max_tokens, self._over_long = max_tokens, over_long
        self._separator, self._vocabulary = separator, vocabulary
        self._special = set(tokenizer.all_special_ids) | {
            number for number, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        written = sorted(filter(None, (tokenizer.convert_ids_to_tokens(number) for number in self._special)))
        self._special_words = re.compile("|".join(map(re.escape, written))) if written else None

    def encode(self, chats: Sequence[Chat], part: str) -> Encoded:
        """The rows of the part `part` ("train", "validation" or "test").

        Raises:
            DataError: a template fails on all rows, or on more than half of those to be trained on; or no row has an
                answer that can be learnt.
            ModelError: the tokenizer gives ids that the model does not know.
        """
        traces, refused, faults = [], [], []
        for chat in chats:
            try:
                traces.append(self._judged(chat))
            except TemplateFault as fault:
                refused.append(chat)
                faults.append(Fault(chat.place, f"{fault}."))
        if faults and (not traces or (part == "train" and len(faults) > MOST_REFUSED * len(chats))):
            raise self._template_error(faults, len(chats))
        self._check_vocabulary(traces)
        kept, lost = fit(traces, part, self._max_tokens, self._over_long, pieces=self._kind == "text")
        if not kept:
            raise self._nothing_left(part, lost)
        rows = tuple(trace.row for trace in kept)
        tokens, learnt = sum(len(row["input_ids"]) for row in rows), sum(map(learnt_tokens, rows))
        size = f"{counted(len(rows), 'row')}, {tokens:,} tokens, {learnt:,} of them learnt"
        findings = (*_refusals(faults, part), *seen(traces, part), *lost, f"Encoded the {title(part)}: {size}.")
        # Of rows before they were cut: what a cut row ends with is no end.
        stops = Counter(label for trace in traces for label in trace.row["labels"][-1:])
        stop_ids = tuple(label for label, _ in stops.most_common() if label != IGNORED)
        return Encoded(rows, tuple(trace.chat for trace in kept), stop_ids, tuple(refused), findings)

    def prompt(self, chat: Chat) -> Prompt:
        """All before the last answer, as a server would encode it, and that answer.

        Raises:
            ValueError: the rows are plain texts, which ask nothing.
            DataError: the template fails on it.
        """
        if self._kind == "text":
            raise ValueError("a plain text has no prompt")
        answer = chat.turns[-1].content
        if self._kind == "completion":
            return Prompt(self._ids_alone(chat.turns[-2].content), self._separator + answer)
        assert self._template is not None
        try:
            text = prompt_text(self._tokenizer, self._template, chat.turns[:-1], chat.tools)
        except TemplateFault as fault:
            raise self._template_error([Fault(chat.place, f"{fault}.")], 1) from fault
        return Prompt(self._ids_alone(text), answer)

    def request(self, chat: Chat) -> Request:
        """What the chat asks last, as a client of the bundle asks it; of a plain text its own words.

        Raises:
            DataError: the template fails on it.
        """
        if self._kind == "text":
            words = chat.turns[-1].content
            return Request(words, None, self._encoded(words)[0])
        ids = self.prompt(chat).ids
        if self._kind == "completion":
            return Request(chat.turns[-2].content, None, ids)
        messages = [message(turn) for turn in chat.turns[:-1]]
        return Request(messages, json.loads(chat.tools) if chat.tools else None, ids)

    def _judged(self, chat: Chat) -> Trace:
        """The row with what somebody said of its answer: the rejected one beside it, or the vote."""
        trace = self._trace(chat)
        if chat.liked is not None:
            return replace(trace, row={**trace.row, "liked": [int(chat.liked)]})
        if chat.rejected is None:
            return trace
        other = self._trace(chat.with_rejected)
        sides = {"rejected_ids": other.row["input_ids"], "rejected_labels": other.row["labels"]}
        return replace(trace, row={**trace.row, **sides}, crossed=trace.crossed or other.crossed)

    def _trace(self, chat: Chat) -> Trace:
        if self._kind == "text":
            ids, _ = self._encoded(chat.turns[-1].content)
            ids += self._eos(ids)
            return Trace(chat, {"input_ids": ids, "labels": list(ids)}, special=self._special_in(chat))
        if self._kind == "completion":
            prompt = chat.turns[-2].content
            text = prompt + self._separator + chat.turns[-1].content
            return self._learning(chat, Rendered(text, (AnswerSpan(len(prompt), len(text), len(text)),)))
        assert self._template is not None
        return self._learning(chat, render(self._tokenizer, self._template, chat))

    def _learning(self, chat: Chat, rendered: Rendered) -> Trace:
        """The text's ids up to the end of the last answer, with labels inside the answers."""
        ids, offsets = self._encoded(rendered.text)
        answers = [self._answer(ids, offsets, rendered.text, span) for span in rendered.spans]
        ends = [self._end(ids, offsets, places, span) for places, span in zip(answers, rendered.spans, strict=True)]
        learnt = {place for places in (*answers, *ends) for place in places}
        crossed = any(not self._begins_alike(ids, rendered.text[: span.start]) for span in rendered.spans)
        ids = ids[: max(learnt, default=-1) + 1]
        labels = [token if place in learnt else IGNORED for place, token in enumerate(ids)]
        end = self._eos(ids) if ids and ids[-1] not in self._special else []
        return Trace(
            chat,
            {"input_ids": ids + end, "labels": labels + end},
            rendered.unconfirmed,
            crossed,
            rendered.left_out,
            extended=any(ends),
            special=self._special_in(chat),
        )

    def _answer(self, ids: list[int], offsets: Offsets, text: str, span: AnswerSpan) -> list[int]:
        """The places of the tokens that begin inside the span, without white space behind a token that ends it."""
        places = [i for i, (start, end) in enumerate(offsets) if span.start <= start < end <= span.end]
        closing = [i for i in places if ids[i] in self._special]
        if closing and not any(text[slice(*offsets[i])].strip() for i in places if i > closing[-1]):
            return [i for i in places if i <= closing[-1]]
        return places

    def _end(self, ids: list[int], offsets: Offsets, answer: list[int], span: AnswerSpan) -> list[int]:
        """The special token right behind the answer that closes its turn, where the answer does not have it inside."""
        following = answer[-1] + 1 if answer and ids[answer[-1]] not in self._special else len(ids)
        closes = following < len(ids) and ids[following] in self._special and offsets[following][1] <= span.turn_end
        return [following] if closes else []

    def _special_in(self, chat: Chat) -> str:
        """A special token that stands in the chat's own words."""
        matches = (self._special_words.search(turn.content) for turn in chat.turns) if self._special_words else ()
        return next((match.group() for match in matches if match), "")

    def _begins_alike(self, ids: list[int], prompt: str) -> bool:
        alone = self._ids_alone(prompt)
        return ids[: len(alone)] == alone

    def _ids_alone(self, prompt: str) -> list[int]:
        return self._encoded(prompt)[0] if prompt or self._kind == "completion" else []

    def _encoded(self, text: str) -> tuple[list[int], Offsets]:
        """Ids and the characters of each. A template writes BOS itself; for all else the tokenizer puts it."""
        encoding = self._tokenizer(
            text, add_special_tokens=self._kind != "chat", return_offsets_mapping=True, verbose=False
        )
        return list(encoding["input_ids"]), [tuple(one) for one in encoding["offset_mapping"]]

    def _eos(self, ids: list[int]) -> list[int]:
        eos = self._tokenizer.eos_token_id
        return [] if eos is None or ids[-1:] == [eos] else [eos]

    def _check_vocabulary(self, traces: Sequence[Trace]) -> None:
        highest = max((max(trace.row["input_ids"], default=0) for trace in traces), default=0)
        if self._vocabulary is not None and highest >= self._vocabulary:
            raise ModelError(
                f"The tokenizer gives the token id {highest:,}, and the model knows {self._vocabulary:,} tokens.",
                expected="a tokenizer and a model of the same checkpoint.",
                action="use the tokenizer that came with the model, or resize the model's embeddings.",
            )

    def _template_error(self, faults: Sequence[Fault], rows: int) -> DataError:
        origin = self._template.origin if self._template else ""
        return faults_error(
            faults,
            f"The chat template ({origin}) fails on {counted(len(faults), 'row')} of {rows:,}:",
            expected="chats that the template can render, at least half of them; some refuse system turns or two turns "
            "of one role in a row.",
            action="mend these rows, or give another template with --set data.template=FILE.",
        )

    def _nothing_left(self, part: str, findings: Sequence[str]) -> DataError:
        return DataError(
            f"The {title(part)} has no row left to learn from. {' '.join(findings)}".rstrip(),
            expected="rows whose answers stand within the first max_tokens tokens and can be told from the prompt.",
            action="raise data.max_tokens as far as the model takes it, or shorten the prompts; where answers cannot "
            "be told apart, give a template that marks them with {% generation %} and {% endgeneration %}: "
            "--set data.template=FILE.",
        )


def _refusals(faults: Sequence[Fault], part: str) -> tuple[str, ...]:
    """How many rows the template cannot render, and what it says of the first."""
    if not faults:
        return ()
    places = places_of([fault.place for fault in faults])
    return (
        f"Dropped {counted(len(faults), 'row')} of the {title(part)} that the chat template cannot render "
        f"({faults[0].reason.rstrip('.')}): {places}.",
    )
