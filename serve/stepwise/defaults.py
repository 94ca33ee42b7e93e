"""How a model's authors draw its answers: the sampling settings of its generation_config.json.

Servers take them where a client says nothing; what is answered without a server stays greedy. Must import the standard
library, msgspec and the sampling only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgetune.serve.bundle import MOST_JSON_BYTES
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.files import read_regular
from edgetune.serve.stepwise.sampling import Sampling

GENERATION_CONFIG_NAME = "generation_config.json"
_DRAWN = ("temperature", "top_k", "top_p", "min_p")


@dataclass(frozen=True)
class SamplingDefaults:
    """What `Sampling` is given where a client is silent; None leaves the server's own default."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @classmethod
    def open(cls, path: Path | None) -> SamplingDefaults:
        """The settings in a generation_config.json of transformers; none where a bundle lists no such file.

        Temperature and what goes with it hold with `do_sample` alone, as for `generate`. A value that cannot be used
        is left out.

        Raises:
            BundleDamaged: it cannot be read.
        """
        if path is None or not path.is_file():
            return cls()
        try:
            config: Any = msgspec.json.decode(read_regular(path, MOST_JSON_BYTES))
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BundleDamaged(f"{path} cannot be read: {error}") from error
        if not isinstance(config, dict):
            raise BundleDamaged(f"{path} is no object, but of type {type(config).__name__}.")
        names = ("repetition_penalty", *(_DRAWN if config.get("do_sample") is True else ()))
        return cls(**{name: config[name] for name in names if _fits(name, config.get(name))})

    def values(self) -> dict[str, float]:
        """Those that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def _fits(name: str, value: Any) -> bool:
    """Whether it is a setting that changes something and can be used."""
    if value is None:
        return False
    try:
        Sampling(**{name: value})
    except InputError:
        return False
    return True
