"""Copies of the golden bundle to do harm to, and a tiny random llama with its decoder graph."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent.parent / "golden" / "bundle-v1"


@dataclass(frozen=True)
class BundleCopy:
    """A bundle's folder that a test may change."""

    folder: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def change(self, name: str, change: Callable[[Any], object]) -> None:
        """Change the JSON value of a file in place; the manifest is not told."""
        value = json.loads(self.path(name).read_text("utf-8"))
        change(value)
        self.path(name).write_text(json.dumps(value), "utf-8")

    def change_manifest(self, change: Callable[[Any], object]) -> None:
        self.change("manifest.json", change)

    def digest_again(self, name: str) -> None:
        """Let the manifest tell the size and digest that a changed file has now."""
        content = self.path(name).read_bytes()
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.change_manifest(lambda manifest: manifest["files"].update({name: entry}))


@pytest.fixture(scope="session")
def random_llama() -> Any:
    """A llama of transformers from a seed: two layers, 32 units, 320 tokens, a context of 256."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
        # Trained weights are larger than the usual 0.02: with it attention is flat and a lost mask goes unseen.
        pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="session")
def random_llama_graph(random_llama: Any, shared_folder: Callable[..., Path]) -> Callable[..., Path]:
    """`random_llama_graph()` is a folder of its graph and its weights alone; `rows=1`: the graph of fixed batch."""

    def graph(rows: int = 2) -> Path:
        return shared_folder(f"llama-of-{rows}", lambda folder: _export_llama(random_llama, folder, rows))

    return graph


@pytest.fixture(scope="session")
def export_llama() -> Callable[[Any, Path, int], None]:
    """`export_llama(model, folder, rows)` writes a graph and its weights as `random_llama_graph` does."""
    return _export_llama


def _export_llama(model: Any, folder: Path, rows: int) -> None:
    """One graph for prompt and steps, of rows of unlike length or, with fused attention, of one row.

    As export/generation makes it but without its code: the runtime's tests stand on the floor alone.
    """
    import torch
    from transformers.exporters import OnnxConfig, OnnxExporter
    from transformers.exporters.utils import decompose_for_generation

    ids = torch.arange(rows * 11).reshape(rows, 11)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : 2 * row] = 0
    with torch.inference_mode():
        sample = {"input_ids": ids, "attention_mask": mask}
        part, inputs = decompose_for_generation(model, sample, multi_token_decode=True)["decode"]
        inputs["logits_to_keep"] = 1
        fusions = None if rows > 1 else "cpu"
        OnnxExporter().export(part, inputs, OnnxConfig(dynamic=True, ort_fusions=fusions)).save_pretrained(folder)


@pytest.fixture
def bundle_copy(tmp_path: Path) -> BundleCopy:
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    return BundleCopy(folder)
