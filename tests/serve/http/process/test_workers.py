"""Several worker processes on one port: one that is killed is replaced, all tell one story, and all leave together."""

import os
import re
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from edgetune.serve import load
from edgetune.serve.cores import usable_cores
from edgetune.serve.http.plan import ServerPlan
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.workers import _shared_out

GOLDEN = Path(__file__).parents[3] / "golden" / "bundle-v1"
KEY = {"authorization": "Bearer a-key"}

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads the processes from /proc")


@pytest.fixture(scope="module")
def server(run_server, tmp_path_factory):
    """Two workers with keys, the same ones for several tests."""
    return two_workers(run_server, tmp_path_factory.mktemp("workers"))


def two_workers(run_server, folder):
    (folder / "keys").write_text("a-key\n")
    shutil.copytree(GOLDEN, folder / "toy")
    options = ("--workers", 2, "--watch-seconds", 0.1, "--api-key-file", folder / "keys")
    return run_server(*options, bundle=folder / "toy")


def workers(server):
    """Process ids of the workers, without the supervisor and Python's own companion of spawned processes."""
    pid = server.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in children if b"spawn_main" in command_of(child)}


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def ask(server):
    """One request on a connection of its own."""
    return server.classify(["a card"], KEY).status_code


def counted(server):
    """Requests to classify that /metrics tells of."""
    page = server.get("/metrics").text
    return sum(float(value) for value in re.findall(r"edgetune_requests_total\{[^}]*classify[^}]*\} (\S+)", page))


def test_two_workers_answer_as_predict_does(server):
    assert len(workers(server)) == 2
    assert server.started["models"] == {"toy": "1"}
    expected = load(GOLDEN, threads=1).predict_one("where is my parcel")
    for _ in range(8):
        answered = server.classify(["where is my parcel"], KEY).json()["predictions"][0]
        assert (answered["label"], answered["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-5))


def test_the_metrics_of_any_worker_tell_of_all(server):
    before = counted(server)
    assert [ask(server) for _ in range(20)] == [200] * 20
    assert [counted(server) - before for _ in range(6)] == [20] * 6


def test_a_killed_worker_is_replaced_and_the_others_go_on(server, eventually):
    before, counts = workers(server), counted(server)
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    assert [ask(server) for _ in range(10)] == [200] * 10
    eventually(lambda: len(workers(server) - before) == 1, 30)
    assert workers(server) & before == before - {victim}
    eventually(lambda: f"worker {victim} ended with -9 and is replaced" in server.log.read_text())
    assert [ask(server) for _ in range(10)] == [200] * 10
    assert counted(server) == counts + 20  # what the dead one counted stays


def test_no_request_is_refused_while_a_worker_is_replaced(server, eventually):
    def opened():
        return server.log.read_text().count("model toy: version 1 of ")

    def replaced():
        answered.update((ask(server), server.get("/v2/health/ready").status_code))
        return opened() == before + 1

    answered, before = set(), opened()
    os.kill(max(workers(server)), signal.SIGKILL)
    eventually(replaced, 30)
    assert answered == {200}


def test_no_worker_says_ready_while_another_one_loads(run_server, free_port, eventually):
    server = run_server("--workers", 2, ready=False, port=free_port)
    eventually(lambda: len(workers(server)) == 2)
    held = max(workers(server))
    os.kill(held, signal.SIGSTOP)

    def health():
        answer = server.get("/v2/health/ready")
        return answer.status_code, answer.json()["ready"], answer.json()["models"]["bundle-v1"]["state"]

    eventually(lambda: health()[2] == "READY")
    assert [health() for _ in range(5)] == [(503, False, "READY")] * 5
    os.kill(held, signal.SIGCONT)
    eventually(lambda: health() == (200, True, "READY"))


def state(server):
    """What one of the workers says of the model."""
    model = server.get("/v2/health/ready").json()["models"]["toy"]
    return model["state"], model["version"]


def test_unload_and_load_reach_all_workers(run_server, eventually, tmp_path):
    # A server of its own: while one worker still loads, the other one may answer every question about the state.
    server = two_workers(run_server, tmp_path)
    eventually(lambda: all(state(server)[0] == "READY" for _ in range(10)), 30)
    for change, expected in (("unload", ("UNAVAILABLE", "")), ("load", ("READY", "1"))):
        changed = httpx.post(f"{server.url}/v2/repository/models/toy/{change}", headers=KEY, timeout=20)
        assert changed.status_code == 200, changed.text
        # Whichever worker is asked: all had followed when the change was answered.
        assert [state(server) for _ in range(20)] == [expected] * 20


def test_keys_are_read_again_by_all_workers(server, eventually, tmp_path):
    keys = Path(server.process.args[server.process.args.index("--api-key-file") + 1])
    keys.write_text("a-key\nb-key\n")
    server.process.send_signal(signal.SIGHUP)
    more = {"authorization": "Bearer b-key"}
    eventually(lambda: all(server.classify(["a card"], more).status_code == 200 for _ in range(10)))
    assert len(workers(server)) == 2


def test_all_leave_together(run_server):
    server = run_server("--workers", 2)  # the one of the other tests has to stay
    alive = workers(server)
    assert len(alive) == 2
    assert server.leave() == 0
    assert [pid for pid in alive if command_of(pid)] == []
    with pytest.raises(httpx.ConnectError):
        server.get("/v2")


def test_workers_leave_when_their_supervisor_is_killed(run_server, eventually):
    server = run_server("--workers", 2)
    alive = workers(server)
    assert len(alive) == 2
    assert server.leave(signal.SIGKILL) == -signal.SIGKILL
    eventually(lambda: not [pid for pid in alive if command_of(pid)], 20)


def test_a_worker_that_cannot_start_ends_the_server(run_server, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    driver = (
        "import sys\nfrom edgetune.serve.http import plan\nplan.ServerPlan.check = lambda self: None\n"
        "from edgetune.cli import main\nmain()"
    )
    (folder / "tokenizer.json").write_text("{}")
    server = run_server("--workers", 2, bundle=folder, ready=False, driver=driver)
    assert server.process.wait(30) == 1
    assert "tokenizer.json has 2 bytes instead of" in server.log.read_text()
    assert server.process.stdout.read() == ""


@pytest.mark.parametrize(("workers_wanted", "threads"), [(1, 1), (2, 1), (64, 1), (2, 3)])
def test_threads_are_shared_out(workers_wanted, threads):
    plan = ServerPlan(sources={}, settings=ServerSettings(threads=threads), workers=workers_wanted)
    settings = _shared_out(plan).settings
    share = max(1, usable_cores() // workers_wanted)
    assert settings.threads == threads
    assert settings.runners == max(1, share // threads)
