"""The folder that onnxruntime-genai opens: the bundle's own decoder graph, with a genai_config.json beside it.

By onnxruntime-genai 0.18: the keys are those that its model builder writes (onnxruntime_genai/models/builders/base.py)
and its C++ side reads (src/config.cpp). Its type "decoder" takes any decoder whose tensors the configuration names,
GPT-2 too, which its builder refuses. Needs the floor only.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgetune.export.layouts import copy_files, graph_files
from edgetune.export.layouts.embedded import read_json, read_source, write_json
from edgetune.serve.bundle import CONFIG_NAME, GRAPH_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import BundleError
from edgetune.serve.stepwise.spec import GenerationSpec

HELP = "onnxruntime-genai: its genai_config.json beside the bundle's graph, and a script that answers a prompt."
RUN = "pip install onnxruntime-genai tokenizers && python FOLDER/generate.py 'Once upon a time'"

CONFIG = "genai_config.json"
SCRIPT = "generate.py"
_COPIED = ("tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "generation_config.json")
# Widths and heads in config.json, and the words that some families have for them.
_WORDS = {"hidden_size": ("n_embd", "d_model"), "num_attention_heads": ("n_head", "n_heads")}
_INPUTS = ("input_ids", "attention_mask", "position_ids")

_SCRIPT = '''\
"""Answers a prompt greedily with onnxruntime-genai: python generate.py PROMPT [NEW_TOKENS]

The ids come from the tokenizers library: og.Tokenizer leaves out what tokenizer.json puts before a prompt.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when ONNX Runtime is imported, and on by default

import onnxruntime_genai
from tokenizers import Tokenizer

folder = Path(__file__).resolve().parent
limit = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["search"]["max_length"]
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
ids = tokenizer.encode(sys.argv[1]).ids
wanted = int(sys.argv[2]) if len(sys.argv) > 2 else 64
model = onnxruntime_genai.Model(str(folder))
settings = onnxruntime_genai.GeneratorParams(model)
settings.set_search_options(do_sample=False, max_length=min(limit, len(ids) + wanted))
generator = onnxruntime_genai.Generator(model, settings)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
print(tokenizer.decode([int(one) for one in generator.get_sequence(0)]))
'''

_README = """\
# For onnxruntime-genai

    pip install onnxruntime-genai tokenizers
    python generate.py "Once upon a time"

The graph is the bundle's own, byte for byte; genai_config.json names its tensors.

- Take the ids from tokenizer.json through the `tokenizers` library, as generate.py does. onnxruntime-genai's own
  tokenizer ignores the post-processor there, so that a model's first token would be missing.
- Make the text of a chat from chat_template.jinja, where there is one, with jinja2: onnxruntime-genai's own templating
  knows a part of Jinja alone.
- One prompt at a time{batch}. onnxruntime-genai wants batches padded on the right, and this graph gives the
  logits of the last place alone, which is then a padded one. For batches use edgetune's own runtime, or a graph
  that was exported with the logits of every token.
"""
_BATCH_ONE = ": the batch of this graph is one, by its profile"


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder: the graph, the tokenizer, genai_config.json, generate.py and how to use them.

    Raises:
        BundleError: the bundle holds no decoder.
    """
    spec = decoder_of(bundle)
    copied = [name for name in _COPIED if name in bundle.manifest.files]
    copy_files(bundle, [*graph_files(bundle), TOKENIZER_NAME, CONFIG_NAME, *copied], folder)
    write_json(folder / CONFIG, genai_config(bundle, spec))
    (folder / SCRIPT).write_text(_SCRIPT, encoding="utf-8")
    readme = _README.replace("{batch}", _BATCH_ONE if spec.batch_one else "")
    (folder / "README.md").write_text(readme, encoding="utf-8")


def decoder_of(bundle: Bundle) -> GenerationSpec:
    """The spec of a bundle's decoder graph.

    Raises:
        BundleError: it holds none.
    """
    spec: GenerationSpec | None = bundle.manifest.generation
    if spec is None:
        raise BundleError(
            f"The bundle {bundle.folder} answers {bundle.manifest.task}, and this layout is for language models.",
            expected="a bundle of the task text-generation",
            action="choose another --layout",
        )
    return spec


def genai_config(bundle: Bundle, spec: GenerationSpec) -> dict[str, object]:
    """The value of genai_config.json for a bundle's graph, with the tensors that it really has.

    Raises:
        BundleError: config.json does not say the model's width or heads, or no token ends an answer.
    """
    if not spec.eos_ids:
        raise BundleError(
            f"No token ends an answer of {bundle.folder}, and onnxruntime-genai wants one.",
            expected="an eos_token_id in the model's generation_config.json",
        )
    config = json.loads((bundle.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    keys, values = spec.parts
    taken = {tensor.name for tensor in bundle.manifest.inputs}
    inputs = {name: name for name in _INPUTS if name in taken}
    past = {"past_key_names": _numbered(spec.past, keys), "past_value_names": _numbered(spec.past, values)}
    present = {
        "present_key_names": _numbered(spec.present, keys),
        "present_value_names": _numbered(spec.present, values),
    }
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": GRAPH_NAME,
        "head_size": spec.head_dim,
        "hidden_size": _size(config, "hidden_size", bundle),
        "inputs": {**inputs, **past},
        "outputs": {"logits": "logits", **present},
        "num_attention_heads": _size(config, "num_attention_heads", bundle),
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
    }
    ends = spec.eos_ids
    model: dict[str, object] = {
        "type": "decoder",
        "context_length": spec.context_tokens,
        "vocab_size": spec.vocabulary,
        "eos_token_id": ends[0] if len(ends) == 1 else ends,
        "pad_token_id": ends[0] if spec.pad_id is None else spec.pad_id,
        "decoder": decoder,
    }
    if spec.bos_id is not None:
        model["bos_token_id"] = spec.bos_id
    search = {"do_sample": False, "max_length": spec.context_tokens, "past_present_share_buffer": False}
    return {"model": model, "search": search}


def _numbered(name: str, part: str) -> str:
    return name.replace("{layer}", "%d").replace("{part}", part)


def _size(config: dict[str, object], name: str, bundle: Bundle) -> int:
    size = next((config[word] for word in (name, *_WORDS[name]) if word in config), None)
    if not isinstance(size, int):
        raise BundleError(f"{CONFIG_NAME} of {bundle.folder} has no {name}.", expected="the model's own configuration")
    return size


def check(folder: Path) -> list[str]:
    """The faults of a folder, by what onnxruntime-genai reads when it opens one."""
    faults: list[str] = []
    read_json(folder / TOKENIZER_NAME, faults)
    read_source(folder / SCRIPT, faults)
    config = read_json(folder / CONFIG, faults)
    model, search = _part(config, "model", faults), _part(config, "search", faults)
    decoder = _part(model, "decoder", faults)
    graph = decoder.get("filename")
    if not isinstance(graph, str) or Path(graph).name != graph or not (folder / graph).is_file():
        faults.append(f"{CONFIG}: decoder.filename is {graph!r}, and no such file lies here")
    sizes = {"head_size", "hidden_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads"}
    faults += [
        f"{CONFIG}: decoder.{name} is {decoder.get(name)!r}" for name in sorted(sizes) if _no_count(decoder, name)
    ]
    faults += [
        f"{CONFIG}: {name} is {model.get(name)!r}"
        for name in ("context_length", "vocab_size")
        if _no_count(model, name)
    ]
    faults += _name_faults(_part(decoder, "inputs", faults), ("input_ids",), "past")
    faults += _name_faults(_part(decoder, "outputs", faults), ("logits",), "present")
    if search.get("past_present_share_buffer") is not False:
        faults.append(f"{CONFIG}: search.past_present_share_buffer is not false, and the graph's cache grows")
    length, limit = search.get("max_length"), model.get("context_length")
    if isinstance(length, int) and isinstance(limit, int) and length > limit:
        faults.append(f"{CONFIG}: search.max_length is {length}, past the context of {limit} tokens")
    return faults


def _part(value: dict[str, object], name: str, faults: list[str]) -> dict[str, object]:
    part = value.get(name)
    if isinstance(part, dict):
        return part
    if value:  # an outer part that is missing was told already
        faults.append(f"{CONFIG} has no {name}")
    return {}


def _no_count(value: dict[str, object], name: str) -> bool:
    count = value.get(name)
    return bool(value) and not (isinstance(count, int) and not isinstance(count, bool) and count >= 1)


def _name_faults(names: dict[str, object], expected: tuple[str, ...], cache: str) -> list[str]:
    if not names:
        return []
    faults = [f"{CONFIG}: the tensor {name} has no name" for name in expected if not isinstance(names.get(name), str)]
    for part in (f"{cache}_key_names", f"{cache}_value_names"):
        name = names.get(part)
        if not isinstance(name, str) or name.count("%d") != 1:
            faults.append(f"{CONFIG}: {part} is {name!r}, without one %d for the layer")
    return faults
