"""The recipe: file, flags and `--set` laid over each other, and all faults told at once."""

import pytest
import yaml

from edgetune.once.recipe import OnceRecipe
from edgetune.recipe import parse_settings
from edgetune.serve.errors import RecipeError
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.methods import METHODS


@pytest.fixture
def recipe(tmp_path):
    """`recipe(text)` writes a recipe and returns its path."""

    def write(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


MINIMAL = "base: encoder\ndata: {path: rows.csv}\n"


def test_only_base_and_data_are_needed_and_the_defaults_are_written_out(recipe):
    loaded = OnceRecipe.load(recipe(MINIMAL), {})
    assert (loaded.base, loaded.data.path, loaded.tune.method, loaded.out) == (
        "encoder",
        "rows.csv",
        "auto",
        "bundles/model",
    )
    written = yaml.safe_load(loaded.to_yaml())
    assert OnceRecipe.model_validate(written) == loaded
    assert written["gate"] == {
        "metric": "",
        "max_drop": 0.01,
        "max_rise": 0.02,
        "min_agreement": 0.0,
        "confidence": 0.95,
        "when_inconclusive": "auto",
        "rows": 4000,
    }


def test_settings_lie_over_the_file(recipe):
    settings = parse_settings(["tune.epochs=3", "data.split=[0.5, 0.25, 0.25]", "budget.size_mb=4.5", "seed=7"])
    loaded = OnceRecipe.load(recipe(MINIMAL + "seed: 1\ntune: {epochs: 9, method: full}\n"), settings)
    assert (loaded.tune.epochs, loaded.tune.method, loaded.data.split, loaded.budget.size_mb, loaded.seed) == (
        *(3, "full", (0.5, 0.25, 0.25)),
        *(4.5, 7),
    )


def test_a_section_of_comments_only_says_nothing(recipe):
    loaded = OnceRecipe.load(recipe(MINIMAL + "budget:\n  # size_mb: 30\ntune:\n"), {"tune.method": "probe"})
    assert loaded.budget.size_mb is None
    assert loaded.tune.method == "probe"


BAD = """\
bass: encoder
data: {path: rows.csv, colour: red}
tune: {method: magic, epoch: 3, epochs: many, lora: {rank: 0}}
compress: {schemes: [int3]}
gate: {max_drop: much}
seed: -1
"""
FAULTS = [
    "  base: is required",
    "  data.colour: there is no such key; known here: path, train, ",
    f"  tune.method: there is no method 'magic'; expected one of {', '.join(METHODS)} (found 'magic')",
    "  tune.epochs: should be a valid number, unable to parse string as a number or should be 'auto' (found 'many')",
    "  tune.lora.rank: should be greater than or equal to 1 (found 0)",
    "  tune.epoch: there is no such key; did you mean 'epochs'?",
    "  compress.schemes: no such scheme: int3; expected fused, int8_dynamic, int8_static, weight_int8, "
    "weight_int4, fp16, bf16, fp32, trimmed, student, pruned, static, linear (found ['int3'])",
    "  gate.max_drop: should be a valid number, unable to parse string as a number (found 'much')",
    "  seed: should be greater than or equal to 0 (found -1)",
    "  bass: there is no such key; did you mean 'base'?",
]


def test_unknown_keys_and_wrong_values_are_all_told_at_once(edgetune, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = edgetune("build", recipe(BAD))
    assert ended.code == 2
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert lines[0] == f"Error: The recipe {tmp_path / 'recipe.yaml'} has {len(FAULTS)} faults:"
    assert len(lines) == len(FAULTS) + 2
    for fault in FAULTS:
        assert any(line.startswith(fault) for line in lines), (fault, ended.err)
    assert lines[-1] == "To do: correct all of them; `edgetune init DATA` writes a recipe with every section"
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    "setting",
    [
        *("tune.epochs=0", "tune.epochs=-1", "tune.learning_rate=0", "tune.head_learning_rate=-1"),
        *("tune.max_tokens=2", "tune.freeze.top_layers=0", "tune.batch_size=0", "tune.warmup=1"),
        *("benchmark.threads=0", "benchmark.samples=5", "gate.confidence=1", "gate.max_drop=-0.1"),
        *("data.split=[0.5, 0.5, 0.5]", "export.provider=tpu", "device=tpu", "task=poetry", "budget.p90_ms=0"),
    ],
)
def test_values_out_of_bounds_are_refused(setting):
    with pytest.raises(RecipeError, match="has 1 fault:") as refused:
        OnceRecipe.load(None, {"base": "encoder", "data.path": "rows.csv", **parse_settings([setting])})
    assert f"  {setting.partition('=')[0]}: " in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base: [", "cannot be read"),
        ("just words", "holds str."),
        ("- a\n- b\n", "holds list."),
        ("", "holds NoneType."),
        ("base: encoder\ndata: rows.csv\n", "data: "),
        (MINIMAL + "data2: 1\n", "data2: there is no such key; did you mean 'data'?"),
    ],
)
def test_a_file_that_is_no_recipe(edgetune, recipe, text, said):
    ended = edgetune("build", recipe(text))
    assert ended.code == 2
    assert said in ended.err


def test_a_recipe_that_is_not_there(edgetune, tmp_path):
    ended = edgetune("build", tmp_path / "mine.yaml")
    assert ended.code == 2
    assert f"Error: There is no recipe {tmp_path / 'mine.yaml'}.\nTo do: edgetune init DATA -o" in ended.err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["tune.epochs"], "--set tune.epochs says nothing."),
        (["=3"], "--set =3 says nothing."),
        (["tune.epochs=["], "the value is no YAML"),
        (["seed=1", "seed.more=2"], "seed.more cannot be set: seed is 1."),
    ],
)
def test_settings_that_say_nothing(edgetune, settings, said):
    flags = [part for setting in settings for part in ("--set", setting)]
    ended = edgetune("build", "--base", "encoder", "--data", "rows.csv", *flags)
    assert ended.code == 2
    assert said in ended.err
    assert "Expected: " in ended.err


def test_neither_base_nor_data(edgetune):
    ended = edgetune("build")
    assert ended.code == 2
    assert ended.err.startswith("Error: The recipe has 2 faults:\n  base: is required\n")
    assert "  data: is required" in ended.err


def test_an_unknown_flag_is_a_matter_of_usage(edgetune):
    ended = edgetune("build", "--bass", "x")
    assert ended.code == 2
    assert "No such option" in ended.err


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("arm64", [("arm64", None, None)]),
        ("[here, x86-64-v3]", [("here", None, None), ("x86-64-v3", None, None)]),
        ("{isa: arm64, cores: 4, memory_mb: 1024}", [("arm64", 4, 1024)]),
        ("[x86-64-vnni, {isa: arm64-dotprod, cores: 2}]", [("x86-64-vnni", None, None), ("arm64-dotprod", 2, None)]),
    ],
)
def test_targets_are_names_or_mappings_or_a_list_of_both(recipe, value, named):
    loaded = OnceRecipe.load(recipe(f"{MINIMAL}target: {value}\n"), {})
    assert [(one.isa, one.cores, one.memory_mb) for one in loaded.target] == named
    assert OnceRecipe.model_validate(yaml.safe_load(loaded.to_yaml())) == loaded


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("armv7", "the target 'armv7' is not known; expected one of here, x86-64-v2, x86-64-v3, x86-64-vnni, arm64, "),
        ("[here, arm_64]", "the target 'arm_64' is not known; did you mean arm64?; expected one of here, "),
        ("[]", "target: "),
        ("3", "target: "),
        ("{isa: arm64, cores: 0}", "target.0.cores: should be greater"),
        ("{isa: arm64, ram: 3}", "target.0.ram: there is no such key; known here: isa, cores, "),
    ],
)
def test_targets_that_are_none_are_refused(recipe, value, fault):
    with pytest.raises(RecipeError) as refused:
        OnceRecipe.load(recipe(f"{MINIMAL}target: {value}\n"), {})
    assert fault in refused.value.found


def test_a_language_model_has_no_target_but_here(recipe):
    minimal = "base: decoder\ndata: {path: chats.jsonl}\n"
    assert StepwiseRecipe.load(recipe(f"{minimal}target: here\n"), {}).target[0].isa == "here"
    with pytest.raises(RecipeError, match="not proven for other processors yet: arm64; expected here"):
        StepwiseRecipe.load(recipe(f"{minimal}target: [here, arm64]\n"), {})
