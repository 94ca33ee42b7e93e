"""Damaged data files and odd options end with an answer or a message, never with a traceback."""

from __future__ import annotations

import pytest

from tests.cli.fuzz import damaged_files, odd_settings

FEW = (60, 40)
MANY = (3_000, 3_000)
COUNTS = [pytest.param(*FEW, id="few"), pytest.param(*MANY, id="many", marks=pytest.mark.faults)]


def check(ended):
    """Done, or one message on what is wrong; and never an escape sequence of the data on the terminal."""
    assert ended.code in (0, 1, 2), ended
    assert "Traceback" not in ended.err
    assert len(ended.err) < 8_000, ended.err[:500]
    assert "\x1b[31m" not in ended.out + ended.err
    if ended.code:
        # Behind what was said of the encoding, if it had to be guessed.
        assert any(line.startswith(("Error: ", "Usage: ")) for line in ended.err.splitlines()), ended.err


@pytest.mark.parametrize(("files", "settings"), COUNTS)
def test_a_damaged_data_file_is_read_or_refused(edgetune, tmp_path, record_property, files, settings):
    for path in damaged_files(tmp_path, files, seed=files):
        check(edgetune("init", path, "-o", tmp_path / "recipe.yaml"))
    record_property("damaged data files looked at", files)


@pytest.mark.parametrize(("files", "settings"), COUNTS)
def test_a_damaged_file_is_answered_or_refused(edgetune, kind_bundle, tmp_path, record_property, files, settings):
    for path in damaged_files(tmp_path, files, seed=files + 1):
        check(edgetune("predict", kind_bundle("label"), "--input", path))
    record_property("damaged files answered", files)


@pytest.mark.parametrize(("files", "settings"), COUNTS)
def test_odd_options_are_taken_or_refused(edgetune, workshop, tmp_path, record_property, files, settings):
    for options in odd_settings(settings, seed=settings):
        check(edgetune("build", *workshop.there(tmp_path), *options, "--plan"))
    record_property("odd options planned", settings)
