"""Which arm of a split answers a request: one public name, several models, each with a share of the traffic.

The arm follows from a key alone, so that whoever has a key meets the same arm every time, in each worker process and
after each restart: the first 8 bytes of BLAKE2b (RFC 7693) of the key, keyed with the salt, as a big-endian number over
2^64, fall into one of the arms' shares, which lie end to end between 0 and 1 in the order in which they were given.
Must import the standard library and the errors alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgetune.serve.errors import InputError

DEFAULT_NAME, DEFAULT_SALT = "split", "edgetune"
# BLAKE2b takes a key of at most 64 bytes.
MOST_SALT_BYTES = 64


@dataclass(frozen=True)
class Split:
    """Models that answer under one name.

    Attributes:
        shares: of the traffic by model, in order; they sum to 1.
        name: that clients ask for.
        salt: of the hash; another salt deals the keys anew.
    """

    shares: tuple[tuple[str, float], ...]
    name: str = DEFAULT_NAME
    salt: str = DEFAULT_SALT

    @classmethod
    def of(cls, text: str, name: str = DEFAULT_NAME, salt: str = DEFAULT_SALT) -> Split:
        """Read `a=0.9,b=0.1`; shares are scaled to sum to 1, so that a=9,b=1 is the same.

        Raises:
            InputError: it is written otherwise, names a model twice, or has no two arms.
        """
        shares: dict[str, float] = {}
        for part in text.split(","):
            arm, sign, share = part.strip().partition("=")
            try:
                value = float(share)
            except ValueError:
                value = -1.0
            if not sign or not arm or not 0 < value < float("inf") or arm in shares:
                raise InputError(
                    f"The split {text!r} has the part {part.strip()!r}.",
                    expected="models with shares above 0, each model once, such as a=0.9,b=0.1",
                )
            shares[arm] = value
        if len(shares) < 2:
            raise InputError(f"The split {text!r} has one arm.", expected="two or more, such as a=0.9,b=0.1")
        if len(salt.encode()) > MOST_SALT_BYTES:
            raise InputError(f"The salt has {len(salt.encode())} bytes.", expected=f"at most {MOST_SALT_BYTES}")
        total = sum(shares.values())
        return cls(tuple((arm, value / total) for arm, value in shares.items()), name, salt)

    def check(self, models: Mapping[str, object]) -> None:
        """Hold the split against the models that are served.

        Raises:
            InputError: an arm is none of them, or the public name is one.
        """
        if strangers := [arm for arm, _ in self.shares if arm not in models]:
            raise InputError(
                f"The split names {strangers[0]!r}, which is not served.", expected=f"arms of {', '.join(models)}"
            )
        if self.name in models:
            raise InputError(
                f"The split and a model are both named {self.name!r}.", action="name the split: --split-name NAME"
            )

    def arm_of(self, key: str) -> str:
        """The arm that answers whoever has the key."""
        digest = hashlib.blake2b(key.encode(), digest_size=8, key=self.salt.encode()).digest()
        place, end = int.from_bytes(digest, "big") / 2**64, 0.0
        for arm, share in self.shares:
            end += share
            if place < end:
                return arm
        return self.shares[-1][0]
