"""What a stage leaves, as a value that lies in a folder beside its files, so that a later command can open it again.

The fields of a frozen dataclass are written as one JSON file and read back by their types; paths are written relative
to the folder, which may be moved.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from edgetune.serve.errors import WorkError


class Stored:
    """Base of a frozen dataclass that is stored in a folder.

    Attributes:
        file_name: of the file of fields.
        noun: what is stored, for the error: "graph".
        command: the edgetune command that makes it again.
    """

    file_name: ClassVar[str]
    noun: ClassVar[str]
    command: ClassVar[str]

    def save(self, folder: Path) -> None:
        """Write the fields into `folder`."""

        def plain(value: object) -> str:
            if not isinstance(value, Path):
                raise NotImplementedError(f"{type(value).__name__} is not stored as JSON")
            return os.path.relpath(value, folder)

        content = msgspec.json.encode(self, enc_hook=plain)
        (folder / self.file_name).write_bytes(msgspec.json.format(content, indent=2))

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What `save` wrote into `folder`.

        Raises:
            WorkError: there is nothing, or its fields are not of their types.
        """

        def typed(kind: type, value: object) -> Path:
            if kind is not Path or not isinstance(value, str):
                raise TypeError(f"{value!r} is no {kind.__name__}")
            return Path(os.path.normpath(folder / value))

        try:
            return msgspec.json.decode((folder / cls.file_name).read_bytes(), type=cls, dec_hook=typed)
        except (OSError, msgspec.DecodeError) as error:
            raise WorkError(
                f"{folder} holds no {cls.noun}: {error}", action=f"run `edgetune {cls.command}` again"
            ) from error


def changed_rows(kind: type[Stored], folder: Path) -> WorkError:
    """What to raise where the rows in a folder have another digest than those that were saved."""
    return WorkError(
        f"{folder} holds no {kind.noun}: its rows are not those that were saved.",
        action=f"run `edgetune {kind.command}` again",
        cost="the data set is read again: seconds.",
    )
