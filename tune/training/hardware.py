"""Which device trains, and whether bf16 is fast on it."""

from __future__ import annotations

from typing import Literal

import torch

from edgetune.serve.errors import ProviderError


def choose_device(device: Literal["auto", "cpu", "cuda"]) -> str:
    """`cpu` or `cuda`: what was asked for, or the GPU where there is one.

    Raises:
        ProviderError: a GPU was asked for and torch sees none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ProviderError(
            "The device 'cuda' was asked for, and torch sees no NVIDIA GPU.",
            action="use --device cpu, or see `edgetune doctor`",
        )
    return "cuda" if available and device != "cpu" else "cpu"


def fast_bf16(device: str) -> bool:
    """Whether this device multiplies bf16 in hardware; without that bf16 on a CPU is slower than fp32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
