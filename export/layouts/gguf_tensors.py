"""The weights of a merged model as a GGUF file has them: renamed, turned, and with rotated rows in llama.cpp's order.

Sources: llama.cpp's conversion/*.py and the tables of names in the package `gguf`, which the caller imports. Needs the
floor only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.export.layouts.gguf_families import Family, family_of, rope_of, sizes_of
from edgetune.export.stepwise.weights import Weight
from edgetune.serve.errors import BundleError
from edgetune.serve.json_types import JsonObject


@dataclass(frozen=True)
class Renamed:
    """A tensor on its way into the file: its new name, its weight, and what is done to its values.

    Attributes:
        name: in the format.
        weight: in the merged model.
        heads: the heads whose rows change their order; None leaves them.
        offset: what is added to each value.
        transposed: whether its two axes change places.
    """

    name: str
    weight: Weight
    heads: int | None = None
    offset: float = 0.0
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As the file has it, the outermost axis first."""
        return self.weight.shape[::-1] if self.transposed else self.weight.shape

    def read(self) -> NDArray[np.float32]:
        """Its values as the file has them."""
        values = self.weight.read()
        if self.transposed:
            values = np.ascontiguousarray(values.T)
        values = self.ordered(values)
        return values + np.float32(self.offset) if self.offset else values

    def ordered(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows (outputs, ...) in the order that the file has them in."""
        return rows if self.heads is None else interleaved(rows, self.heads)


def renamed_tensors(config: JsonObject, weights: dict[str, Weight], gguf: Any) -> list[Renamed]:
    """The tensors of a merged model under their names in the format.

    Raises:
        BundleError: the family's graph does not use one of the tensors.
    """
    family, sizes = family_of(config), sizes_of(config, family_of(config), 1)
    architecture = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = gguf.get_tensor_name_map(architecture, sizes.layers)
    heads = {"attn_q": sizes.heads, "attn_k": sizes.kv_heads} if family.pairs else {}
    used = {f"blk.{layer}.{part}" for layer in range(sizes.layers) for part in family.layer}
    used |= {"token_embd", "output_norm", "output", *(["position_embd"] if family.positions == "learnt" else [])}
    renamed = []
    for name, weight in weights.items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings", family.head == "tied"):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        stem, _, kind = new.rpartition(".")
        part = stem.split(".")[-1]
        if stem not in used or (kind == "bias" and not _has_bias(part, family)):
            raise BundleError(
                f"The weight {name} of this {config['model_type']} model is none that llama.cpp's graph uses.",
                action="choose another --layout",
            )
        offset = family.norm_offset if kind == "weight" and part.endswith("norm") else 0.0
        turned = family.conv1d and len(weight.shape) == 2 and stem.startswith("blk.")
        renamed.append(Renamed(new, weight, heads.get(part), offset, turned))
    return renamed


def _has_bias(part: str, family: Family) -> bool:
    return family.biases == "all" or part in family.biases


def interleaved(values: NDArray[Any], heads: int) -> NDArray[Any]:
    """The rows of a query or key projection, (heads x head_dim, ...), from halves to pairs.

    transformers rotates row i with row i + head_dim / 2 of a head, llama.cpp's Llama row 2i with row 2i + 1.
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def rope_factors(config: JsonObject, rotated: int) -> NDArray[np.float32] | None:
    """What the frequencies of Llama 3's scaled positions are divided by, (rotated / 2,); None for plain positions.

    Long waves turn `factor` times slower, short ones as before, those between by a share of both. Source: the Llama
    3.1 reference code, as `_compute_llama3_parameters` of transformers has it.
    """
    rope = rope_of(config)
    if rope.get("rope_type") != "llama3":
        return None
    waves = 2 * np.pi * rope["rope_theta"] ** (np.arange(0, rotated, 2) / rotated)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((rope["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    factors: NDArray[np.float32] = (1 / ((1 - share) / rope["factor"] + share)).astype(np.float32)
    return factors
