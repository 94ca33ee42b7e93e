"""What a server is told when it starts: its limits and times, each with a default that holds on a small machine.

Must import nothing but the standard library and what does the same: the command line shows the defaults without loading
a web server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.http.split import Split


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Limits and times of one server; every one holds for each worker process by itself.

    Attributes:
        max_body_bytes: of one request; a larger one is answered 413 before it is read whole.
        max_texts: texts (or rows of ids) in one request; more are answered 422.
        truncate: cut texts longer than the bundle takes, and say so in the answer; False refuses them with 422.
        max_batch: texts in one run of the graph.
        max_waiting: texts that may wait for the graph, all requests together; past it 503 with Retry-After.
        max_requests: requests worked on at once; past it 429 with Retry-After.
        max_connections: connections open at once; a further one is answered 503 and closed.
        request_seconds: from the first byte to the answer; past it 503, and the request leaves the queue.
        generation_seconds: the same for text that is generated; a stream that has begun ends with an error.
        max_sequences: answers that a model writes at the same time, a token of each in every step.
        max_prompts: that may wait for their turn to be answered; past it 503 with Retry-After.
        max_answer_tokens: of one generated answer; asking for more is answered 400.
        answers_alone: compute each generated answer as if there were no other, so that it does not change with the
            load; slower for many callers, and no beginnings of prompts are kept.
        lookup: guess tokens of a lone answer from its prompt and itself; see `Generator.open`.
        read_seconds: for the head of a request, and again for its body, to arrive; past it 408 and the connection is
            closed.
        grace_seconds: after SIGTERM, for what is running to end.
        threads: of a run of the graph beside others: under load, runs of one thread side by side answer half as much
            again as runs on all cores (docs/log.md).
        lone_threads: of a run for a caller who has been alone for a while; None takes what the bundle measured as best,
            and for bundles above 128 MiB `threads`, since it needs the graph in memory a second time.
            A model that generates runs nothing side by side and takes this many too, and all cores where it is None.
        runners: runs of the graph at the same time; None takes as many as fill the cores.
        provider: "auto", "cpu" or "cuda".
        abstain_below: the probability below which a label is unsure; None takes each bundle's own.
        watch_seconds: between looks at the bundle folders for a new version; 0 does not look.
        prove_seconds: for a new bundle to give its golden answers in a process of its own; None takes two minutes and a
            second for each 16 MiB.
        allow_host: names with dots by which a server may be asked, beside addresses; none lets every name.
        allow_origin: origins whose pages may read answers in a browser, "*" for all.
        access_log: write one line a request.
        feedback: the folder in which answers and what people say about them are kept; None keeps nothing.
        feedback_bytes: of that folder; past it the oldest file is removed.
        redact: names of patterns that are replaced in what is kept.
        redact_pattern: patterns of the user's own, each NAME=REGEX.
        split: models that answer under one name, each with its share; None where every model has its own alone.
        shadow: model that is asked beside the one that answers, and whose answers nobody gets; "" for none.
        shadow_log: file of JSON Lines of both answers; None writes none.
    """

    max_body_bytes: int = 4 * 1024 * 1024
    max_texts: int = 256
    truncate: bool = True
    max_batch: int = 32
    max_waiting: int = 1024
    max_requests: int = 512
    max_connections: int = 4096
    request_seconds: float = 30.0
    generation_seconds: float = 300.0
    max_sequences: int = 8
    max_prompts: int = 64
    max_answer_tokens: int = 4096
    answers_alone: bool = False
    lookup: bool = False
    read_seconds: float = 10.0
    grace_seconds: float = 20.0
    threads: int = 1
    lone_threads: int | None = None
    runners: int | None = None
    provider: str = "auto"
    abstain_below: float | None = None
    watch_seconds: float = 2.0
    prove_seconds: float | None = None
    allow_host: tuple[str, ...] = ()
    allow_origin: tuple[str, ...] = ()
    access_log: bool = True
    feedback: Path | None = None
    feedback_bytes: int = 1024**3
    redact: tuple[str, ...] = ("email", "card", "phone")
    redact_pattern: tuple[str, ...] = ()
    split: Split | None = None
    shadow: str = ""
    shadow_log: Path | None = None
