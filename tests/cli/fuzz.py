"""Damaged data files and odd options, drawn from a seed: what the command line is asked in thousands of ways."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

_TEXTS = [
    ("my card is lost", "card"),
    ('he said "pay, now"', "cash"),
    ("Überweisung fehlt", "transfer"),
    ("登录失败", "login"),
]
_ROWS = [(f"{text} {number}", label) for number in range(5) for text, label in _TEXTS]
_PIECES = [
    b'"',
    b"'",
    b",",
    b"\t",
    b"\n",
    b"\r\n",
    b"\r",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\\",
    b"[",
    b"]",
    b"{",
    b"}",
    b"null",
    b"NaN",
    b"1e999",
    b"-0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\x1b[31m",
    b";",
    b"|",
    b"=1+1",
    b"label",
    b"text",
    b"9" * 400,
    b"\xe2\x80\xae",
    b"[" * 3000,
    b'{"a":' * 2000,
    b"\n\n\n",
    b"\x1a",
    b"\x85",
    b"sep=;\n",
]


def _csv(separator: str) -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in (separator, '"')) else text

    lines = [separator.join(map(cell, row)) for row in [("text", "label"), *_ROWS]]
    return ("\n".join(lines) + "\n").encode()


def _documents() -> dict[str, bytes]:
    rows = [{"text": text, "label": label} for text, label in _ROWS]
    return {
        "rows.csv": _csv(","),
        "semicolons.csv": _csv(";"),
        "rows.tsv": _csv("\t"),
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(),
        "rows.json": json.dumps(rows).encode(),
        "columns.json": json.dumps(
            {"text": [text for text, _ in _ROWS], "label": [label for _, label in _ROWS]}
        ).encode(),
        "windows.csv": _csv(",").decode().replace("登录失败", "à bientôt").encode("cp1252"),
        "utf16.csv": _csv(",").decode().encode("utf-16"),
        "chats.jsonl": "".join(
            json.dumps({"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]})
            + "\n"
            for text, label in _ROWS
        ).encode(),
    }


def damaged_files(folder: Path, count: int, seed: int) -> Iterator[Path]:
    """Write `count` files into `folder`, one at a time, each a whole one with one to four faults."""
    draw, documents = random.Random(seed), _documents()
    for _ in range(count):
        name = draw.choice(sorted(documents))
        content = documents[name]
        for _ in range(draw.randint(1, 4)):
            content = _with_fault(content, draw)
        # The right name of the wrong content now and then.
        path = folder / (name if draw.random() < 0.9 else draw.choice(sorted(documents)))
        path.write_bytes(content)
        yield path
        path.unlink()


def _with_fault(content: bytes, draw: random.Random) -> bytes:
    """The content with a bit flipped, a slice gone, doubled or moved, or an odd piece put in."""
    if not content:
        return draw.choice(_PIECES)
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.choice([1, 2, 9, 80, 400]))
    kind = draw.randrange(6)
    if kind == 0:
        return content[:start] + bytes([content[start] ^ 1 << draw.randrange(8)]) + content[start + 1 :]
    if kind == 1:
        return content[:start] + content[end:]
    if kind == 2:
        return content[:end] + content[start:]
    if kind == 3:
        return content[:start]
    return content[:start] + draw.choice(_PIECES) + content[start if kind == 4 else end :]


_VALUES = [
    "",
    " ",
    "-1",
    "0",
    "1e309",
    "nan",
    "null",
    "true",
    "[]",
    "{}",
    "[1,",
    "x" * 5000,
    "../..",
    "/dev/null",
    "\u202e",
    "0.5",
    "auto",
    "2001-02-30",
    "!!python/object:os.system x",
    "&a [*a]",
    "\ud800",
    "9" * 50,
]
_KEYS = [
    "tune.epochs",
    "tune.method",
    "data.text",
    "data.label",
    "data.split",
    "data.encoding",
    "data.delimiter",
    "seed",
    "gate.max_drop",
    "gate.metric",
    "compress.schemes",
    "budget.size_mb",
    "benchmark.samples",
    "task",
    "out",
    "base",
    "nothing",
    "tune",
    "data.",
    ".",
    "tune.lora.rank",
    "data.clean.normalize",
]


def odd_settings(count: int, seed: int) -> Iterator[tuple[str, ...]]:
    """`count` times some arguments of --set, most of them wrong."""
    draw = random.Random(seed)
    for _ in range(count):
        pairs = [f"{draw.choice(_KEYS)}={draw.choice(_VALUES)}" for _ in range(draw.randint(1, 3))]
        yield tuple(argument for pair in pairs for argument in ("--set", pair))
