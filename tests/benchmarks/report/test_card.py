"""The model card and the bill of materials that every bundle carries."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

from edgetune.benchmarks.report.card import base_licence, model_card
from edgetune.benchmarks.report.sbom import bill_of_materials
from edgetune.benchmarks.report.summary import metric_of
from edgetune.serve.bundle import Bundle
from edgetune.serve.stepwise.report import report_of

GOLDEN = Path(__file__).parent.parent.parent / "golden" / "bundle-v1"


@pytest.fixture(scope="module")
def golden():
    bundle = Bundle.open(GOLDEN)
    return bundle.manifest, report_of(bundle)


def test_the_card_has_a_header_that_the_hub_reads_and_what_the_report_says(golden):
    manifest, report = golden
    manifest = msgspec.structs.replace(manifest, base=msgspec.structs.replace(manifest.base, id="org/base"))
    card = model_card(manifest, report, "apache-2.0", "text-classification")
    _, header, body = card.split("---\n", 2)
    values = yaml.safe_load(header)
    name, value, drop, more = metric_of(report)
    assert (values["license"], values["base_model"], values["base_model_relation"]) == (
        *("apache-2.0", "org/base"),
        "quantized",
    )
    assert (values["library_name"], values["pipeline_tag"]) == ("edgetune", "text-classification")
    [metric] = values["model-index"][0]["results"][0]["metrics"]
    assert (metric["type"], metric["value"]) == (name, pytest.approx(value, abs=1e-6))
    assert more
    assert drop is not None
    for words in (
        *(report.verdict, manifest.base.digest, manifest.data_digest, "Licence of the base: apache-2.0"),
        *("## Limits", f"{report.quality.n:,} held-out rows", report.data.findings[0]),
    ):
        assert words in body
    assert "nan" not in card.lower().split()


def test_a_base_that_names_no_licence_and_words_that_are_tags(golden):
    manifest, report = golden
    manifest = msgspec.structs.replace(
        manifest, name="<script>|x", base=msgspec.structs.replace(manifest.base, id="/a/b")
    )
    card = model_card(manifest, report, "unknown", "text-classification")
    assert "license: other" in card
    assert "base_model" not in card
    assert "names no licence: look it up" in card
    assert "# &lt;script>\\|x" in card


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: MIT\n---\nlicense: gpl-3.0", "mit"),
        ("---\ntags:\n- x\nlicense: 'apache-2.0'\n---\n", "apache-2.0"),
        ("---\ntags: []\n---\nlicense: mit", "unknown"),
        ("license: mit", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_licence_is_the_one_of_the_base_s_own_header(tmp_path, card, licence):
    if card is not None:
        (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert base_licence(tmp_path) == licence


def test_the_bill_of_materials_names_every_part(golden):
    manifest, report = golden
    files = {name: entry.sha256 for name, entry in manifest.files.items()}
    text = bill_of_materials(manifest, report, "mit", files)
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["modelCard"]["modelParameters"]["task"] == manifest.task
    parts = {part["bom-ref"]: part for part in document["components"]}
    assert len(parts) == len(document["components"])
    assert {name: parts[f"file:{name}"]["hashes"][0]["content"] for name in files} == files
    assert parts["base"]["licenses"] == [{"license": {"name": "mit"}}]
    [model] = document["dependencies"]
    assert set(model["dependsOn"]) <= set(parts)
    assert f"pkg:pypi/numpy@{manifest.versions['numpy']}" in model["dependsOn"]
    assert not any("torch" in name for name in model["dependsOn"])
    assert bill_of_materials(manifest, report, "mit", files) == text  # the same bundle gives the same bytes
    assert bill_of_materials(manifest, report, "mit", files | {"x": "0" * 64}) != text
