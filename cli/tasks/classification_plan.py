"""What the build of a text classifier would do, with sizes and a time estimate, without doing it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.pack import check_place
from edgetune.plan import place_lines
from edgetune.recipe import Recipe
from edgetune.serve.cores import usable_cores
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base, known_labels, open_tokenizer
from edgetune.tune.models.forward import head_features
from edgetune.tune.models.model import chosen_pooling, longest_input, start_model
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.trainer import automatic_epochs

# Rough: a training pass relative to the trunk's forward pass over the same rows. lora and full are read off runs of
# MiniLM (docs/measurements, docs/log.md), freeze is a guess: it runs the top third alone. The plan calls its times an
# estimate; auto may stop an epoch earlier, or train nothing.
TRAINING_FACTOR = {"auto": 3.0, "probe": 0.0, "lora": 3.0, "freeze": 1.0, "full": 3.5}
STORING_FACTOR = {"freeze": 1.0}  # passes over the rows before training, to store what the frozen layers give
EXPORT_SECONDS, COMPRESS_SECONDS, BENCH_SECONDS = 15.0, 3.0, 45.0
SAMPLE = 128


@dataclass(frozen=True)
class ClassificationPlan:
    """What would be done. Seconds are estimates from one timed forward pass; sizes are bytes."""

    base: str
    base_bytes: int
    parameters: int
    data: str
    findings: tuple[str, ...]
    rows: dict[str, int]
    labels: int
    method: str
    pooling: str
    epochs: float
    device: str
    precision: str
    max_tokens: int
    schemes: tuple[str, ...]
    size_bytes: dict[str, int]
    work_bytes: int
    threads: int
    out: str
    replaces: bool
    seconds: dict[str, float]

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """Each stage and what it would do."""
        rows = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        sizes = ", ".join(f"{name} about {size / 1e6:.0f} MB" for name, size in self.size_bytes.items())
        training = f"{self.epochs:g} epochs in {self.precision} on {self.device}"
        base = f"{self.parameters / 1e6:.1f} million parameters, {self.base_bytes / 1e6:.1f} MB"
        return [
            ("data", f"{self.data}: {rows}; {self.labels} labels"),
            *(("", finding) for finding in self.findings),
            ("base", f"{self.base}: {base}"),
            (
                "tune",
                f"{self.method}, pooling {self.pooling}, at most {self.max_tokens} tokens, "
                + (training if self.epochs else f"on {self.device}"),
            ),
            ("compress", f"searches {', '.join(self.schemes)}, as far as they suit ({sizes})"),
            ("bench", f"base in PyTorch beside the bundle, {self.threads} threads each"),
            *place_lines(
                self.out, self.replaces, f"about {self.work_bytes / 1e6:.0f} MB", self.seconds, "one timed pass"
            ),
        ]


def plan_classification(recipe: Recipe) -> ClassificationPlan:
    """Read the data, open the base, time one pass over a sample, and estimate the rest.

    Raises:
        EdgetuneError: whatever would stop the build before it starts.
    """
    out = Path(recipe.out)
    check_place(out)
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    dataset = Dataset.load(recipe.data, seed=recipe.seed, label_order=known_labels(base))
    tokenizer = open_tokenizer(base, trust_remote_code=recipe.tune.trust_remote_code)
    device = choose_device(recipe.device)
    model = start_model(base, dataset.labels, recipe.tune).to(device)
    max_tokens = longest_input(model, tokenizer, base)
    bf16 = fast_bf16(device) if recipe.tune.precision == "auto" else recipe.tune.precision == "bf16"
    sample = dataset.train.texts[:SAMPLE]
    head_features(model, tokenizer, sample[:8], max_tokens, bf16=bf16)
    start = time.perf_counter()
    head_features(model, tokenizer, sample, max_tokens, bf16=bf16)
    per_row = (time.perf_counter() - start) / len(sample)
    parameters = sum(weight.numel() for weight in model.parameters())
    rows = {"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)}
    epochs = (
        automatic_epochs(rows["train"], recipe.tune.batch_size) if recipe.tune.epochs == "auto" else recipe.tune.epochs
    )
    trains = METHODS[recipe.tune.method].trains
    return ClassificationPlan(
        base=base.id,
        base_bytes=base.weights_bytes,
        parameters=parameters,
        data=dataset.source,
        findings=dataset.findings,
        rows=rows,
        labels=len(dataset.labels),
        method=recipe.tune.method,
        pooling=chosen_pooling(base, recipe.tune),
        epochs=float(epochs) if trains else 0.0,
        device=device,
        precision="bf16" if bf16 else "fp32",
        max_tokens=max_tokens,
        schemes=tuple(SCHEMES if isinstance(recipe.compress.schemes, str) else recipe.compress.schemes),
        size_bytes={"fp32": 4 * parameters, "int8_dynamic": parameters},
        work_bytes=(5 if METHODS[recipe.tune.method].trains else 4) * 4 * parameters,
        threads=usable_cores(),
        out=str(out),
        replaces=(out / "manifest.json").is_file(),
        seconds=_seconds(rows, epochs, recipe.tune.method, per_row, bf16, min(rows["test"], recipe.gate.rows)),
    )


def _seconds(
    rows: dict[str, int], epochs: float, method: str, per_row: float, bf16: bool, judged: int
) -> dict[str, float]:
    probe = (rows["train"] + rows["validation"]) * per_row
    storing = (rows["train"] + rows["validation"]) * STORING_FACTOR.get(method, 0.0) * per_row
    training = storing + epochs * (rows["train"] * TRAINING_FACTOR[method] + rows["validation"]) * per_row
    fp32 = per_row * (2 if bf16 else 1)
    found = {
        "tune": probe + (training if METHODS[method].trains else 0.0),
        "export": EXPORT_SECONDS,
        "compress": COMPRESS_SECONDS,
        "bench": BENCH_SECONDS + 3 * judged * fp32,
    }
    return {stage: round(seconds, 1) for stage, seconds in found.items()}
