"""What a person tries a model with in a browser: a field to drop a picture in, or to type a text.

The script is the server's own file, /try.js, and asks this server alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from edgetune.serve.codecs import takes_files
from edgetune.serve.http.access import visit_of

SCRIPT_PATH = "/try.js"
# Of the page that has these forms: its own script and nobody else's, and pictures that the person dropped.
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def try_form(name: str, codec: str, parts: Sequence[str], *, ranked: bool, votes: bool = False) -> str:
    """The form of one model, as HTML.

    Args:
        name: the model's.
        codec: what its inputs are.
        parts: names of the texts of an input.
        ranked: whether the best few answers can be asked for.
        votes: whether the server keeps feedback, so that a person can vote on the answer.
    """
    if takes_files(codec):
        field = (
            '<label class="drop">Drop a picture here, paste one, or choose it: <input type="file" accept="image/*">'
            '<img hidden alt="the picture that was asked" width="224"></label>'
        )
    else:
        fields = [f'<textarea name="{escape(part)}" aria-label="{escape(part)}" rows="2"></textarea>' for part in parts]
        field = "".join(fields) + "<button>ask</button>"
    flags = (" data-ranked=1" if ranked else "") + (" data-votes=1" if votes else "")
    return f'<form data-ask="{escape(name)}"{flags}>{field}<output></output></form>'


def judge_form(name: str) -> str:
    """The form of one language model whose two answers to a prompt a person judges, as HTML: which is which is not
    told."""
    field = '<textarea name="prompt" aria-label="prompt" rows="2"></textarea><button>ask for two answers</button>'
    return f'<form data-judge="{escape(name)}">{field}<output></output></form>'


async def script(request: Request) -> Response:
    """GET /try.js"""
    visit_of(request.scope).route = "script"
    content = (files(__package__) / "try.js").read_bytes()
    return Response(content, headers={"x-content-type-options": "nosniff"}, media_type="text/javascript")
