"""How many planted wrong labels `edgetune review` lists: python -m benchmarks.lab.review --data DIR

Of banking77's training rows a share gets another label, drawn by a seed.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from edgetune.tune.data.dataset import DataRecipe, Dataset, Part
from edgetune.tune.review.suspects import label_suspects
from edgetune.tune.tasks import TASKS


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of the data sets.")
@click.option("--share", default=0.03, help="Share of labels that are made wrong.")
@click.option("--seed", default=1)
def main(data: Path, share: float, seed: int) -> None:
    """Plant errors, list suspects, count."""
    task = TASKS["text-classification"]
    dataset = Dataset.load(DataRecipe(path=str(data / "text_en" / "banking77" / "train.csv")), task, seed=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    targets = np.array([target for part in parts for target in part.targets])
    random = np.random.default_rng(seed)
    planted = random.choice(len(targets), int(share * len(targets)), replace=False)
    targets[planted] = (targets[planted] + random.integers(1, len(dataset.labels), len(planted))) % len(dataset.labels)
    rows = Part(tuple(text for part in parts for text in part.texts), tuple(map(int, targets)))
    suspects = label_suspects(rows, task.objective(dataset.labels, "", rows.targets))
    hits = np.isin([suspect.row for suspect in suspects], planted)
    click.echo(f"{len(planted)} planted in {len(rows):,} rows; {len(hits)} listed, {hits.sum()} of them planted")
    click.echo(f"of the first 200: {hits[:200].sum()}")


if __name__ == "__main__":
    main()
