"""Keys: what a file may hold, who is let in and until when, and that no fault repeats a key."""

import hashlib
from datetime import date

import pytest

from edgetune.serve.errors import WorkError
from edgetune.serve.http import keys as module
from edgetune.serve.http.keys import Keys

HASHED = hashlib.sha256(b"second-key").hexdigest()


@pytest.fixture
def key_file(tmp_path):
    """`key_file("a key")` writes a file of keys."""

    def write(text):
        (tmp_path / "keys").write_text(text, encoding="utf-8")
        return tmp_path / "keys"

    return write


def test_plain_and_hashed_keys_are_accepted_and_nothing_else(key_file):
    keys = Keys.open(key_file(f"# who may ask\nfirst-key  # the shop\n\nsha256:{HASHED.upper()}\n  third#key\n"))
    assert len(keys) == 3
    assert [keys.accepts(one) for one in ("first-key", "second-key", "third#key")] == [True] * 3
    wrong = ["", "first", "first-key ", "FIRST-KEY", HASHED, f"sha256:{HASHED}", "# who may ask", "käy", "\udc80"]
    assert [one for one in wrong if keys.accepts(one)] == []


def test_keys_are_held_as_digests_alone(key_file):
    keys = Keys.open(key_file("first-key\n"))
    assert [one.digest for one in keys._keys] == [hashlib.sha256(b"first-key").digest()]
    assert "first-key" not in repr(vars(keys))


def test_every_key_is_compared_whichever_is_right(key_file, monkeypatch):
    keys = Keys.open(key_file("a-key\nb-key\nc-key\n"))
    compared = []
    monkeypatch.setattr(module.hmac, "compare_digest", lambda one, two: compared.append(two) or one == two)
    assert keys.accepts("a-key")
    assert len(compared) == 3


def test_a_key_holds_until_the_end_of_its_last_day(key_file, monkeypatch):
    keys = Keys.open(key_file("a-key expires=2026-12-31\nb-key\n"))
    answers = {}
    for day in (date(2026, 12, 30), date(2026, 12, 31), date(2027, 1, 1)):
        monkeypatch.setattr(module, "utc_today", lambda day=day: day)
        answers[day.isoformat()] = (keys.accepts("a-key"), keys.accepts("b-key"))
    assert answers == {"2026-12-30": (True, True), "2026-12-31": (True, True), "2027-01-01": (False, True)}


def test_the_file_is_read_again_and_a_bad_one_changes_nothing(key_file):
    path = key_file("old-key\n")
    keys = Keys.open(path)
    key_file("new-key\n")
    keys.reload()
    assert (keys.accepts("old-key"), keys.accepts("new-key")) == (False, True)
    for bad in ("", "sha256:12\n"):
        key_file(bad)
        with pytest.raises(WorkError):
            keys.reload()
    path.unlink()
    with pytest.raises(WorkError, match="cannot be read"):
        keys.reload()
    assert keys.accepts("new-key")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but words\n"])
def test_a_file_without_keys_is_refused(key_file, text):
    with pytest.raises(WorkError, match="holds no key"):
        Keys.open(key_file(text))


def test_all_faults_of_a_file_are_told_at_once_and_no_key(key_file):
    path = key_file("good-key\nsha256:1234\nsecret expires=tomorrow\nsecret until=2026-12-31\nsécret\nsecret a b\n")
    with pytest.raises(WorkError) as caught:
        Keys.open(path)
    found = str(caught.value)
    assert [f"line {number}:" in found for number in range(1, 7)] == [False, True, True, True, True, True]
    assert "secret" not in found
    assert "good-key" not in found


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(WorkError, match="cannot be read"):
            Keys.open(path)
