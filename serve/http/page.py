"""GET /, for a person with a browser: what is loaded, with each bundle's own figures and its own report.

Everything that comes from a bundle is escaped. The page at / runs the server's own script, which lets a person ask; no
other page may load or run anything but its own style.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Sequence
from html import escape
from importlib.metadata import version
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from edgetune.serve.bundle import MOST_JSON_BYTES
from edgetune.serve.codecs import describe_codec, takes_files
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.files import read_regular
from edgetune.serve.heads import describe_heads
from edgetune.serve.http.access import visit_of
from edgetune.serve.http.errors import Refused, sayable
from edgetune.serve.http.openai.faults import CHAT_PATH
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.served import Served, State
from edgetune.serve.http.try_form import POLICY, SCRIPT_PATH, judge_form, try_form
from edgetune.serve.report import Report
from edgetune.serve.stepwise.report import LanguageReport

REPORT_PAGE = "report.html"

# A report comes with its bundle, which may come from anywhere: no script, no foreign picture, no form, no frame.
SAFETY = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; padding: 1.5rem; max-width: 60rem; }
h1 small { font-weight: normal; opacity: .7; font-size: 60%; }
section { border: 1px solid #8886; border-radius: .5rem; padding: .25rem 1rem 1rem; margin: 1rem 0; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1.25rem; margin: 0; }
dt { opacity: .7; } dd { margin: 0; }
.READY { color: #1a7f37; } .LOADING { color: #9a6700; } .UNAVAILABLE { color: #cf222e; }
code, pre { background: #8882; border-radius: .25rem; padding: .1rem .3rem; overflow-x: auto; }
form { display: grid; gap: .5rem; margin: 1rem 0; } textarea, input { font: inherit; }
.drop { border: 2px dashed #8888; border-radius: .5rem; padding: 1rem; } .drop img { display: block; margin: .5rem 0; }
pre { padding: .75rem; } table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: left; }
"""


def html_response(page: str, status: int = 200, policy: str = "") -> Response:
    """A page with the headers that keep it to itself; `policy` is another of its content than `SAFETY` has."""
    headers = {**SAFETY, **({"content-security-policy": policy} if policy else {})}
    return Response(page.encode("utf-8", "replace"), status, headers, media_type="text/html")


def html_page(title: str, body: str) -> str:
    """A whole document; `body` is HTML, `title` is not."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>{body}</body></html>"
    )


_CHAT = CHAT_PATH + """ -d '{"messages": [{"role": "user", "content": "Hello"}]}'"""
_EXAMPLES = {"text": "my card has not arrived", "text_pair": "the card is late"}
_PICTURE = "/v1/classify -F image=@photo.jpg"


def _classify(parts: Sequence[str]) -> str:
    """What to ask a model whose inputs have these parts."""
    if "image" in parts:
        return _PICTURE
    body = json.dumps({part: _EXAMPLES[part] for part in parts})
    return f"/v1/classify -d '{body}'"


class PageRoutes:
    """The pages for people."""

    def __init__(self, repository: Repository, *, votes: bool = False) -> None:
        self._repository = repository
        self._votes = votes

    async def home(self, request: Request) -> Response:
        """GET /"""
        visit_of(request.scope).route = "home"
        models = "".join(self._section(name) for name in sorted(self._repository.states()))
        host, port = request.scope.get("server") or ("localhost", 8000)  # never the Host header, which may be anything
        example = escape("\n".join(f"curl {host}:{port}{question}" for question in self._questions()))
        body = (
            f"<h1>edgetune <small>{escape(version('edgetune'))}</small></h1>"
            f"{models or '<p>No model is loaded.</p>'}<pre>{example}</pre>"
            '<p><a href="/docs">routes</a> · <a href="/openapi.json">OpenAPI</a> · <a href="/metrics">metrics</a> · '
            '<a href="/v2/health/ready">health</a></p>'
            f'<script src="{SCRIPT_PATH}" defer></script>'
        )
        return html_response(html_page("edgetune", body), policy=POLICY)

    def _questions(self) -> list[str]:
        """What to ask the models that are loaded: a route and a body of each kind; classify's where there is none."""
        questions = set()
        for name in self._repository.states():
            with contextlib.suppress(EdgetuneError), self._repository.lease(name) as served:
                questions.add(_CHAT if served.generates else _classify(served.predictor.codec.parts))
        return sorted(questions or {_classify(("text",))}, reverse=True)

    async def report(self, request: Request) -> Response:
        """GET /models/{name}/report: the page that the build packed, and no other file of the folder."""
        visit_of(request.scope).route = "report"
        with self._repository.lease(request.path_params["name"]) as served:
            bundle = served.bundle
            page = None
            if REPORT_PAGE in bundle.manifest.files:
                page = await asyncio.to_thread(_read, served)
        if page is None:
            raise Refused(
                404, f"The bundle of {served.name!r} has no {REPORT_PAGE}.", expected="a bundle with a report"
            )
        return Response(page, 200, SAFETY, media_type="text/html")

    def _section(self, name: str) -> str:
        state, served_version, reason = self._repository.states()[name]
        facts = {"version": served_version} if served_version else {}
        if reason:
            facts["reason"] = reason
        report, form = "", ""
        try:
            with self._repository.lease(name) as served:
                facts |= _facts(served)
                if not served.generates and state is State.READY:
                    codec, predictor = served.bundle.manifest.codec, served.predictor
                    votes = self._votes and predictor.head.spec.kind == "label" and not takes_files(codec)
                    form = try_form(name, codec, predictor.codec.parts, ranked=predictor.head.ranked, votes=votes)
                elif state is State.READY and self._votes:
                    form = judge_form(name)
                if REPORT_PAGE in served.bundle.manifest.files:
                    report = f'<p><a href="/models/{quote(name, safe="")}/report">report of its build</a></p>'
        except EdgetuneError:
            report, form = "", ""
        rows = "".join(f"<dt>{escape(term)}</dt><dd>{escape(sayable(words))}</dd>" for term, words in facts.items())
        heading = f'<h2>{escape(name)} <small class="{state.value}">{state.value.lower()}</small></h2>'
        return f'<section>{heading}<dl class="facts">{rows}</dl>{form}{report}</section>'


def _read(served: Served) -> bytes | None:
    """The bundle's page, None where it has gone from the disk since it was opened."""
    try:
        path = served.bundle.path(REPORT_PAGE)
        return None if path is None else read_regular(path, MOST_JSON_BYTES)
    except OSError:
        return None


def _scheme(served: Served) -> str:
    """What answers, and of a cascade what does so first."""
    manifest = served.bundle.manifest
    scheme = served.predictor.variant_reason if len(manifest.graphs) > 1 else manifest.scheme
    return f"{manifest.cascade.scheme} where it is sure, then {scheme}" if manifest.cascade else scheme


def _facts(served: Served) -> dict[str, str]:
    """What the bundle is, and what its build measured."""
    manifest = served.bundle.manifest
    facts = {
        "bundle": f"{manifest.name}, built {manifest.created}",
        "base": manifest.base.id,
        "task": manifest.task,
        **({} if served.generates else {"answer": describe_heads(served.predictor.heads, 6)}),
        **_longest(served),
        "scheme": _scheme(served),
        "runs on": ", ".join(served.answerer.providers),
    }
    report = served.report
    if report is None:
        return facts
    facts |= _language_figures(report) if isinstance(report, LanguageReport) else _figures(report)
    if report.size_bytes.bundle:
        facts["size"] = f"{report.size_bytes.bundle / 1e6:.1f} MB"
    busy = "" if report.timing_valid else ", too busy to judge speed"
    return {**facts, "measured on": f"{report.machine.cpu}, {report.machine.threads} threads{busy}"}


def _longest(served: Served) -> dict[str, str]:
    manifest = served.bundle.manifest
    if not served.generates and takes_files(manifest.codec):
        return {"input": describe_codec(manifest.codec)}
    return {"context" if served.generates else "longest text": f"{manifest.max_tokens} tokens"}


def _figures(report: Report) -> dict[str, str]:
    figures = {}
    packed = report.packed
    if packed is not None:
        metric = report.quality.metric
        constant = report.constant(metric)
        beside = "" if constant is None else f", a constant answer {constant:.4f}"
        figures["quality"] = f"{metric} {packed.value:.4f}, {packed.drop:+.4f} lost to the tuned model{beside}"
    times = report.latency_ms
    if times is not None and times.bundle.p50 is not None and times.base.p50 is not None:
        faster = f", {times.speedup.p50:.1f} times faster" if times.speedup.p50 else ""
        figures["one text, p50"] = f"{times.bundle.p50:.2f} ms, base model {times.base.p50:.2f} ms{faster}"
    if report.throughput_per_second is not None and report.throughput_per_second.bundle:
        figures["texts per second"] = f"{report.throughput_per_second.bundle:,.0f}"
    return figures


def _language_figures(report: LanguageReport) -> dict[str, str]:
    figures = {}
    if report.packed is not None:
        metric, value, rise = report.quality.metric, report.packed.value, report.packed.rise
        figures["quality"] = f"{metric} {value:.4g}, {100 * rise:+.2f}% against the tuned model"
    alone = next((one for one in report.decoding if one.batch == 1), None)
    if alone is not None and alone.bundle_per_second is not None:
        base = f", base model {alone.base_per_second:.0f}" if alone.base_per_second is not None else ""
        figures["tokens per second"] = f"{alone.bundle_per_second:.0f}{base}"
    return figures
