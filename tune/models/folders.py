"""Folders that people take for a pretrained model, named for what they are, with what to do instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgetune.serve.errors import ModelError

_EXPECTED = "a model folder as save_pretrained writes it, with config.json and model.safetensors"
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
# Weights of other programs: pattern, what the folder then holds, and where the weights for PyTorch come from.
_FOREIGN = (
    ("*.onnx", "an ONNX graph and no weights for PyTorch, so it cannot be tuned"),
    ("onnx/*.onnx", "an ONNX graph and no weights for PyTorch, so it cannot be tuned"),
    ("*.gguf", "a GGUF file and no weights for PyTorch, so it cannot be tuned"),
    ("openvino_model.xml", "an OpenVINO graph and no weights for PyTorch, so it cannot be tuned"),
    ("*.tflite", "a TensorFlow Lite graph and no weights for PyTorch, so it cannot be tuned"),
    ("tf_model.h5", "weights for TensorFlow alone"),
    ("flax_model.msgpack", "weights for Flax alone"),
)


def misplaced(folder: Path) -> ModelError | None:
    """The error that says what a folder is that is no pretrained model; None where nothing speaks against it."""
    if (folder / "manifest.json").is_file() and (folder / "golden.json").is_file() and not _has_weights(folder):
        return _fault(f"{folder} is a bundle that edgetune has built", "name the base that the bundle was built from")
    if (folder / "adapter_config.json").is_file() and not _has_weights(folder, but="adapter_*"):
        return _adapter(folder)
    if not (folder / "config.json").is_file() and (inner := _transformer_of(folder)):
        return _fault(
            f"{folder} is a sentence-transformers folder that keeps its model in {inner.name}/",
            f"name {inner} as the base, and its pooling: --set tune.pooling=mean",
        )
    if _has_weights(folder):
        return None
    for pattern, words in _FOREIGN:
        if path := next(iter(sorted(folder.glob(pattern))), None):
            action = "name the model that it was made from, or copy model.safetensors from the model's source"
            return _fault(f"{folder} holds {words} ({path.relative_to(folder)})", action)
    return None


def remarks(folder: Path) -> tuple[str, ...]:
    """What a user should know of a folder whose model can be tuned."""
    if any(folder.glob("model_head.*")) or (folder / "config_setfit.json").is_file():
        return (
            "The base is a SetFit model: its body is taken, and its own head is not, since every head is learnt anew.",
        )
    return ()


def _has_weights(folder: Path, but: str = "") -> bool:
    excluded = set(folder.glob(but)) if but else set()
    return any(path not in excluded for pattern in _WEIGHTS for path in folder.glob(pattern))


def _adapter(folder: Path) -> ModelError:
    settings = _json(folder / "adapter_config.json")
    given = settings if isinstance(settings, dict) else {}
    kind, base = (
        given.get("peft_type") or "PEFT",
        given.get("base_model_name_or_path") or "a model that it does not name",
    )
    return _fault(
        f"{folder} is a {'LoRA' if kind == 'LORA' else kind} adapter of {base}, not a model",
        f"name {base} as the base; or merge the adapter into it first, with peft's merge_and_unload() and "
        "save_pretrained(), and name that folder",
    )


def _transformer_of(folder: Path) -> Path | None:
    """The sub-folder of the model itself, by the list of a sentence-transformers folder."""
    modules = _json(folder / "modules.json")
    for module in modules if isinstance(modules, list) else ():
        inner = folder / str(module.get("path", "")) if isinstance(module, dict) else folder
        if (
            inner != folder
            and (inner / "config.json").is_file()
            and str(module.get("type", "")).endswith("Transformer")
        ):
            return inner
    return None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _fault(found: str, action: str) -> ModelError:
    return ModelError(f"{found}.", expected=_EXPECTED, action=action)
