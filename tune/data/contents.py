"""What the files are that inputs name: rows of pictures are paths, and what is learnt is what lies there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contents:
    """The files of a data set.

    Attributes:
        digests: SHA-256 of the file that an input names.
        depth_range: levels of pictures of more than 8 bits that become black and white; None without such pictures.
        facts: by input, whatever else the task wants to know of its files.
    """

    digests: Mapping[str, str]
    depth_range: tuple[float, float] | None
    facts: Mapping[str, Any]
