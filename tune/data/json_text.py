"""JSON as rows and cells hold it: one way to read it, whose faults are all of one kind.

Apart from the readers, because Python's own tells three kinds of faults: bad signs, numbers that are too long, and
lists that are nested too deeply. Must not import torch or transformers.
"""

from __future__ import annotations

import json


class NotJson(ValueError):
    """A text is no JSON.

    Attributes:
        reason: why, in words.
        line: of the text, counted from 1; the first where the place is not known.
    """

    def __init__(self, reason: str, line: int = 1) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


def json_value(text: str) -> object:
    """The value that `text` writes.

    Raises:
        NotJson: it writes none.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJson(f"{error.msg}, column {error.colno}", error.lineno) from error
    except RecursionError as error:
        raise NotJson("lists or objects are nested too deeply") from error
    except ValueError as error:  # Python reads no whole number of more than 4,300 digits
        raise NotJson("a number has too many digits") from error
