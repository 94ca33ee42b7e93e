"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314) by bitsandbytes: frozen weights in 4 or 8 bits, on a CPU or a GPU.

It saves memory, not time. What stays in full precision is decided and said here, and the quantized weights come out
again here: a merge starts from what training has seen, not from the original weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from edgetune.serve.errors import MissingDependency, ModelError
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.model import language_config, open_pretrained
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from types import ModuleType

    from transformers import PreTrainedConfig, PreTrainedModel

    from edgetune.tune.models.types import Model

# The switch of bitsandbytes' 4-bit inference kernel for processors with AVX512-BF16. That kernel repacks the weights at
# the first evaluation, for shapes of whole 32 x 64 blocks only, and its result has no gradient: the training that goes
# on after an evaluation would lose what flows through the frozen weights.
_SWITCH = "support_avx512bf16_for_cpu"
_ROWS, _BLOCK = 32, 64


def open_quantized(
    base: Base, recipe: GenerationTuneRecipe, *, device: str, bf16: bool, progress: Progress
) -> PreTrainedModel:
    """The pretrained model with its linear layers in 4 or 8 bits, all of it frozen.

    Raises:
        MissingDependency: bitsandbytes is not installed.
        ModelError: no layer can be quantized.
    """
    bitsandbytes = _bitsandbytes()
    nf4 = recipe.qlora.weights == "nf4"
    linear, head = _layers(language_config(base, trust_remote_code=recipe.trust_remote_code), recipe)
    refused = refused_shapes(linear) if nf4 and device == "cpu" and not _kernel_has_switch(bitsandbytes) else []
    if refused:
        progress.say(
            f"qlora: {len(refused)} of {len(linear)} layers stay in fp32, whose shapes the processor's 4-bit kernel "
            f"refuses (it wants outputs divisible by {_ROWS} and inputs by {_BLOCK}); first {refused[0]}"
        )
    if len(refused) == len(linear):
        raise ModelError(
            f"None of the {len(linear)} linear layers of {base.id} can be held in {recipe.qlora.weights}.",
            expected="linear layers whose shapes bitsandbytes takes",
            action="use method lora",
        )
    settings = BitsAndBytesConfig(
        load_in_4bit=nf4,
        load_in_8bit=not nf4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=recipe.qlora.double_quantization,
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16 and device == "cuda" else torch.float32,
        llm_int8_skip_modules=[*refused, *head],
    )
    # Quantized weights stay where they are opened: under accelerate each process has a GPU of its own.
    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
    model = open_pretrained(base, trust_remote_code=recipe.trust_remote_code, quantization=settings, device=place)
    model.requires_grad_(False)
    for _, layer in quantized_layers(model):
        if hasattr(layer, _SWITCH):
            setattr(layer, _SWITCH, False)
    progress.say(_summary(model, recipe.qlora.weights))
    return model


def refused_shapes(layers: dict[str, tuple[int, int]]) -> list[str]:
    """Names of the layers, given as {name: (outputs, inputs)}, that the 4-bit inference kernel does not take."""
    return [name for name, (outputs, inputs) in layers.items() if outputs % _ROWS or inputs % _BLOCK]


def quantized_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear layers of bitsandbytes in a model, by name."""
    bitsandbytes = _bitsandbytes()
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    yield from ((name, module) for name, module in model.named_modules() if isinstance(module, kinds))


def dequantized(layer: Any) -> torch.Tensor:
    """The weight of a layer as training has seen it, (outputs, inputs) float32."""
    import bitsandbytes

    weight = layer.weight
    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()
    # Not by bitsandbytes' or peft's functions, which move the scales and leave a layer that has not run yet broken.
    scales = layer.state.SCB if weight.SCB is None else weight.SCB
    return weight.data.float() * scales[:, None].float() / 127


@contextmanager
def exact_arithmetic(model: nn.Module) -> Iterator[None]:
    """Let quantized layers multiply by their de-quantized weights in fp32, without the kernels' own rounding.

    A model without quantized layers is left as it is.
    """
    changed: list[Any] = [layer for _, layer in quantized_layers(model)] if is_quantized(model) else []
    for layer in changed:
        layer.forward = _plain_forward(layer)
    try:
        yield
    finally:
        for layer in changed:
            del layer.forward


def is_quantized(model: Model) -> bool:
    """Whether transformers has opened the model in 4 or 8 bits."""
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(getattr(inside, "is_loaded_in_4bit", False) or getattr(inside, "is_loaded_in_8bit", False))


def _plain_forward(layer: Any) -> Any:
    def forward(inputs: torch.Tensor) -> torch.Tensor:
        bias = None if layer.bias is None else layer.bias.float()
        return nn.functional.linear(inputs.float(), dequantized(layer), bias)

    return forward


def _layers(config: PreTrainedConfig, recipe: GenerationTuneRecipe) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """(outputs, inputs) of each linear layer but the head, and the head's names, without weights in memory."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=recipe.trust_remote_code)
    head = model.get_output_embeddings()
    shapes = {}
    for name, module in model.named_modules():
        if type(module) is nn.Linear and module is not head:
            shapes[name] = (module.out_features, module.in_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (module.weight.shape[1], module.weight.shape[0])
    return shapes, [name for name, module in model.named_modules() if module is head]


def _kernel_has_switch(bitsandbytes: ModuleType) -> bool:
    return hasattr(bitsandbytes.nn.Linear4bit(_BLOCK, _ROWS, device="meta"), _SWITCH)


def _summary(model: nn.Module, weights: str) -> str:
    layers = [layer for _, layer in quantized_layers(model)]
    held = sum(layer.in_features * layer.out_features for layer in layers)  # type: ignore[operator, misc]
    return f"qlora: {len(layers)} layers with {held:,} weights are held in {weights}, the head and the rest in fp32"


def _bitsandbytes() -> ModuleType:
    try:
        import bitsandbytes
    except ModuleNotFoundError as error:
        raise MissingDependency("bitsandbytes is not installed.", action="pip install 'edgetune[llm]'") from error
    return bitsandbytes
