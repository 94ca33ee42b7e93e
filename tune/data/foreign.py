"""Files that hold no text at all, whatever their suffix says: told by the first bytes, named for what they are.

Apart from the encodings: a packed file would pass for text in some old encoding, and its rows for rows.
"""

from __future__ import annotations

from pathlib import Path

from edgetune.serve.errors import DataError

# First bytes: what the file is, and what to do with it.
_UNPACK = "unpack it first: {command} {path}"
_SAVE = "save its table as .csv (UTF-8)"
_KINDS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("packed with gzip", _UNPACK.replace("{command}", "gunzip -k")),
    b"BZh": ("packed with bzip2", _UNPACK.replace("{command}", "bunzip2 -k")),
    b"\xfd7zXZ\0": ("packed with xz", _UNPACK.replace("{command}", "unxz -k")),
    b"\x28\xb5\x2f\xfd": ("packed with zstd", _UNPACK.replace("{command}", "unzstd")),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK.replace("{command}", "7z x")),
    b"PK\x03\x04": ("a zip archive, as .xlsx, .docx and .ods are too", f"unzip it first; of a spreadsheet, {_SAVE}"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Office document, such as .xls", _SAVE),
    b"%PDF-": ("a PDF", "save its text as .txt or .csv"),
    b"SQLite format 3\0": ("a SQLite database", "export the table: sqlite3 -header -csv {path} 'SELECT ...'"),
    b"ARROW1": ("an Arrow file", "save it as .parquet"),
    b"PAR1": ("a Parquet file", "give it the suffix .parquet"),
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch the file that it stands for: git lfs pull"),
}
HEAD_BYTES = max(map(len, _KINDS))


def refuse_foreign(head: bytes, path: Path) -> None:
    """Refuse a file whose first bytes, `HEAD_BYTES` or more of them, are those of no text.

    Raises:
        DataError: naming what it is.
    """
    for start, (kind, action) in _KINDS.items():
        if head.startswith(start) and not (start == b"PAR1" and path.suffix.lower() == ".parquet"):
            raise DataError(
                f"{path} is {kind}.",
                expected="rows as text (.csv, .tsv, .json, .jsonl, .txt), or .parquet.",
                action=action.format(path=path),
            )
