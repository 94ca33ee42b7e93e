"""Replaying golden answers: what a digest cannot see, since whoever changes a file can digest it again."""

from __future__ import annotations

import json

import pytest

from edgetune.serve import load
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.golden import replay_golden


def replay_changed(bundle_copy, change):
    """Replay after a change to golden.json that the manifest has been told of."""
    bundle_copy.change("golden.json", change)
    bundle_copy.digest_again("golden.json")
    return replay_golden(load(bundle_copy.folder, threads=1))


def test_whole_answers_replay(bundle_copy):
    replay = replay_golden(load(bundle_copy.folder, threads=1))
    assert replay.cases == 8
    assert replay.max_abs_diff < 1e-5


def test_another_logit_is_told_with_its_difference(bundle_copy):
    with pytest.raises(BundleDamaged) as caught:
        replay_changed(bundle_copy, lambda golden: golden["cases"][0].update(logits=[-0.29195, -0.160678, 0.632066]))
    assert caught.value.found == (
        "1 of 8 golden answers differ: 'i still money card' is off by 0.1 (allowed 0.001302)."
    )
    assert "do not use the bundle on this machine" in caught.value.action


def test_another_label_is_told(bundle_copy):
    with pytest.raises(BundleDamaged, match="'i still money card' is answered 'payment' instead of 'account'"):
        replay_changed(bundle_copy, lambda golden: golden["cases"][0].update(label="account"))


def test_another_label_within_the_tolerance_is_no_fault(bundle_copy):
    def nearly_even(golden):
        golden["tolerance"] = 1.0
        golden["cases"][0]["label"] = "delivery"

    assert replay_changed(bundle_copy, nearly_even).cases == 8


def test_other_tokens_are_told(bundle_copy):
    with pytest.raises(BundleDamaged, match="'i still money card' tokenizes differently"):
        replay_changed(bundle_copy, lambda golden: golden["cases"][0]["input_ids"].append(3))


@pytest.mark.parametrize("change", [{"logits": [0.1]}, {"logits": []}, {"logits": [0.0] * 4}, {"label": "weather"}])
def test_answers_to_other_labels_are_told(bundle_copy, change):
    with pytest.raises(BundleDamaged, match="'i still money card' was packed for other labels"):
        replay_changed(bundle_copy, lambda golden: golden["cases"][0].update(change))


def test_all_differing_answers_are_told(bundle_copy):
    with pytest.raises(BundleDamaged, match=r"^8 of 8 golden answers differ: ") as caught:
        replay_changed(bundle_copy, lambda golden: [case["logits"].reverse() for case in golden["cases"]])
    assert caught.value.found.count("is off by") == 8


def test_no_answers_prove_nothing(bundle_copy):
    with pytest.raises(BundleDamaged, match=r"The golden answers of .* are empty"):
        replay_changed(bundle_copy, lambda golden: golden["cases"].clear())


def test_labels_in_another_order_are_found(bundle_copy):
    # Where they were changed in all files alike, the golden answers tell it.
    bundle_copy.change_manifest(lambda manifest: manifest["labels"].reverse())
    labels = json.loads(bundle_copy.path("manifest.json").read_text("utf-8"))["labels"]
    named = {str(number): label for number, label in enumerate(labels)}
    bundle_copy.change("config.json", lambda config: config.update(id2label=named))
    bundle_copy.digest_again("config.json")
    with pytest.raises(BundleDamaged, match="is answered 'account' instead of 'payment'"):
        replay_golden(load(bundle_copy.folder, threads=1))
