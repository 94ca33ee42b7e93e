"""The files that turn prompts into token ids at run time, and the proof that they give those of training. A gate.

What a client sends goes through the runtime's own tokenizer and template here, by route: a text as completions and
`predict --raw` take it, a chat as OpenAI's clients send it, tool calls with their arguments as JSON text included.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.errors import EdgetuneError, ParityError
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.template import TEMPLATE_NAME, TOKENIZER_CONFIG_NAME, ChatTemplate
from edgetune.tune.stepwise.encoding import Request

_COPIED = (TOKENIZER_CONFIG_NAME, "special_tokens_map.json")
SHOWN_CHARACTERS = 60


def write_tokenizer(model_folder: Path, template: str | None, folder: Path) -> None:
    """Write tokenizer.json and what goes with it, as a bundle has them.

    Args:
        model_folder: the merged model with its tokenizer.
        template: of chats; None for a model that was tuned on texts or completions.
        folder: where they go.
    """
    # A base's tokenizer.json may carry a truncation and a padding of its own, which would cut prompts unseen.
    tokenizer = Tokenizer.from_file(str(model_folder / TOKENIZER_NAME))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(folder / TOKENIZER_NAME))
    for name in _COPIED:
        if (model_folder / name).is_file():
            shutil.copyfile(model_folder / name, folder / name)
    if template is not None:
        (folder / TEMPLATE_NAME).write_text(template, encoding="utf-8", newline="\n")
    else:
        _drop_template(folder / TOKENIZER_CONFIG_NAME)


def _drop_template(path: Path) -> None:
    """A model that learnt to go on with texts would be asked by a template that it was never tuned with."""
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("chat_template", None) is not None:
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_requests(folder: Path, requests: Sequence[Request]) -> None:
    """Compare the ids that the files in `folder` give for requests with those that training fed for them.

    Raises:
        ParityError: naming the first request that differs, and where.
    """
    codec, template = TokenCodec(folder / TOKENIZER_NAME), ChatTemplate.open(folder)
    faults = [fault for request in requests if (fault := _fault(codec, template, request))]
    if faults:
        raise ParityError(
            f"The runtime reads {len(faults)} of {len(requests)} prompts otherwise than training did. {faults[0]}",
            expected="the token ids of training",
            action="report this with the base model's name; nothing was written to the output",
        )


def _fault(codec: TokenCodec, template: ChatTemplate | None, request: Request) -> str:
    """What is wrong with one request, or nothing."""
    prompt = request.prompt
    shown = (prompt if isinstance(prompt, str) else str(prompt[-1]["content"]))[:SHOWN_CHARACTERS]
    try:
        if isinstance(prompt, str):
            ids = codec.encode(prompt)
        elif template is None:
            return f"{shown!r} is a chat, and no chat template was saved."
        else:
            ids = codec.encode(template.render(prompt, tools=request.tools), special=False)
    except EdgetuneError as error:
        return f"{shown!r}: {error.found}"
    if ids == request.ids:
        return ""
    pairs = zip(ids, request.ids, strict=False)
    place = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(request.ids)))
    return (
        f"{shown!r} becomes {len(ids):,} tokens, where training had {len(request.ids):,}; they differ from token "
        f"{place:,} on: {codec.decode(ids[place:][:8], special=True)!r} for "
        f"{codec.decode(request.ids[place:][:8], special=True)!r}."
    )
