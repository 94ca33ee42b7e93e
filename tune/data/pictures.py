"""Pictures as rows: where their files are, whether each can be read, and which of them are the same.

An input is the path of a file, or a data URL where a table holds the bytes themselves. All files are decoded once
before anything is trained, so that a damaged one is refused by name and not in the middle of a training. Must not
import torch.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.picture_file import FORMATS, depth_of, open_picture, read_picture, require_pillow, upright
from edgetune.serve.codecs.picture_spec import MOST_PIXELS, PictureSpec
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import DataError, InputError
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.data.data_urls import DATA_URL, picture_bytes
from edgetune.tune.data.rows import Input, Parts, Rows
from edgetune.tune.data.slices import spread_evenly

_SHOWN, _THUMBNAIL = 5, 96
# Two pictures whose hashes of 256 bits differ in so few are the same but for compression or size; and the least spread
# of grey levels below which a picture is too plain for its hash to say anything.
NEAR_BITS, LEAST_SPREAD = 4, 8.0
MOST_COMPARED = 20_000


@dataclass(frozen=True)
class PictureFacts:
    """What one file shows.

    Attributes:
        digest: SHA-256 of its bytes.
        depth: least and greatest level of a picture of more than 8 bits a channel, else None.
        hash: (4,) uint64, which light and dark neighbours of a 17 x 16 thumbnail give; None of a plain picture.
        turned: whether its EXIF note turns it.
        kind: the mode that it is stored in, such as CMYK.
    """

    digest: str
    depth: tuple[float, float] | None
    hash: NDArray[np.uint64] | None
    turned: bool
    kind: str


def source_of(value: str) -> bytes | Path:
    """An input of a data set as the reader of files takes it."""
    return picture_bytes(value) if value.startswith(DATA_URL) else Path(value)


def name_of(value: str) -> str:
    """What messages call an input."""
    return f"a picture of {len(value):,} characters in base64" if value.startswith(DATA_URL) else value


def examine(parts: Parts) -> dict[str, PictureFacts]:
    """Read every file of all parts.

    Raises:
        DataError: some cannot be read; names the first.
        MissingDependency: Pillow is not installed.
    """
    require_pillow()
    values = list(dict.fromkeys(str(text) for rows in parts.given.values() for text in rows.texts))
    with ThreadPoolExecutor(usable_cores()) as pool:
        results = list(pool.map(_examined, values))
    faults = [result for result in results if isinstance(result, InputError)]
    if faults:
        listed = " ".join(fault.found for fault in faults[:_SHOWN])
        more = f" And {len(faults) - _SHOWN} more." if len(faults) > _SHOWN else ""
        raise DataError(
            f"{len(faults)} of {counted(len(values), 'picture')} cannot be read: {listed}{more}",
            expected=faults[0].expected,
            action="mend these files, or take them out of the data",
        )
    return {value: result for value, result in zip(values, results, strict=True) if isinstance(result, PictureFacts)}


def _examined(value: str) -> PictureFacts | InputError:
    try:
        source = source_of(value)
        picture = open_picture(source, name_of(value), MOST_PIXELS)
    except InputError as error:
        return error
    content = source if isinstance(source, bytes) else source.read_bytes()
    shown = upright(picture)
    return PictureFacts(
        hashlib.sha256(content).hexdigest(),
        depth_of(picture),
        _difference_hash(shown),
        shown is not picture,
        picture.mode,
    )


def _difference_hash(picture: object) -> NDArray[np.uint64] | None:
    """(4,) uint64: which of 16 x 17 grey cells are lighter than their left neighbour; None of a plain picture."""
    small = picture.convert("RGB").convert("L").resize((17, 16))  # type: ignore[attr-defined]
    grey = np.asarray(small, np.int16)
    if float(grey.std()) < LEAST_SPREAD:
        return None
    return np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)


def short_sides(inputs: Sequence[Input], most: int) -> list[int]:
    """Pixels of the shorter side of at most so many inputs, spread evenly; only the heads of the files are read."""
    from PIL import Image

    sides = []
    for value in spread_evenly(inputs, most):
        source = source_of(str(value))
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as picture:
            sides.append(min(picture.size))
    return sides


def clean_pictures(parts: Parts, facts: Mapping[str, PictureFacts], *, deduplicate: bool) -> Parts:
    """Drop rows without label, and pictures that stand in the data twice, byte for byte.

    As with texts, a part that the user gave keeps its duplicates; a picture that also stands in a later part leaves the
    earlier one. One under two labels is refused, since nobody can learn it.
    """
    for name, rows in parts.given.items():
        labelled = [place for place, label in enumerate(rows.labels) if label.strip()]
        if len(labelled) < len(rows):
            dropped = counted(len(rows) - len(labelled), "picture")
            parts = parts.saying(f"Dropped {dropped} without label from the {title(name)}.")
        tidy = Rows(rows.texts, tuple(label.strip() for label in rows.labels)).take(labelled)
        parts = replace(parts, **{name: tidy})  # type: ignore[arg-type]
    later: set[str] = set()
    for name in ("test", "validation", "train"):
        rows = parts.given.get(name, Rows((), ()))
        _refuse_two_labels(rows, facts, name)
        digests = [facts[str(text)].digest for text in rows.texts]
        first = list({digest: place for place, digest in reversed(list(enumerate(digests)))}.values())
        repeated = len(rows) - len(first)
        shared = [place for place, digest in enumerate(digests) if digest in later]
        did, where = ("Removed", "from") if deduplicate and name == "train" else ("Kept", "in")
        if repeated:
            parts = parts.saying(
                f"{did} {counted(repeated, 'picture')} {where} the {title(name)} that stand there twice."
            )
        if shared:
            verb = "Removed" if deduplicate else "Kept"
            parts = parts.saying(
                f"{verb} {counted(len(shared), 'picture')} of the {title(name)} that also stand in a part that judges."
            )
        if deduplicate:
            chosen = sorted(first) if name == "train" else range(len(rows))
            rows = rows.take(place for place in chosen if digests[place] not in later)
            parts = replace(parts, **{name: rows}) if name in parts.given else parts  # type: ignore[arg-type]
        later |= set(digests)
    return parts


def _refuse_two_labels(rows: Rows, facts: Mapping[str, PictureFacts], part: str) -> None:
    seen: dict[str, tuple[str, str]] = {}
    clashes = []
    for text, label in zip(rows.texts, rows.labels, strict=True):
        other = seen.setdefault(facts[str(text)].digest, (str(text), label))
        if other[1] != label:
            clashes.append(f"{name_of(other[0])} is {other[1]!r} and {name_of(str(text))} is {label!r}")
    if clashes:
        raise DataError(
            f"{counted(len(clashes), 'picture')} of the {title(part)} stand there twice, under two labels: "
            f"{'; '.join(clashes[:_SHOWN])}.",
            expected="one label a picture",
            action="take the wrong copy out",
        )


def without_near_copies(parts: Parts, facts: Mapping[str, PictureFacts], *, remove: bool) -> Parts:
    """Take pictures out of the training part that are all but the same as one that judges: a series of one scene, or
    another size or compression of one file."""
    judging = [str(text) for name, rows in parts.given.items() if name != "train" for text in rows.texts]
    train = [str(text) for text in parts.train.texts]
    if not judging or len(train) + len(judging) > MOST_COMPARED:
        return parts
    known = [hashed for text in judging if (hashed := facts[text].hash) is not None]
    if not known:
        return parts
    table = np.stack(known)
    near = {text for text in train if _is_near(facts[text].hash, table)}
    if not near:
        return parts
    count = counted(len(near), "picture")
    reason = "all but the same as a picture that judges, which would flatter every figure"
    if not remove:
        return parts.saying(f"Kept {count} of the training data that are {reason}.")
    others = parts.train.take(place for place, text in enumerate(train) if text not in near)
    return replace(parts, train=others).saying(f"Removed {count} from the training data that are {reason}.")


def _is_near(hashed: NDArray[np.uint64] | None, table: NDArray[np.uint64]) -> bool:
    if hashed is None:
        return False
    bits = np.bitwise_count(np.bitwise_xor(table, hashed)).sum(axis=1, dtype=np.int64)
    return bool((bits <= NEAR_BITS).any())


def depth_range(facts: Iterable[PictureFacts]) -> tuple[float, float] | None:
    """The levels that become black and white, over all pictures of more than 8 bits a channel; None without any."""
    depths = [fact.depth for fact in facts if fact.depth is not None]
    return (min(low for low, _ in depths), max(high for _, high in depths)) if depths else None


def findings(facts: Sequence[PictureFacts]) -> tuple[str, ...]:
    """What a user should know of how the files are stored."""
    sentences = []
    if turned := sum(fact.turned for fact in facts):
        sentences.append(f"Turned {counted(turned, 'picture')} as their EXIF note says.")
    kinds = Counter(fact.kind for fact in facts)
    if seen := sum(count for kind, count in kinds.items() if kind in ("RGBA", "LA", "PA")):
        sentences.append(f"{counted(seen, 'picture')} may be transparent: white shows through.")
    if kinds["CMYK"]:
        sentences.append(f"{counted(kinds['CMYK'], 'picture')} are in CMYK: their colour profile is not applied.")
    levels = depth_range(facts)
    if levels is not None:
        deep = sum(fact.depth is not None for fact in facts)
        sentences.append(
            f"{counted(deep, 'picture')} have more than 8 bits a channel: levels from {levels[0]:g} to {levels[1]:g} "
            "become 0 to 255, here and in the bundle."
        )
    return tuple(sentences)


def thumbnail(value: str) -> str:
    """An input of a data set as a small JPEG in a data URL, for a page: about 2 kB."""
    picture = open_picture(source_of(value), name_of(value), MOST_PIXELS)
    depth = depth_of(picture)
    spec = PictureSpec(size=(1, 1), depth_range=depth)
    shown = read_picture(source_of(value), name_of(value), spec)
    shown.thumbnail((_THUMBNAIL, _THUMBNAIL))
    content = io.BytesIO()
    shown.save(content, format="JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"
