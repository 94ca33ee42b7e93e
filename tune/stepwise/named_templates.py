"""Chat templates for models that have none, by name. They are saved with the model and rendered wherever it answers.

Written as words, without special tokens but for those that every tokenizer has, so that they fit any vocabulary. The
place where an answer begins is also the border of a token: after a line break, or before the space that goes with the
answer. Must not import torch or transformers.
"""

from __future__ import annotations

# The tools that are offered and the calls that are made are written as JSON, an object a line.
_CALLS = """\
{%- for call in message['tool_calls'] or [] -%}
{{ '\\n' if message['content'] or not loop.first }}{{ call['function'] | tojson }}
{%- endfor -%}
"""

_PLAIN = """\
{%- if tools -%}
{{ '### Tools:\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '\\n' }}
{%- endif -%}
{%- for message in messages -%}
{{ '\\n\\n' if not loop.first }}{{ '### ' + message['role'] | capitalize + ':\\n' + (message['content'] or '') }}
{%- if message['role'] == 'assistant' -%}
CALLS
{{- eos_token -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\\n\\n### Assistant:\\n' }}
{%- endif -%}
""".replace("CALLS\n", _CALLS)

_PAIRS = """\
{%- for message in messages -%}
{{ '\\n' if not loop.first }}
{%- if message['role'] == 'user' -%}
{{ 'ASKS: ' + message['content'] }}
{%- elif message['role'] == 'assistant' -%}
{{ 'ANSWERS: ' + (message['content'] or '') }}
CALLS
{{- eos_token -}}
{%- else -%}
{{ message['content'] }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '\\nANSWERS:' }}
{%- endif -%}
""".replace("CALLS\n", _CALLS)

_BOS = "{{- bos_token -}}\n"

NAMED_TEMPLATES = {
    "plain": _PLAIN,
    "human-ai-en": _PAIRS.replace("ASKS", "Human").replace("ANSWERS", "Assistant"),
    "human-ai-zh": _PAIRS.replace("ASKS", "人类").replace("ANSWERS", "AI"),
}


def named_template(name: str, *, with_bos: bool) -> str:
    """The Jinja text of a named template; `with_bos` where the tokenizer itself begins every text with its BOS."""
    return (_BOS if with_bos else "") + NAMED_TEMPLATES[name]
