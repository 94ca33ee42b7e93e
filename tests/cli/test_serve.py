"""`edgetune serve` as a command: what it refuses before anything listens. What it serves is in tests/serve/http."""

import importlib.util
import shutil
import socket
from pathlib import Path

import pytest

from edgetune.commands.serve import command
from edgetune.serve.http import launch
from edgetune.serve.http.plan import ServerPlan, is_loopback, listen
from edgetune.serve.http.settings import ServerSettings

GOLDEN = Path(__file__).parents[1] / "golden" / "bundle-v1"


@pytest.fixture
def asked(monkeypatch):
    """The plans that the command would serve; nothing is served."""
    plans = []
    monkeypatch.setattr(launch, "serve", lambda plan, announce: plans.append(plan))
    return plans


@pytest.fixture
def no_socket(monkeypatch):
    """Fails the test where anything listens."""
    monkeypatch.setattr(socket, "create_server", lambda *_, **__: pytest.fail("it listens"))


def test_the_defaults_are_those_of_the_settings(edgetune, asked):
    assert edgetune("serve", GOLDEN).code == 0
    assert asked == [ServerPlan(sources={"bundle-v1": GOLDEN}, settings=ServerSettings(allow_host=("127.0.0.1",)))]


def test_every_option_arrives(edgetune, asked, tmp_path):
    (tmp_path / "keys").write_text("a-key\n")
    numbers = {
        "max_body_bytes": 1, "max_texts": 2, "max_batch": 3, "max_waiting": 4, "max_requests": 5, "max_connections": 6,
        "request_seconds": 7.0, "read_seconds": 8.0, "grace_seconds": 9.0, "watch_seconds": 0.0, "threads": 10,
        "runners": 11,
    }  # fmt: skip
    options = [part for name, value in numbers.items() for part in (f"--{name.replace('_', '-')}", value)]
    ended = edgetune(
        "serve", f"a={GOLDEN}", f"b={GOLDEN}", *options, "--refuse", "--no-access-log", "--provider", "cpu",
        "--host", "0.0.0.0", "--port", 9, "--workers", 2, "--api-key-file", tmp_path / "keys",
        "--tls-cert", tmp_path / "cert", "--tls-key", tmp_path / "key",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    settings = ServerSettings(truncate=False, access_log=False, provider="cpu", **numbers)
    assert asked == [
        ServerPlan(
            sources={"a": GOLDEN, "b": GOLDEN}, settings=settings, host="0.0.0.0", port=9, workers=2,
            key_file=tmp_path / "keys", tls_cert=tmp_path / "cert", tls_key=tmp_path / "key",
        )
    ]  # fmt: skip


def test_hosts_and_origins_that_may_ask(edgetune, asked, tmp_path):
    named = ("--allow-host", "Example.org", "--allow-host", "b")
    (tmp_path / "keys").write_text("a-key\n")
    for options, hosts in (
        (named, ("127.0.0.1", "example.org", "b")),
        (("--host", "localhost"), ("localhost",)),
        (("--public",), ()),
        (("--public", "--host", "0.0.0.0", *named), ("example.org", "b")),
        (("--api-key-file", tmp_path / "keys"), ()),
    ):
        assert edgetune("serve", GOLDEN, *options).code == 0
        assert asked[-1].settings.allow_host == hosts, options
    assert edgetune("serve", GOLDEN, "--allow-origin", "https://a.org:8", "--allow-origin", "*").code == 0
    assert asked[-1].settings.allow_origin == ("https://a.org:8", "*")


@pytest.mark.parametrize("origin", ["a.org", "https://a.org/", "https://", "https://a.org/x", "", "null"])
def test_what_is_no_origin_is_refused(edgetune, asked, origin):
    ended = edgetune("serve", GOLDEN, "--allow-origin", origin)
    assert (ended.code, asked) == (2, [])
    assert "is no origin. Give it as https://example.org:8443" in ended.err


def test_every_setting_has_an_option():
    names = {option.name for option in command.params} | {"split"}  # of --split, --split-name and --split-salt
    assert {"shares", "split_name", "split_salt"} <= names
    assert set(ServerSettings.__dataclass_fields__) <= names


def test_help_has_an_example(edgetune):
    ended = edgetune("serve", "--help")
    assert ended.code == 0
    assert "edgetune serve bundles/banking77" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Missing argument"),
        ([GOLDEN, GOLDEN], "Two bundles are named 'bundle-v1'"),
        ([f"../x={GOLDEN}"], "is no name for a model"),
        ([f"a b={GOLDEN}"], "is no name for a model"),
        (["a="], "names no folder"),
        ([GOLDEN, "--tls-key", "key.pem"], "--tls-key goes with --tls-cert"),
        ([GOLDEN, "--host", "0.0.0.0"], "Give --api-key-file, or --public"),
        ([GOLDEN, "--host", "::"], "Give --api-key-file, or --public"),
        ([GOLDEN, "--port", "70000"], "70000 is not in the range"),
        ([GOLDEN, "--workers", "0"], "0 is not in the range"),
        ([GOLDEN, "--read-seconds", "0"], "0.0 is not in the range"),
    ],
)
def test_usage_errors(edgetune, asked, arguments, words):
    ended = edgetune("serve", *arguments)
    assert ended.code == 2
    assert words in ended.err
    assert asked == []


@pytest.mark.parametrize("arguments", [["--public"], []])
def test_a_public_address_is_meant_or_local(edgetune, asked, arguments):
    host = "0.0.0.0" if arguments else "localhost"
    assert edgetune("serve", GOLDEN, "--host", host, *arguments).code == 0
    assert [plan.host for plan in asked] == [host]


def damaged(folder):
    (folder / "model.onnx").write_bytes(b"nothing")
    return [folder], "model.onnx has 7 bytes"


def no_manifest(folder):
    (folder / "manifest.json").unlink()
    return [folder], "is no bundle"


def empty_keys(folder):
    (folder / "keys").write_text("# none\n")
    return [folder, "--api-key-file", folder / "keys"], "holds no key"


def missing_keys(folder):
    return [folder, "--api-key-file", folder / "keys"], "cannot be read: No such file"


def no_certificate(folder):
    (folder / "cert").write_text("nothing")
    return [folder, "--tls-cert", folder / "cert"], "cannot be used"


@pytest.mark.parametrize("harm", [damaged, no_manifest, empty_keys, missing_keys, no_certificate])
@pytest.mark.usefixtures("no_socket")
def test_what_cannot_be_used_is_said_before_anything_listens(edgetune, harm, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(GOLDEN, folder)
    arguments, words = harm(folder)
    ended = edgetune("serve", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert words in ended.err
    assert ended.err.startswith("Error: ")


def test_a_port_in_use(edgetune):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = edgetune("serve", GOLDEN, "--port", port)
    assert ended.code == 1
    assert f"Error: Nothing can listen on port {port} of 127.0.0.1: Address already in use." in ended.err
    assert "--port 0" in ended.err


def test_the_missing_extra(edgetune, monkeypatch):
    find_spec = importlib.util.find_spec
    gone = {"uvicorn", "prometheus_client"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else find_spec(name))
    ended = edgetune("serve", GOLDEN)
    assert ended.code == 1
    assert "not installed: prometheus_client, uvicorn." in ended.err
    assert 'pip install "edgetune[serve]"' in ended.err


def test_addresses():
    assert [is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost", "0.0.0.0", "::")] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    with listen("127.0.0.1", 0) as listener:
        plan = ServerPlan(sources={}, settings=ServerSettings())
        assert plan.url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
        secure = ServerPlan(sources={}, settings=ServerSettings(), host="::1", tls_cert=Path("c"))
        assert secure.url(listener).startswith("https://[::1]:")
