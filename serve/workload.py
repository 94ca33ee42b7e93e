"""`workload.json`: inputs as long as those of the data, by which a bundle is timed where its data is not."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgetune.serve.drift import Reference

WORKLOAD_NAME = "workload.json"

Side = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
PictureFormat = Literal["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"]
Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**24)]


class WorkloadRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One input: `tokens` as the model reads it, and its texts; of a language model there are none."""

    tokens: Tokens
    texts: list[str] = []

    @property
    def input(self) -> str | tuple[str, ...]:
        """What is answered, as a data set has it."""
        return self.texts[0] if len(self.texts) == 1 else tuple(self.texts)


class PictureSize(msgspec.Struct, frozen=True):
    """Width and height of a picture file in pixels, and its format."""

    width: Side
    height: Side
    format: PictureFormat


class Workload(msgspec.Struct, frozen=True, omit_defaults=True):
    """Inputs in a random order; `remark` says where they come from, `drift` how the test part is distributed."""

    remark: str
    rows: list[WorkloadRow] = []
    pictures: list[PictureSize] = []
    drift: Reference | None = None
