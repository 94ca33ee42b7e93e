"""Sessions: the provider that was asked for and no other, the threads that were asked for and no more."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import onnxruntime
import pytest

from edgetune.serve import load, session
from edgetune.serve.errors import BundleDamaged, InputError, MissingDependency, ProviderError
from edgetune.serve.session import open_session, placement

from .conftest import GOLDEN

GRAPH = GOLDEN / "model.onnx"


def has_gpu() -> bool:
    """Whether a session really gets a GPU here; that the wheel was built for one says nothing."""
    code = f"from edgetune.serve import load; load({str(GOLDEN)!r}, provider='cuda')"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_graph_runs_where_it_was_asked_to():
    assert open_session(GRAPH, provider="cpu").get_providers() == ["CPUExecutionProvider"]


def test_auto_is_what_the_bundle_was_built_for(bundle_copy):
    assert load(bundle_copy.folder).graph.session.get_providers() == ["CPUExecutionProvider"]
    bundle_copy.change_manifest(lambda manifest: manifest.update(provider="tpu"))
    with pytest.raises(ProviderError, match="There is no provider 'tpu'"):
        load(bundle_copy.folder)
    assert load(bundle_copy.folder, provider="cpu").graph.session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("name", ["tpu", "", "CPU", "CPUExecutionProvider"])
def test_an_unknown_provider_is_refused(name):
    with pytest.raises(ProviderError, match=f"There is no provider {name!r}") as caught:
        load(GOLDEN, provider=name)
    assert caught.value.expected == "cpu or cuda"


def test_cuda_without_a_gpu_is_refused_and_stdout_stays_clean(capfd):
    if has_gpu():
        pytest.skip("there is a GPU here")
    with pytest.raises(ProviderError, match=r"The provider 'cuda' does not run here: .+\.") as caught:
        load(GOLDEN, provider="cuda")
    assert "--provider cpu" in caught.value.action
    assert "edgetune doctor" in caught.value.action
    assert capfd.readouterr().out == ""


def test_what_preloading_printed_does_not_hide_the_reason(monkeypatch):
    monkeypatch.setattr(session, "_preload_cuda", lambda runtime: "libcudnn is missing")
    monkeypatch.setattr(session, "import_runtime", lambda: runtime)
    state = SimpleNamespace(**dict.fromkeys(("EPFail", "EngineError", "Fail", "InvalidArgument"), ValueError))
    for name in ("InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException"):
        setattr(state, name, ValueError)

    def fails(*arguments, **options):
        raise ValueError("CUDA out of memory\nand a page more")

    runtime = SimpleNamespace(
        SessionOptions=lambda: SimpleNamespace(add_session_config_entry=lambda key, value: None),
        get_available_providers=lambda: ["CUDAExecutionProvider"],
        InferenceSession=fails,
        capi=SimpleNamespace(onnxruntime_pybind11_state=state),
    )
    with pytest.raises(ProviderError) as caught:
        open_session(GRAPH, provider="cuda")
    assert "CUDA out of memory (before that: libcudnn is missing)" in str(caught.value)
    assert "a page more" not in str(caught.value)


def test_a_wheel_without_the_provider_says_so(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=f"ONNX Runtime {onnxruntime.__version__} was built without it"):
        load(GOLDEN, provider="cuda")


def test_threads_are_those_that_were_asked_for():
    options = load(GOLDEN, threads=3).graph.session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)


def test_threads_unsaid_are_the_usable_cores(monkeypatch):
    monkeypatch.setattr(session, "usable_cores", lambda: 2)
    assert load(GOLDEN).graph.session.get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("threads", [0, -2])
def test_fewer_than_one_thread_is_refused(threads):
    with pytest.raises(InputError, match=f"The number of threads is {threads}"):
        load(GOLDEN, threads=threads)


def test_placement_counts_every_node_once():
    onnx = pytest.importorskip("onnx")
    counts = placement(open_session(GRAPH, provider="cpu", record_placement=True))
    assert list(counts) == ["CPUExecutionProvider"]
    assert 0 < counts["CPUExecutionProvider"] <= len(onnx.load(str(GRAPH)).graph.node)


@pytest.mark.parametrize("content", [b"", b"no graph", GRAPH.read_bytes()[:9_000]], ids=["empty", "words", "cut"])
def test_a_file_that_is_no_graph_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleDamaged, match="ONNX Runtime cannot open"):
        open_session(path, provider="cpu")


def test_a_missing_graph_is_refused(tmp_path):
    with pytest.raises(BundleDamaged, match="ONNX Runtime cannot open"):
        open_session(tmp_path / "model.onnx", provider="cpu")


def test_without_onnx_runtime_the_pip_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependency, match="ONNX Runtime is not installed") as caught:
        load(GOLDEN)
    assert "pip install 'edgetune[cpu]'" in caught.value.action
