"""Text of others (labels, names, messages) on its way to a terminal: nothing in it may steer the terminal or hide.

Apart from what prints it, since everything does. Must import the standard library only.
"""

from __future__ import annotations

import re

# Control characters; breaks of lines and paragraphs; signs that turn the direction of writing, which show a text in
# another order than it has (Unicode Technical Report 36, section 2.4); and halves of characters.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Of a line of a message: a name may be longer than anybody reads.
MOST_CHARACTERS = 1500
_BREAKS = re.compile("[\t\n\v\f\r\x85\u2028\u2029]")


def escaped(text: str) -> str:
    """`text` on one line, with what would steer a terminal written out as Python writes it: \\x1b, \\t, \\u202e."""
    return _STEERING.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """As `escaped`, with tabs and breaks as spaces: for texts, of which the words are enough."""
    return escaped(_BREAKS.sub(" ", text))


def message(text: str) -> str:
    """As `escaped`, line by line and no line of more than `MOST_CHARACTERS`: for a message of several lines."""
    return "\n".join(
        escaped(line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}...") for line in text.split("\n")
    )
