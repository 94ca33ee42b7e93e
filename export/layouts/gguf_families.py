"""What a GGUF file says of each family of models, and which of them llama.cpp computes as transformers does.

llama.cpp writes a family's graph in C++: its activation, its scales and its windows are not in the file. So a model
that asks for others is refused here, by the words of its config.json: it would open, and give other tokens. Sources:
llama.cpp's src/models/*.cpp and conversion/*.py. Needs the floor only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgetune.serve.errors import BundleError
from edgetune.serve.json_types import JsonObject

_SILU = ("silu", "swish")
_TANH_GELU = ("gelu_new", "gelu_pytorch_tanh")

# Of a layer's weights, by the format's names: what their axes are, the innermost first.
_NORMS = {"attn_norm": ("width",), "ffn_norm": ("width",)}
_OUTPUT = {"attn_output": ("queries", "width"), "ffn_down": ("inner", "width"), "ffn_up": ("width", "inner")}
_APART = {"attn_q": ("width", "queries"), "attn_k": ("width", "keys"), "attn_v": ("width", "keys")}
_FUSED = {"attn_qkv": ("width", "fused")}
# Where the heads together must be as wide as the model.
_AS_WIDE = {"attn_q": ("width", "width"), "attn_output": ("width", "width")}
_GATED = {**_NORMS, **_APART, **_OUTPUT, "ffn_gate": ("width", "inner")}
_HEAD_NORMS = {"attn_q_norm": ("head_dim",), "attn_k_norm": ("head_dim",)}
_AFTER_NORMS = {"post_attention_norm": ("width",), "post_ffw_norm": ("width",)}
_QKV = frozenset({"attn_q", "attn_k", "attn_v"})
_ALL = "all"


@dataclass(frozen=True)
class Family:
    """How the models of one `model_type` are told.

    Attributes:
        architecture: llama.cpp's name of the graph.
        layer: the weights of a layer, by the format's names, with their axes.
        activations: the words of config.json for the one activation of the graph.
        biases: the parts of a layer that may have a bias; "all" stands for every part, the head too.
        pairs: whether the rows of queries and keys are rotated in pairs, not in halves.
        layer_norms: whether its norms take the mean away too.
        norm_offset: what is added to the weights of its norms, which transformers adds when it computes.
        conv1d: whether its matrices lie (in, out), as GPT-2's do.
        positions: "rotary", or "learnt" as a table.
        windows: whether its graph knows that some layers see the last tokens alone.
        head: "free", "tied" where it must be the embedding, or "apart" where it must not.
        scaled_by_width_at: the number of layers at which attention is scaled by the model's width a head.
        settings: further words of config.json, each with the values that its graph stands for.
    """

    architecture: str
    layer: dict[str, tuple[str, ...]]
    activations: tuple[str, ...] = _SILU
    biases: frozenset[str] | str = frozenset()
    pairs: bool = False
    layer_norms: bool = False
    norm_offset: float = 0.0
    conv1d: bool = False
    positions: str = "rotary"
    windows: bool = False
    head: str = "free"
    scaled_by_width_at: int | None = None
    settings: dict[str, tuple[object, ...]] = field(default_factory=dict)


_LLAMA = Family("llama", _GATED, pairs=True, biases=_QKV | {"attn_output", "ffn_gate", "ffn_up", "ffn_down"})
_NO_BIDIRECTION: dict[str, tuple[object, ...]] = {"use_bidirectional_attention": (None, False)}

# By `model_type` of config.json.
FAMILIES = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "smollm3": Family("smollm3", _GATED, pairs=True, biases=_QKV),
    "qwen2": Family("qwen2", {**_GATED, **_AS_WIDE}, biases=_QKV),
    "qwen3": Family("qwen3", {**_GATED, **_HEAD_NORMS}, biases=_QKV),
    "gemma": Family(
        "gemma", _GATED, activations=_TANH_GELU, norm_offset=1.0, head="tied", settings=_NO_BIDIRECTION
    ),
    "gemma2": Family(
        "gemma2", {**_GATED, **_AFTER_NORMS}, activations=_TANH_GELU, norm_offset=1.0, windows=True, head="tied",
        settings=_NO_BIDIRECTION, scaled_by_width_at=46,
    ),
    "gemma3_text": Family(
        "gemma3", {**_GATED, **_HEAD_NORMS, **_AFTER_NORMS}, activations=_TANH_GELU, norm_offset=1.0, windows=True,
        settings={**_NO_BIDIRECTION, "attn_logit_softcapping": (None,)}, scaled_by_width_at=62,
    ),
    "phi": Family(
        "phi2", {"attn_norm": ("width",), **_APART, **_OUTPUT, **_AS_WIDE}, activations=_TANH_GELU, biases=_ALL,
        layer_norms=True, head="apart", settings={"qk_layernorm": (None, False)},
    ),
    "phi3": Family("phi3", {**_NORMS, **_FUSED, **_OUTPUT, "ffn_up": ("width", "twice")}),
    "gpt2": Family(
        "gpt2", {**_NORMS, **_FUSED, **_OUTPUT}, activations=_TANH_GELU, biases=_ALL, layer_norms=True, conv1d=True,
        positions="learnt",
        settings={
            "scale_attn_weights": (None, True),
            "scale_attn_by_inverse_layer_idx": (None, False),
            "add_cross_attention": (None, False),
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model as the format counts them, all in units of numbers but `context`, in tokens.

    `rotated` is how many numbers of a head its position rotates; `window` how many tokens a windowed layer sees, None
    where every layer sees all; `windowed` says which layers those are.
    """

    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rotated: int
    context: int
    vocabulary: int
    window: int | None
    windowed: tuple[bool, ...]

    def axis(self, name: str) -> int:
        """The size of an axis as `Family.layer` names it."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        named = {"width": self.width, "inner": self.inner, "twice": 2 * self.inner, "head_dim": self.head_dim}
        return {**named, "queries": queries, "keys": keys, "fused": queries + 2 * keys}[name]


def sizes_of(config: JsonObject, family: Family, context_tokens: int) -> Sizes:
    """The sizes that a config.json tells.

    Args:
        config: its value.
        family: that of its model_type.
        context_tokens: the most tokens of prompt and answer together that the bundle takes.
    """
    width, heads = _first(config, "hidden_size", "n_embd"), _first(config, "num_attention_heads", "n_head")
    layers = _first(config, "num_hidden_layers", "n_layer")
    head_dim = config.get("head_dim") or width // heads
    window, windowed = _window(config, layers)
    context = context_tokens
    if family.positions == "learnt":
        context = config["n_positions"]  # the table has a row for each
    elif window and not family.windows:
        context = min(context, window)  # as long as that, every layer sees all
    share = rope_of(config).get("partial_rotary_factor") or 1.0
    return Sizes(
        width=width,
        inner=config.get("intermediate_size") or config.get("n_inner") or 4 * width,
        layers=layers,
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=head_dim,
        rotated=int(head_dim * share),
        context=context,
        vocabulary=config["vocab_size"],
        window=window if family.windows else None,
        windowed=windowed if family.windows else (),
    )


def _first(config: JsonObject, *names: str) -> int:
    return int(next(config[name] for name in names if config.get(name) is not None))


def _window(config: JsonObject, layers: int) -> tuple[int | None, tuple[bool, ...]]:
    window, kinds = config.get("sliding_window"), config.get("layer_types")
    windowed = tuple(kind == "sliding_attention" for kind in kinds) if kinds else (True,) * layers
    used = window is not None and any(windowed) and config.get("use_sliding_window", True)
    return (window, windowed) if used else (None, (False,) * layers)


def rope_of(config: JsonObject, layers: str = "full_attention") -> JsonObject:
    """What rotates the positions, of the layers of a kind where they differ: the part of config.json as it stands.

    Args:
        config: the value of config.json, as transformers 5 writes it.
        layers: "full_attention" or "sliding_attention".
    """
    parameters: JsonObject = config.get("rope_parameters") or {}
    part: JsonObject = parameters.get(layers, parameters)
    return part


def family_of(config: JsonObject) -> Family:
    """The family of a model by its config.json.

    Raises:
        BundleError: it is none of FAMILIES, or llama.cpp's graph of the family would give other tokens.
    """
    kind = str(config.get("model_type"))
    reasons = unlike(config, FAMILIES[kind]) if kind in FAMILIES else [f"it is none of {', '.join(FAMILIES)}"]
    if reasons:
        raise BundleError(
            f"This {kind} model is not written as GGUF: {'; '.join(reasons)}.",
            expected="a model whose graph llama.cpp has just as transformers computes it",
            action="choose another --layout, or convert the hf layout's folder with llama.cpp's convert_hf_to_gguf.py",
        )
    return FAMILIES[kind]


def unlike(config: JsonObject, family: Family) -> list[str]:
    """What a model asks for that the graph of its family does not compute, each a clause; none where all is alike."""
    differences = [
        f"{name} is {config.get(name)!r}" for name, values in family.settings.items() if config.get(name) not in values
    ]
    names = ("hidden_activation", "hidden_act", "activation_function")
    activation = next((config[name] for name in names if config.get(name)), family.activations[0])
    if activation not in family.activations:
        differences.append(f"its activation is {activation}, not {family.activations[-1]}")
    tied = bool(config.get("tie_word_embeddings", family.head != "apart"))
    if family.head in ("tied", "apart") and tied is not (family.head == "tied"):
        differences.append(f"its head is {'' if tied else 'not '}the embedding")
    if family.positions == "rotary":
        differences += _unlike_positions(config, family)
    return differences + _unlike_attention(config, family)


def _unlike_positions(config: JsonObject, family: Family) -> list[str]:
    parts = [rope_of(config, layers) for layers in ("full_attention", "sliding_attention")]
    if any("rope_theta" not in part for part in parts):
        return ["its config.json has no rope_parameters with a rope_theta"]
    known = {"default", "llama3"} if family.architecture == "llama" else {"default"}
    differences = [
        f"its positions are scaled by {kind}"
        for kind in sorted({part.get("rope_type", "default") for part in parts} - known)
    ]
    if family.architecture not in ("phi2", "phi3") and any(part.get("partial_rotary_factor", 1) != 1 for part in parts):
        differences.append("its positions rotate a part of each head")
    return differences


def _unlike_attention(config: JsonObject, family: Family) -> list[str]:
    """The rules of single families, which no table of words holds."""
    differences = []
    if family.windows:
        wide = config["num_hidden_layers"] == family.scaled_by_width_at
        scale = config["hidden_size"] // config["num_attention_heads"] if wide else config.get("head_dim")
        if config.get("query_pre_attn_scalar") != scale:
            differences.append(f"its attention is scaled by {config.get('query_pre_attn_scalar')}, not {scale}")
    if family.architecture == "gemma2":
        caps = ("attn_logit_softcapping", "final_logit_softcapping")
        differences += [f"it has no {name}" for name in caps if not config.get(name)]
    if family.windows and not config.get("layer_types"):
        differences.append("its config.json has no layer_types")
    if family.windows and not config.get("sliding_window"):
        differences.append("its config.json has no sliding_window")
    if family.architecture == "smollm3":
        rotated = config.get("no_rope_layers")
        if rotated != [int((layer + 1) % 4 != 0) for layer in range(config["num_hidden_layers"])]:
            differences.append("other layers than each fourth go without positions")
    return differences
