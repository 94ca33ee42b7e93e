"""Keys of a data section that name files of rows. Must import nothing: `edgetune.build` is offered before all else."""

from __future__ import annotations

SOURCES = ("path", "train", "validation", "test", "unlabeled", "out_of_scope", "corrections", "remember")
