"""What libraries say goes to a log, whatever they say it with, and the screen is theirs again afterwards."""

from __future__ import annotations

import logging
import os
import sys
import warnings

import pytest

from edgetune.quiet import quiet


@pytest.fixture
def loggers():
    """Two loggers without handlers, as those of libraries."""
    made = [logging.getLogger(f"quiet-test-{number}") for number in range(2)]
    for logger in made:
        logger.propagate = False
    yield made
    for logger in made:
        logger.handlers.clear()


def test_chatter_goes_to_the_log_and_comes_back(tmp_path, capfd, loggers):
    early, late = loggers
    early.addHandler(logging.StreamHandler())
    log = tmp_path / "work" / "build.log"
    with quiet(log, to_stderr=True, verbose=False) as stream:
        late.addHandler(logging.StreamHandler())
        early.warning("an early logger")
        late.warning("a late logger")
        warnings.warn("a warning")
        sys.stdout.write("Python\n")
        os.write(1, b"native\n")
        stream.write("ours\n")
    assert capfd.readouterr() == ("", "ours\n")
    text = log.read_text("utf-8")
    assert all(f"{line}\n" in text for line in ("an early logger", "a late logger", "Python", "native"))
    assert "a warning" not in text

    early.warning("early again")
    late.warning("late again")
    assert capfd.readouterr() == ("", "early again\nlate again\n")
    assert log.read_text("utf-8") == text


def test_handlers_of_files_are_left_alone(tmp_path, loggers):
    logger = loggers[0]
    handler = logging.FileHandler(tmp_path / "own.log")
    logger.addHandler(handler)
    with quiet(tmp_path / "build.log", to_stderr=False, verbose=False):
        logger.warning("mine")
    handler.close()
    assert (tmp_path / "own.log").read_text("utf-8") == "mine\n"
    assert (tmp_path / "build.log").read_text("utf-8") == ""


def test_verbose_redirects_nothing(tmp_path, capfd):
    with quiet(tmp_path / "build.log", to_stderr=False, verbose=True) as stream:
        assert stream is sys.stdout
        os.write(2, b"native\n")
    assert capfd.readouterr().err == "native\n"
    assert not (tmp_path / "build.log").exists()
