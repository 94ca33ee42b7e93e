"""A predictor in other processes: forked children answer as the parent does, and a pickled predictor opens again."""

from __future__ import annotations

import asyncio
import copy
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import textwrap

import pytest

from edgetune.serve import EdgetuneError, load
from edgetune.serve.errors import BundleDamaged, BundleError

from .conftest import GOLDEN

SECONDS = 60
TEXTS = ["where is my parcel", "i still money card", "reset my password please"]

# Each forks in a process of its own: this one has other threads. The child says what it answers and ends as a
# worker of a server does, so that what ends with the interpreter is seen too.
FORK = """
    import asyncio, os, signal, sys, threading
    from edgetune.serve import load

    texts = {texts!r}
    predictor = load({bundle!r}, threads={threads}, provider="cpu")
    ask = lambda: [answer.label for answer in asyncio.run(predictor.predict_async(texts))]
    {before}
    child = os.fork()
    if child == 0:
        signal.alarm({seconds})
        os.chdir("/")
        {inside}
        print(",".join(ask()), ",".join(answer.label for answer in predictor.predict(texts)), flush=True)
        predictor.close()
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print("status", status, ",".join(ask()), flush=True)
"""


def labels():
    with load(GOLDEN, threads=1, provider="cpu") as predictor:
        return ",".join(answer.label for answer in predictor.predict(TEXTS))


def forked(before="pass", inside="pass", threads=1, bundle=GOLDEN, cwd=None):
    code = textwrap.dedent(FORK).format(
        texts=TEXTS, bundle=str(bundle), threads=threads, before=before, inside=inside, seconds=SECONDS
    )
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=3 * SECONDS, env=environment, cwd=cwd,
    )  # fmt: skip
    return run.stdout.splitlines(), run.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
@pytest.mark.parametrize(
    ("before", "threads"), [("pass", 4), ("ask()", 1), ("ask()", 4), ("predictor.predict(texts)", 2)]
)
def test_a_forked_child_answers(before, threads):
    out, err = forked(before=before, threads=threads)
    assert out == [f"{labels()} {labels()}", f"status 0 {labels()}"], err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_child_that_is_forked_while_the_parent_runs_answers():
    busy = "stop = []; [threading.Thread(target=lambda: [ask() for _ in iter(lambda: not stop, False)], daemon=True)"
    out, err = forked(before=f"{busy}.start() for _ in range(3)]; ask()", threads=2)
    assert out == [f"{labels()} {labels()}", f"status 0 {labels()}"], err


def test_what_a_child_does_with_a_closed_predictor_and_with_another_bundle(bundle_copy):
    closed = load(GOLDEN, threads=1, provider="cpu")
    closed.close()
    closed.after_fork()
    with pytest.raises(EdgetuneError, match="is closed"):
        closed.predict(TEXTS)
    predictor = load(bundle_copy.folder, threads=1, provider="cpu")
    inherited = predictor.graph.session
    predictor.graph.after_fork()
    assert predictor.predict_one(TEXTS[0]).label == "delivery"
    assert predictor.graph.session not in (None, inherited)
    bundle_copy.change_manifest(lambda manifest: manifest.update(created="2031-01-01T00:00:00+00:00"))
    predictor.graph.after_fork()
    with pytest.raises(BundleDamaged, match="holds another bundle"):
        predictor.predict(TEXTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_child_opens_a_bundle_of_a_relative_path(tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "bundle")
    out, err = forked(bundle="bundle", cwd=tmp_path, before="ask()")
    assert out == [f"{labels()} {labels()}", f"status 0 {labels()}"], err


def test_a_pickled_predictor_opens_again_as_it_was_opened():
    with load(GOLDEN, threads=2, provider="cpu", variant="fp32") as predictor:
        asyncio.run(predictor.predict_async(TEXTS))  # its threads stay behind
        for made in (pickle.loads(pickle.dumps(predictor)), copy.deepcopy(predictor)):
            assert made.graph.session is not predictor.graph.session
            assert (made.threads, made.variant, made.labels) == (2, "fp32", predictor.labels)
            assert made.predict(TEXTS) == predictor.predict(TEXTS)
            assert [a.label for a in asyncio.run(made.predict_async(TEXTS))] == labels().split(",")
            made.close()
    with pytest.raises(EdgetuneError, match="is closed"):
        pickle.dumps(predictor)


POOL = """
    import multiprocessing
    from edgetune.serve import load

    predictor = load({bundle!r}, threads=1, provider="cpu")
    predictor.predict({texts!r})
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        answers = pool.map_async(predictor.predict, [{texts!r}] * 3).get(timeout={seconds})
    for given in answers:
        print(",".join(answer.label for answer in given))
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_pool_of_processes_answers(method):
    code = textwrap.dedent(POOL).format(bundle=str(GOLDEN), texts=TEXTS, method=method, seconds=SECONDS)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=2 * SECONDS)
    assert run.stdout.splitlines() == [labels()] * 3, run.stderr


def test_another_bundle_in_the_folder_is_refused(bundle_copy):
    pickled = pickle.dumps(load(bundle_copy.folder, threads=1))
    assert pickle.loads(pickled).predict_one(TEXTS[0]).label == "delivery"
    bundle_copy.change_manifest(lambda manifest: manifest.update(created="2031-01-01T00:00:00+00:00"))
    with pytest.raises(BundleDamaged, match="holds another bundle than the predictor that was pickled"):
        pickle.loads(pickled)
    shutil.rmtree(bundle_copy.folder)
    with pytest.raises(BundleError, match="There is no folder"):
        pickle.loads(pickled)
