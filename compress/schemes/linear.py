"""A linear model of n-grams of the tokenizer's tokens, learnt from the labels alone, in the tables of a static model.

It errs otherwise than the tuned model, which has not taught it: that is worth something in a cascade. Its n-grams are
those of the base's tokenizer, not the words and characters of the report's linear model, so that a cascade reads a text
once; docs/log.md has what that costs. Where the base does not know the language, it brings a tokenizer of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.compress.material import Material
    from edgetune.compress.static_student.features import Bags
    from edgetune.serve.engines.tables import StaticTables
    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.encoder import Encoder

FEWEST_TEXTS = 300
# The most frequent tokens and pairs.
MOST_ROWS = 40_000
# Above this share of unknown tokens a text has hardly any n-gram of known ones.
MANY_UNKNOWN = 0.05
SAMPLE_TEXTS = 500
# Logits of a class without training rows lie below.
NEVER = -1_000.0
# Of the scale of the margins: between these it is looked for.
_LEAST_SCALE, _MOST_SCALE = 0.1, 50.0


@dataclass(frozen=True)
class Learnt:
    """What was learnt, and a line that says how."""

    tables: StaticTables
    made_by: str


def unsuitable(material: Material) -> str:
    """It needs single texts with one answer each, and enough of them."""
    spec = material.model.head
    if material.per_token:
        return "it answers a text as a whole, and entities are places in it"
    if material.model.codec != "text":
        return "its inputs are pairs of texts, and a sum of n-grams does not tell in which of the two each stands"
    if spec.kind == "labels":
        return "a text has several labels, whose thresholds are those of the tuned model's probabilities"
    if material.model.head.kind == "embedding":
        return "its answers are vectors, and n-grams give their own, which are not the model's"
    if len(material.train) < FEWEST_TEXTS:
        return f"there are {len(material.train)} labelled texts to learn from, and n-grams need {FEWEST_TEXTS}"
    return ""


def learn(material: Material, folder: Path) -> Learnt:
    """Fit a linear model to the training part, and its probabilities to the validation part.

    Where the base's tokenizer does not know the texts, `folder/model` gets one of their own characters or words.

    Raises:
        CompressError: no training text has a token that is not special.
    """
    import numpy as np

    from edgetune.compress.own_tokenizer import write_own_tokenizer
    from edgetune.compress.static_student.features import Features
    from edgetune.compress.static_student.quantization import as_tables
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.tasks.objective import Head

    encoder, objective, share = material.encoder, material.objective, _unknown_share(material)
    if share >= MANY_UNKNOWN:
        write_own_tokenizer(material, folder / "model")
        encoder = Encoder.of(replace(material.model, folder=folder))
    tokenizer, ids = encoder.tokenizer, _ids(encoder, material.train.texts)
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    features = Features.of(ids, special, 1 + max(tokenizer.get_vocab().values()), MOST_ROWS)
    if not len(features.tokens):
        raise CompressError("No training text has a token that a linear model could learn from.")
    inputs = _weights(features.bags(ids), features.size)
    head = objective.linear_head(inputs, objective.learnt(material.train.targets))
    assert head is not None  # vectors have none, and are unsuitable
    solved = objective.finished(head)
    scale = 1.0
    if material.model.head.kind == "label":
        held_out = _weights(features.bags(_ids(encoder, material.validation.texts)), features.size)
        scale = fitted_scale(solved.logits(held_out), objective.expected(material.validation.targets))
    rows = np.asarray(scale * solved.weight.T, dtype=np.float32)
    rows[0] = 0  # nobody's
    identity = np.eye(objective.width, dtype=np.float32)
    tables = as_tables(features, rows, Head(identity, np.asarray(scale * solved.bias, dtype=np.float32)))
    own = f", of its own tokenizer, as {share:.0%} are unknown to the base," if share >= MANY_UNKNOWN else ""
    return Learnt(
        tables,
        f"{len(features.tokens):,} tokens{own} and {len(features.pair_keys):,} pairs of neighbours, weighed by the "
        f"labels of {len(material.train):,} texts; margins times {scale:.2f}, by the validation part",
    )


def fitted_scale(logits: NDArray[np.floating[Any]], expected: NDArray[np.int64]) -> float:
    """The factor that makes a softmax of margins the likeliest: one over the temperature of Guo et al., ICML 2017.

    Args:
        logits: of held-out rows, (rows, classes).
        expected: their class numbers, (rows,).
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    # A class without a training row is never answered: its rows would ask for a scale of nothing.
    known = logits[np.arange(len(expected)), expected] > NEVER
    if not known.any():
        return 1.0
    logits, expected = logits[known].astype(np.float64), expected[known]

    def loss(logarithm: float) -> float:
        likelihood = log_softmax(np.exp(logarithm) * logits, axis=1)
        return -float(likelihood[np.arange(len(expected)), expected].mean())

    bounds = (np.log(_LEAST_SCALE), np.log(_MOST_SCALE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def _ids(encoder: Encoder, texts: Sequence[Input]) -> list[list[int]]:
    return [row["input_ids"] for row in encoder.rows(texts)]


def _weights(bags: Bags, size: int) -> Any:
    """Counts of each input's features over the root of all, as the tables sum them: (inputs, size) float32, CSR."""
    import numpy as np
    from scipy import sparse

    counts = np.repeat(1 / np.sqrt(np.maximum(bags.counts, 1)), bags.counts).astype(np.float32)
    weights = sparse.csr_matrix((counts, bags.rows, bags.starts), shape=(len(bags), size))
    weights.sum_duplicates()
    return weights


def _unknown_share(material: Material) -> float:
    from edgetune.tune.data.slices import frozen_rows

    unknown = material.encoder.tokenizer.unk_token_id
    if unknown is None:
        return 0.0
    ids = [token for row in _ids(material.encoder, frozen_rows(material.train.texts, SAMPLE_TEXTS, 0)) for token in row]
    return ids.count(unknown) / max(1, len(ids))
