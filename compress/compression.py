"""The compress stage: each scheme makes its candidate; one that fails says why and the others go on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetune.compress.candidate import Candidate
from edgetune.compress.material import Material
from edgetune.compress.schemes import Scheme
from edgetune.serve.errors import CompressError


@dataclass(frozen=True)
class Compressed:
    """The candidates, best promise first, and why a scheme made none."""

    candidates: tuple[Candidate, ...]
    failures: dict[str, str]


def compress_all(graph: Path, schemes: Sequence[Scheme], folder: Path, material: Material) -> Compressed:
    """Make a candidate of `graph` by each scheme, in a folder of its own below `folder`."""
    candidates: list[Candidate] = []
    failures: dict[str, str] = {}
    for step, scheme in enumerate(schemes, start=1):
        try:
            candidate = scheme.compress(graph, folder / scheme.name, material)
        except CompressError as error:
            failures[scheme.name] = error.found
            material.progress.say(f"{scheme.name}: {error.found}")
        else:
            candidates.append(candidate)
            material.progress.say(f"{scheme.name}: {candidate.size_bytes / 1e6:.1f} MB")
        material.progress.advance(step, len(schemes), scheme.name)
    return Compressed(tuple(candidates), failures)


def open_candidates(folder: Path, schemes: Sequence[Scheme]) -> Compressed:
    """Open what `compress_all` wrote; a scheme without a candidate failed when it was tried."""
    found = [scheme.name for scheme in schemes if (folder / scheme.name / "candidate.json").is_file()]
    missing = {scheme.name: "failed when it was tried" for scheme in schemes if scheme.name not in found}
    return Compressed(tuple(Candidate.open(folder / name) for name in found), missing)
