"""Bundles that answer from tables, and cascades, in every layout: their own graph, or that of the strong model."""

from __future__ import annotations

import pytest

from edgetune.export.layouts import LANGUAGE_LAYOUTS, LAYOUTS, ONLY, TARGET_LAYOUTS, layout_named, write_layout
from edgetune.serve import load
from edgetune.serve.bundle import Bundle

CARRIED = [name for name in LAYOUTS if name not in (*LANGUAGE_LAYOUTS, *TARGET_LAYOUTS, *ONLY)]
# Those that answer with edgetune itself, from the bundle's own folder; the others run `model.onnx`.
WHOLE = {"mlserver", "mlflow", "litserve", "bentoml", "docker", "oci"}


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("kind", ["static", "cascade"])
def test_a_layout_carries_them(static_bundle, cascade_bundle, tmp_path, name, kind):
    bundle = Bundle.open(static_bundle if kind == "static" else cascade_bundle)
    files = write_layout(bundle, name, tmp_path / "out")
    assert layout_named(name).check(tmp_path / "out") == []
    graph = (bundle.folder / "model.onnx").read_bytes()
    assert graph in [(tmp_path / "out" / file).read_bytes() for file in files if file.endswith((".onnx", "model"))] or (
        name == "oci"
    )
    has_small = any(file.endswith("static.onnx") for file in files)
    assert has_small is (kind == "cascade" and name in WHOLE - {"oci"})


@pytest.mark.parametrize("name", sorted(WHOLE - {"oci", "docker"}))
def test_the_bundle_in_a_layout_answers_as_it_does_alone(cascade_bundle, tmp_path, name):
    write_layout(Bundle.open(cascade_bundle), name, tmp_path / "out")
    (manifest,) = (tmp_path / "out").rglob("manifest.json")
    with load(manifest.parent, threads=1) as packed, load(cascade_bundle, threads=1) as alone:
        texts = ["where is my parcel", "card login"]
        assert packed.predict(texts) == alone.predict(texts)
        assert [answer.answered_by for answer in packed.predict(texts)] == ["static", "fp32"]
