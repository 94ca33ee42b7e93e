"""A generator in other processes: forked children answer as the parent does, and a pickled generator opens again."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgetune.serve.errors import BundleDamaged, EdgetuneError
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling

SHORT = Sampling(max_tokens=8)

# In a process of its own: this one has other threads. The parent's threads run while it forks.
FORK = """
    import os, signal, sys, threading
    from edgetune.serve import Generator, Sampling

    generator = Generator.open({bundle!r}, threads=2)
    ask = lambda: ",".join(map(str, generator.generate("the card is lost", Sampling(max_tokens=8)).token_ids))
    ask()
    threading.Thread(target=lambda: [ask() for _ in range(10**6)], daemon=True).start()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os.chdir("/")
        print(ask(), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print("status", status, ask(), flush=True)
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_forked_child_answers(tiny_language_bundle: Path) -> None:
    code = textwrap.dedent(FORK).format(bundle=tiny_language_bundle.name)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=180, cwd=tiny_language_bundle.parent,
    )  # fmt: skip
    with Generator.open(tiny_language_bundle, threads=1) as generator:
        expected = ",".join(map(str, generator.generate("the card is lost", SHORT).token_ids))
    assert run.stdout.splitlines() == [expected, f"status 0 {expected}"], run.stderr


def test_a_pickled_generator_opens_again_as_it_was_opened(tiny_language_bundle: Path, tiny_llama: Any) -> None:
    generator = Generator.open(tiny_language_bundle, threads=2, prefix_bytes=4096)
    with generator, pickle.loads(pickle.dumps(generator)) as again:
        assert again.prefixes.most_bytes == 4096
        assert again.decoder is not generator.decoder
        assert again.generate("the card", SHORT) == generator.generate("the card", SHORT)
    with pytest.raises(EdgetuneError, match="is closed cannot be pickled"):
        pickle.dumps(generator)
    with pytest.raises(EdgetuneError, match="put together from parts cannot be pickled"):
        pickle.dumps(tiny_llama.generator())


def test_another_bundle_in_the_folder_is_refused(
    tiny_language_bundle: Path, language_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = language_bundle(tmp_path / "bundle")
    with Generator.open(folder, threads=1) as generator:
        pickled, before = pickle.dumps(generator), generator.generate("the card", SHORT)
        generator.after_fork()
        assert generator.generate("the card", SHORT) == before
        language_bundle(folder, name="another")
        generator.after_fork()
        with pytest.raises(BundleDamaged, match="holds another bundle"):
            generator.generate("the card", SHORT)
        with pytest.raises(BundleDamaged, match="holds another bundle than the one that was pickled"):
            pickle.loads(pickled)
    generator.after_fork()
    with pytest.raises(EdgetuneError, match="is closed"):
        generator.generate("the card", SHORT)


def test_what_is_said_in_a_chat_is_stripped_as_in_training(
    language_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my card?"}]
    wrapped = [{"role": turn["role"], "content": f"\n {turn['content']} "} for turn in turns]
    own = [*turns, {"role": "assistant", "content": " there "}]
    for strip in (True, False):
        with Generator.open(language_bundle(tmp_path / str(strip), strip_inputs=strip), threads=1) as generator:
            assert (generator.chat_ids(wrapped) == generator.chat_ids(turns)) is strip
            assert generator.encode(" the card") != generator.encode("the card")  # a text goes on as it stands
            assert " there " in generator.text_of(generator.chat_ids(own))
