"""Digests: known ones, and what must and must not change them."""

from __future__ import annotations

from edgetune.serve.digest import file_sha256, folder_sha256, value_sha256

# FIPS 180-2, appendix B.1, and the digest of nothing.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_known_digests_of_files(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_sha256(path) == ABC
    path.write_bytes(b"")
    assert file_sha256(path) == NOTHING


def test_a_value_is_digested_as_compact_json(tmp_path):
    path = tmp_path / "value"
    path.write_text('{"a":[1,2.5,null,true],"é":"x"}', "utf-8")
    assert value_sha256({"é": "x", "a": [1, 2.5, None, True]}) == file_sha256(path)


def test_the_order_of_keys_says_nothing_and_that_of_lists_does():
    assert value_sha256({"a": 1, "b": {"c": 2, "d": 3}}) == value_sha256({"b": {"d": 3, "c": 2}, "a": 1})
    assert value_sha256([1, 2]) != value_sha256([2, 1])
    assert value_sha256(["ab", "c"]) != value_sha256(["a", "bc"])
    assert value_sha256("1") != value_sha256(1)


def test_text_that_no_encoding_carries_has_a_digest():
    assert value_sha256("a\ud800") != value_sha256("a")


def test_a_folder_is_its_names_and_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "a.txt").write_text("a")
        (tmp_path / name / "b.txt").write_text("b")
    first = folder_sha256(tmp_path / "one")
    assert first == folder_sha256(tmp_path / "two")
    assert first == value_sha256({name: file_sha256(tmp_path / "one" / name) for name in ("deep/a.txt", "b.txt")})
    (tmp_path / "one" / "empty").mkdir()
    assert folder_sha256(tmp_path / "one") == first
    (tmp_path / "two" / "b.txt").rename(tmp_path / "two" / "c.txt")
    assert folder_sha256(tmp_path / "two") != first
    (tmp_path / "one" / "b.txt").write_text("B")
    assert folder_sha256(tmp_path / "one") != first
