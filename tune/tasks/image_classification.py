"""Picture classification: a label for a picture. Only the input differs from `text-classification`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from numpy.typing import NDArray

from edgetune.serve.errors import DataError
from edgetune.serve.report import Confusion
from edgetune.tune.data.columns import Columns, require_column
from edgetune.tune.data.data_urls import DATA_URL, is_picture_name
from edgetune.tune.tasks.task import USUAL, Guess
from edgetune.tune.tasks.text_classification import SingleLabel, TextClassification

if TYPE_CHECKING:
    from edgetune.tune.data.contents import Contents
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Input, Parts, Target

_NAMES = ("image", "picture", "img", "photo", "file_name", "filename", "file", "path", "image_path", "pixel_values")
_SAMPLED = 200


class PictureLabel(SingleLabel):
    """One of the labels for each picture."""

    def confusions(self, expected: NDArray[Any], answers: NDArray[Any], inputs: Sequence[Input]) -> list[Confusion]:
        from edgetune.tune.data.pictures import name_of, thumbnail

        return [
            msgspec.structs.replace(each, example=name_of(each.example), thumbnail=thumbnail(each.example))
            for each in super().confusions(expected, answers, inputs)
        ]


class ImageClassification(TextClassification):
    """A label for a picture."""

    name: ClassVar[str] = "image-classification"
    kind: ClassVar[str] = ""
    alone: ClassVar[str] = "pictures are read by another encoder than texts"
    summary: ClassVar[str] = "A label for a picture."
    codec: ClassVar[str] = "picture"

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """A column whose cells name picture files, or hold them, beside one of labels."""
        named = section.get("image")
        if isinstance(named, str):
            return Guess(1.0, f"the recipe says data.image: {named}")
        fitting = [name for name, cells in columns.items() if _holds_pictures(cells)]
        if not fitting or len(columns) < 2:
            return Guess()
        return Guess(USUAL + 0.7, f"the column {fitting[0]!r} names pictures")

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "text", "text_pair", "separator", "unlabeled", "out_of_scope")
        named = recipe.image
        if named is not None:
            require_column(table, named, "image")
        image = named or _guessed_column(table)
        label = self._one_column(recipe)
        rest = {name: cells for name, cells in table.columns.items() if name != image}
        if label is None and len(rest) == 1:
            label = next(iter(rest))
        # The name of a class stands for the picture, which has no words of its own to guess a label's column by.
        columns = self._with_label(replace(table, columns=rest), label)
        notes = () if named is not None else (f"Picture column {image!r} was guessed.",)
        return Columns((image,), columns.labels, (*notes, *columns.findings))

    def _with_label(self, table: Table, label: str | None) -> Columns:
        from edgetune.tune.data.columns import possible_labels

        if label is not None:
            require_column(table, label, "label")
            return Columns((), (label,))
        points = possible_labels(table.columns)
        if not points:
            raise DataError(
                f"{table.source} has no column that looks like labels beside the pictures: "
                f"{', '.join(map(repr, table.columns)) or 'it has no other column'}.",
                expected="a column of classes, such as 'label'.",
                action="name it: --set data.label=...",
            )
        best = max(points, key=lambda name: points[name])
        return Columns((), (best,), (f"Label column {best!r} was guessed.",))

    def read_inputs(self, table: Table, columns: Columns) -> tuple[Input, ...]:
        """The path of each picture, absolute; relative ones start from the folder of the table."""
        return tuple(_located(cell, table) for cell in table.columns[columns.texts[0]])

    def tidied(self, parts: Parts, recipe: DataRecipe) -> tuple[Parts, Contents | None]:
        from edgetune.tune.data.contents import Contents
        from edgetune.tune.data.pictures import clean_pictures, depth_range, examine, findings

        facts = examine(parts)
        parts = clean_pictures(parts, facts, deduplicate=recipe.clean.deduplicate)
        used = [facts[str(text)] for rows in parts.given.values() for text in rows.texts]
        parts = parts.saying(*findings(used))
        return parts, Contents({text: fact.digest for text, fact in facts.items()}, depth_range(used), facts)

    def after_split(self, parts: Parts, contents: Contents | None, recipe: DataRecipe) -> Parts:
        from edgetune.tune.data.pictures import without_near_copies

        assert contents is not None
        near = without_near_copies(parts, contents.facts, remove=recipe.clean.deduplicate)
        lost = set(parts.train.labels) - set(near.train.labels)
        return parts if lost else near

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> PictureLabel:
        return PictureLabel(tuple(labels), self.metric(metric))

    def linear_features(self, inputs: Sequence[Input]) -> Any:
        from edgetune.tune.data.pixels import PixelFeatures

        return PixelFeatures(len(inputs))


def _holds_pictures(cells: Sequence[Any]) -> bool:
    """Whether most of the filled cells name pictures."""
    filled = [cell for cell in cells if cell not in (None, "")][:_SAMPLED]
    return bool(filled) and sum(map(is_picture_name, filled)) > 0.9 * len(filled)


def _guessed_column(table: Table) -> str:
    fitting = [name for name, cells in table.columns.items() if _holds_pictures(cells)]
    usual = [name for name in fitting if name.casefold() in _NAMES]
    if len(usual or fitting) == 1:
        return (usual or fitting)[0]
    raise DataError(
        f"The column of pictures of {table.source} cannot be told: "
        f"{', '.join(map(repr, fitting)) if fitting else 'none names files such as photo.jpg'}. Its columns are "
        f"{', '.join(map(repr, table.columns))}.",
        expected="one column with the names of picture files, or with the pictures themselves.",
        action="name it: --set data.image=...",
    )


def _located(cell: str, table: Table) -> str:
    if cell.startswith(DATA_URL):
        return cell
    if cell.startswith(("http://", "https://")):
        raise DataError(
            f"{table.source} names pictures by address, such as {cell[:80]}, and nothing is fetched.",
            expected="files on this machine.",
            action="download them and name the files.",
        )
    name = cell.strip()
    if not name:
        counts = Counter(not value.strip() for value in next(iter(table.columns.values())))
        raise DataError(
            f"A row of {table.source} names no picture.", expected=f"one in each of {counts.total():,} rows."
        )
    return str((Path(table.folder or ".") / name).absolute())
