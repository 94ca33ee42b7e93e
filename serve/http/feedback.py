"""POST /v1/feedback: what a person says about an answer, by the id of its request; and the keeping of answers for it.

Off unless the server is given a folder. A vote is acknowledged when it is on the disk, an answer's line is with the
system before the answer is sent.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.types import Receive, Scope, Send

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.codecs import takes_files
from edgetune.serve.feedback.entries import Answered, GivenAnswer, Number, Person, RequestId, Vote
from edgetune.serve.feedback.reading import fits
from edgetune.serve.feedback.redaction import Redaction
from edgetune.serve.feedback.store import FeedbackStore
from edgetune.serve.http.access import Visit, visit_of
from edgetune.serve.http.errors import RETRY_SECONDS, Refused, invalid, unanswerable
from edgetune.serve.http.limits import Limits
from edgetune.serve.http.reply import Reply, json_reply
from edgetune.serve.http.served import Served
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.identity import bundle_digest

FEEDBACK_PATH = "/v1/feedback"
EXAMPLE = '{"request_id": "...", "vote": "up"}, or "label", "text" or "choice" instead of "vote"'
JUDGEMENTS = ("vote", "choice", "label", "text")
MOST_LABEL, MOST_TEXT = 256, 32_768
# Of each process: the requests whose votes can be checked when they come. Others are checked when they are read.
MOST_KNOWN = 65_536
# Redaction goes over every character before the answer is sent.
MOST_CHARACTERS = 65_536


class FeedbackRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body: an answer by its request's id and its number, and one judgement of it."""

    request_id: RequestId
    index: Number = 0
    vote: Literal["up", "down"] | None = None
    choice: Number | None = None
    over: Number | None = None
    label: Annotated[str, msgspec.Meta(min_length=1, max_length=MOST_LABEL)] | None = None
    text: Annotated[str, msgspec.Meta(max_length=MOST_TEXT)] | None = None
    person: Person = ""


_DECODER = msgspec.json.Decoder(FeedbackRequest)


class Recorder:
    """Keeps the answers of one server process, and what is said about them."""

    def __init__(self, store: FeedbackStore, redaction: Redaction) -> None:
        self.store = store
        self._redaction = redaction
        self._known: OrderedDict[str, tuple[int, bool]] = OrderedDict()  # answers of a request, and whether generated

    @classmethod
    def open(cls, settings: ServerSettings) -> Recorder | None:
        """What the settings ask for; None where they name no folder.

        Raises:
            WorkError: the folder cannot be written to.
            InputError: a pattern to redact is none.
        """
        if settings.feedback is None:
            return None
        redaction = Redaction(settings.redact, settings.redact_pattern)
        return cls(FeedbackStore(settings.feedback, most_bytes=settings.feedback_bytes), redaction)

    def keep_predictions(
        self, visit: Visit, served: Served, inputs: Sequence[Any], predictions: Sequence[dict[str, Any]]
    ) -> None:
        """Keep what a classifier answered, as its route tells it. Vectors and pictures are not kept."""
        if takes_files(served.bundle.manifest.codec) or served.predictor.head.spec.kind == "embedding":
            return
        answers = [
            GivenAnswer(place, label=given["label"], score=given.get("score"))
            if isinstance(given.get("label"), str)
            else GivenAnswer(place, value={key: each for key, each in given.items() if key != "scores"})
            for place, given in enumerate(predictions)
        ]
        self._keep(visit, served, inputs, answers)

    def keep_texts(self, visit: Visit, served: Served, prompts: Sequence[Any], texts: Sequence[str]) -> None:
        """Keep what a language model wrote: as many texts for each prompt."""
        each = len(texts) // max(1, len(prompts))
        answers = [GivenAnswer(place // max(1, each), text=text) for place, text in enumerate(texts)]
        self._keep(visit, served, prompts, answers)

    def _keep(self, visit: Visit, served: Served, inputs: Sequence[Any], answers: Sequence[GivenAnswer]) -> None:
        if sum(map(_characters, inputs)) + sum(len(answer.text or "") for answer in answers) > MOST_CHARACTERS:
            self.store.drop(f"a request of more than {MOST_CHARACTERS:,} characters is not kept")
            return
        redacted = [
            msgspec.structs.replace(
                answer,
                text=None if answer.text is None else self._redaction.text(answer.text),
                value=self._redaction.value(answer.value),
            )
            for answer in answers
        ]
        entry = Answered(
            time=_now(),
            request_id=visit.request_id,
            model=served.name,
            version=bundle_digest(served.bundle)[:19],
            inputs=[self._redaction.value(each) for each in inputs],
            answers=redacted,
            arm=visit.arm,
        )
        if self.store.write_soon_synced(entry):
            self._known[visit.request_id] = (len(answers), served.generates)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)

    async def keep_vote(self, request: FeedbackRequest) -> bool:
        """Keep a judgement; whether this process knows the request that it is about.

        Raises:
            Refused: 422, it does not fit its answer; 503, it could not be kept.
        """
        over = request.over
        if request.choice is not None and over is None:
            over = 1 - request.choice if request.choice < 2 else None
        vote = Vote(
            time=_now(),
            request_id=request.request_id,
            index=request.index,
            vote=request.vote,
            choice=request.choice,
            over=over,
            label=request.label,
            text=None if request.text is None else self._redaction.text(request.text),
            person=request.person,
        )
        known = self._known.get(request.request_id)
        _check(vote, known)
        if not await self.store.write_durably(vote):
            raise Refused(
                503,
                "The vote could not be kept; the server's log says why.",
                action="ask again later",
                retry_after_seconds=RETRY_SECONDS,
            )
        return known is not None

    def close(self) -> None:
        """Sync and close."""
        self.store.close()


def _check(vote: Vote, known: tuple[int, bool] | None) -> None:
    if vote.choice is not None and (vote.over is None or vote.over == vote.choice):
        raise unanswerable(
            f"The answer {vote.choice} was chosen over {'none' if vote.over is None else 'itself'}.",
            expected='the numbers of two answers: "choice" of the better one, "over" of the other',
        )
    if known is None:
        return
    answers, generates = known
    if not fits(vote, answers):
        raise unanswerable(
            f"The request {vote.request_id} has no answer of that number.", expected=f"0 to {answers - 1}"
        )
    if vote.label is not None and generates:
        raise unanswerable("A language model's answer has no label.", expected='"text", what it should have written')
    if not generates and (vote.text is not None or vote.choice is not None):
        raise unanswerable("A classifier's answer is no text.", expected='"vote" or "label"')


def read_vote(body: bytes) -> FeedbackRequest:
    """Understand a request's body.

    Raises:
        Refused: 400.
    """
    try:
        request = _DECODER.decode(body)
    except NOT_JSON as error:
        raise invalid(
            f"{str(error).rstrip('.')}." if body.strip() else "The body is empty.", expected=EXAMPLE
        ) from error
    given = [name for name in JUDGEMENTS if getattr(request, name) is not None]
    if len(given) != 1:
        raise invalid(
            f"The body has {' and '.join(given) or 'no judgement'}.", expected=f"one of {', '.join(JUDGEMENTS)}"
        )
    if request.over is not None and request.choice is None:
        raise invalid("The body has over without choice.", expected='"choice", the number of the better answer')
    if request.label is not None and not request.label.strip():
        raise invalid("The label is empty.", expected="the label that is right")
    return request


class FeedbackRoute:
    """The route, as a bare ASGI application."""

    def __init__(self, recorder: Recorder | None, limits: Limits) -> None:
        self._recorder = recorder
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        visit = visit_of(scope)
        visit.route = "feedback"
        reply = await self._limits.attend(scope, receive, self._answer)
        await reply.send(send)

    async def _answer(self, body: bytes) -> Reply:
        if self._recorder is None:
            raise Refused(404, "This server keeps no feedback.", action="start it with --feedback DIR")
        request = read_vote(body)
        known = await self._recorder.keep_vote(request)
        return json_reply({"request_id": request.request_id, "known": known})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_characters, value))
    return sum(map(_characters, value.values())) if isinstance(value, dict) else 0
