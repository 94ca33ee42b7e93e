"""Files that hold no rows at all, whatever their suffix says: told by the first bytes, named for what they are.

Apart from the encodings: a packed file would pass for text in some old encoding, and its rows for rows.
"""

from __future__ import annotations

from pathlib import Path

from edgetune.serve.errors import DataError

# First bytes: what the file is, and what to do with it.
_SAVE = "save its table as .csv (UTF-8)"
_PARQUET = b"PAR1\x15"  # the mark alone may begin a header
_PAGES = (b"<!DOCTYPE html", b"<!doctype html")  # a .txt file may well be one, to be learnt from
_KINDS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("compressed with gzip", "unpack it: gunzip -k {path}"),
    **{b"BZh%d1AY&SY" % level: ("compressed with bzip2", "unpack it: bunzip2 -k {path}") for level in range(1, 10)},
    b"\xfd7zXZ\0": ("compressed with xz", "unpack it: unxz -k {path}"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "unpack it: unzstd {path}"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", "unpack it: 7z x {path}"),
    b"PK\x03\x04": ("a zip archive or an Excel workbook", f"unpack it; of a sheet, {_SAVE}"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document, such as .xls", _SAVE),
    b"%PDF-": ("a PDF", "save its text as .txt or .csv"),
    b"SQLite format 3\0": ("a SQLite database", "export the table: sqlite3 -header -csv {path} 'SELECT ...'"),
    b"ARROW1\0": ("an Arrow file", "save it as .parquet"),
    **dict.fromkeys(_PAGES, ("a web page", "download the file itself, not the page that shows it")),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file that it stands for: git lfs pull"),
    _PARQUET: ("a Parquet file", "give it the suffix .parquet"),
}
HEAD_BYTES = max(map(len, _KINDS))


def refuse_foreign(head: bytes, path: Path) -> None:
    """Refuse a file whose first bytes, `HEAD_BYTES` or more of them, are those of no text.

    Raises:
        DataError: naming what it is.
    """
    may_be = {".parquet": (_PARQUET,), ".txt": _PAGES}.get(path.suffix.lower(), ())
    for start, (kind, action) in _KINDS.items():
        if head.startswith(start) and start not in may_be:
            raise DataError(
                f"{path} is {kind}.",
                expected="rows as text (.csv, .tsv, .json, .jsonl, .txt), or .parquet.",
                action=action.format(path=path),
            )
