"""What a decoder graph is, as its bundle's manifest tells it: the sizes of its cache, the names of its tensors.

It stands apart because every stage that makes or reads a decoder graph shares it, and the manifest embeds it.
Must import nothing but msgspec, so that reading a manifest needs no ONNX Runtime.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Dimension = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
# Also of encoders: the most tokens of an input.
Tokens = Annotated[int, msgspec.Meta(ge=1, le=2**24)]
Parts = Annotated[list[str], msgspec.Meta(min_length=1, max_length=8)]
TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class FirstCacheSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Keys and values of `tokens` virtual tokens that sequences start from, in `file` beside the graph.

    `name` is what requests choose it by; "" where it is the bundle's only one. The file holds, in the order of the
    graph's cache, float32 of (1, kv_heads, tokens, head_dim) each, little-endian, and nothing else.
    """

    file: str
    tokens: Annotated[int, msgspec.Meta(ge=1, lt=65_536)]
    name: str = ""


class GenerationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The cache, the limits and the special tokens of one decoder graph.

    `layers`, `kv_heads` and `head_dim` shape the cache: of each layer and part (batch, kv_heads, tokens, head_dim)
    float32 (the graph itself says the shapes again; an opened session is compared with these). `vocabulary` is the
    width of the logits, `context_tokens` the most tokens of prompt and answer together. A token of `eos_ids` ends an
    answer and is not part of its text.

    `past` and `present` are the names of the graph's inputs and outputs, with {layer} and {part} to be filled in
    from 0 and from `parts`. `batch_one` marks the graph whose batch is fixed to one (grouped-query attention fused).
    `in_place` marks one that reads the length of its cache from the attention mask: its past may be longer than what it
    holds, and it writes the new keys and values into it where the present is the same memory. `begins_apart` marks one
    whose attention rotates queries and keys itself, in a first step by the first row's positions: rows of unlike length
    take their first steps one by one, and all others together.

    `first_caches` are what sequences start from instead of an empty cache; `context_tokens` are beside their tokens.
    """

    layers: Dimension
    kv_heads: Dimension
    head_dim: Dimension
    vocabulary: Tokens
    context_tokens: Tokens
    eos_ids: list[TokenId]
    bos_id: TokenId | None = None
    pad_id: TokenId | None = None
    past: str = "input.past_key_values.layers.{layer}.{part}"
    present: str = "output.past_key_values.layers.{layer}.{part}"
    parts: Parts = msgspec.field(default_factory=lambda: ["keys", "values"])
    batch_one: bool = False
    in_place: bool = False
    begins_apart: bool = False
    first_caches: list[FirstCacheSpec] = []

    def past_names(self) -> tuple[str, ...]:
        """The graph's cache inputs, layer by layer, in the order of `present_names`."""
        return self._names(self.past)

    def present_names(self) -> tuple[str, ...]:
        """The graph's cache outputs, layer by layer: each is the input of the same place in the next step."""
        return self._names(self.present)

    def _names(self, pattern: str) -> tuple[str, ...]:
        """`pattern` filled in; not by `str.format`, which would obey whatever else a manifest has in braces."""
        return tuple(
            pattern.replace("{layer}", str(layer)).replace("{part}", part)
            for layer in range(self.layers)
            for part in self.parts
        )
