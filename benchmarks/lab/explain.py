"""Do explanations name the words that the model reads? A bundle's weights against integrated gradients and deletion.

    pip install captum
    python -m benchmarks.lab.explain BUNDLE... [--rows 200] [--markdown FILE]

Each bundle answers single texts and lies beside its work folder. For the first rows of the shuffled test part: the rank
correlation of its words' weights with integrated gradients of the tuned model (Sundararajan et al. 2017, by captum, 32
steps from a text of padding, for the same sum of outputs), and what the tuned model's score of the answer loses without
the word that weighs most, beside the mean over all words. Times are not measured.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from captum.attr import LayerIntegratedGradients
from numpy.typing import NDArray
from scipy.stats import spearmanr

from edgetune.serve.codecs import open_codec
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.codecs.word_spans import SpanCodec, Word, words_of
from edgetune.serve.explain import Explanation
from edgetune.serve.loading import load
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.model import TunedModel, open_model

STEPS = 32
FEWEST_WORDS = 4  # of fewer, ranks say little


@dataclass(frozen=True)
class Row:
    """One text: rank correlation with the gradients, and what the score loses without the first word and on average."""

    correlation: float
    heaviest: float
    mean: float


class Tuned:
    """The tuned model of a work folder, asked by texts."""

    def __init__(self, folder: Path) -> None:
        tuned = TunedModel.open(folder / "tune")
        self._model: Any = open_model(tuned.model_folder)
        self._codec = open_codec(tuned.codec, tuned.model_folder, tuned.max_tokens)
        self._embedding = self._model.get_input_embeddings()
        self.labels = tuned.labels

    def words(self, text: str) -> tuple[EncodedText, list[Word]]:
        """The row of a text, and its words."""
        assert isinstance(self._codec, SpanCodec)
        row, spans = self._codec.encode_spans(text)
        return row, words_of([text], spans)

    def scores(self, rows: list[EncodedText], label: str) -> NDArray[np.float32]:
        """The logit of a label less the mean of all, of each row."""
        with torch.no_grad():
            feed = {name: torch.from_numpy(ids) for name, ids in self._codec.pad(rows).items()}
            return np.asarray(self._score(feed["input_ids"], feed["attention_mask"], label))

    def _score(self, ids: torch.Tensor, mask: torch.Tensor, label: str) -> torch.Tensor:
        logits = self._model(input_ids=ids, attention_mask=mask).logits
        scores: torch.Tensor = logits[:, self.labels.index(label)] - logits.mean(dim=1)
        return scores

    def gradients(self, row: EncodedText, words: list[Word], label: str) -> list[float]:
        """Integrated gradients of each word."""
        ids = torch.tensor([row.ids])
        inside = sorted(place for word in words for place in word.tokens)
        baseline = ids.clone()
        baseline[0, inside] = self._model.config.pad_token_id or 0
        method = LayerIntegratedGradients(lambda given, mask: self._score(given, mask, label), self._embedding)
        added = method.attribute(ids, baseline, additional_forward_args=(torch.ones_like(ids),), n_steps=STEPS)
        by_token = added.sum(dim=2)[0].detach().numpy()
        return [float(by_token[list(word.tokens)].sum()) for word in words]


def compare(tuned: Tuned, text: str, explanation: Explanation) -> Row | None:
    """One text's figures; None where it has too few words, or the tokenizers divide it into other words."""
    row, words = tuned.words(text)
    if len(words) < FEWEST_WORDS or [word.span[1:] for word in words] != [(w.start, w.end) for w in explanation.words]:
        return None
    weights = [word.weight for word in explanation.words]
    gradients = tuned.gradients(row, words, explanation.target)
    shorter = [_without(row, word) for word in words]
    scores = tuned.scores([row, *shorter], explanation.target)
    lost = scores[0] - scores[1:]
    return Row(float(spearmanr(weights, gradients).statistic), float(lost[int(np.argmax(weights))]), float(lost.mean()))


def _without(row: EncodedText, word: Word) -> EncodedText:
    kept = [place for place in range(row.size) if place not in word.tokens]
    return EncodedText([row.ids[place] for place in kept], [row.type_ids[place] for place in kept], row.truncated)


def measure(folder: Path, rows: int) -> dict[str, list[Row]]:
    """The rows of a bundle by the method that explains them."""
    work = folder.with_name(f"{folder.name}.work")
    tuned, predictor = Tuned(work), load(folder, threads=1)
    texts = list(Dataset.open(work / "data").test.texts)
    figures: dict[str, list[Row]] = defaultdict(list)
    for place in np.random.default_rng(0).permutation(len(texts))[:rows]:
        explanation = predictor.explain(texts[place])
        row = compare(tuned, texts[place], explanation)
        if row is not None and np.isfinite(row.correlation):
            figures[explanation.method].append(row)
    return figures


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--rows", default=200, help="Rows of the test part.", show_default=True)
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table.")
def main(bundles: tuple[Path, ...], rows: int, markdown: Path | None) -> None:
    """Print a row for each bundle and method."""
    lines = [
        "| bundle | method | texts | rank correlation with integrated gradients, median | "
        "lost without the first word | without any one word |",
        "|---|---|---|---|---|---|",
    ]
    for bundle in bundles:
        for method, found in measure(bundle, rows).items():
            columns = np.array([(row.correlation, row.heaviest, row.mean) for row in found])
            cells = f"{np.median(columns[:, 0]):.2f} | {columns[:, 1].mean():.2f} | {columns[:, 2].mean():.2f}"
            lines.append(f"| {bundle.parent.name} | {method} | {len(found)} | {cells} |")
    text = "\n".join(lines) + "\n"
    click.echo(text)
    if markdown:
        markdown.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
