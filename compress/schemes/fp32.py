"""The plain graph, unchanged: what every other scheme is compared with, and what is packed when none passes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material


def unsuitable(material: Material) -> str:
    """It always applies."""
    return ""


def compress(graph: Path, target: Path, material: Material) -> str:
    """Copy the graph."""
    shutil.copyfile(graph, target)
    return "copied from the export"
