"""Recipes that nobody would write, from a seed: a good one with a few things changed, and documents made to do harm.

`fuzzed_recipe(seed)` gives the bytes of a file and the texts of `--set`; the same seed gives the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable

GOOD = """\
base: {base}
task: text-classification
data:
  path: rows.csv
  text: text
  label: label
  split: [0.7, 0.15, 0.15]
  clean: {{deduplicate: true, normalize: true}}
tune: {{method: lora, epochs: 3, learning_rate: 3e-4, lora: {{rank: 8}}}}
compress: {{schemes: [fused, int8_dynamic]}}
gate: {{metric: accuracy, max_drop: 0.01, confidence: 0.95}}
budget: {{size_mb: 30, p90_ms: 5.5}}
benchmark: {{samples: 40, threads: 1}}
seed: 0
out: bundle
"""
KEYS = (
    *("base", "task", "data", "tune", "compress", "gate", "budget", "benchmark", "export", "seed", "out", "device"),
    *(
        "data.path",
        "data.text",
        "data.label",
        "data.split",
        "data.clean",
        "data.header",
        "data.delimiter",
        "data.train",
    ),
    *("data.unlabeled", "data.encoding", "data.text_pair", "data.separator", "data.columns", "data.clean.normalize"),
    *("tune.method", "tune.epochs", "tune.lora.rank", "tune.learning_rate", "tune.report_to", "compress.schemes"),
    *(
        "compress.variants",
        "gate.metric",
        "gate.max_drop",
        "benchmark.threads",
        "no.such.key",
        "",
        ".",
        "a..b",
        "=",
        "data.",
    ),
)
SCALARS = (
    *("on", "off", "yes", "no", "true", "null", "~", "", "0", "1", "-1", "007", "0x1f", "1_000", "12:30:45", "1e3"),
    *("1e999", ".inf", "-.inf", ".nan", "inf", "nan", "2024-01-01", "2024-13-45", "2024-02-30 99:99:99", "99999-1-1"),
    *("!!int abc", "!!float x", "!!bool maybe", "!!timestamp x", "!!binary '@'", "!!set {a, b}", "!!omap [a: 1]"),
    *("!!python/object:os.system x", "!!python/name:os.system", "!foo x", "!", "!!", "!<tag:x> y", "&a", "*a", "&a *a"),
    *("[", "{", "]", "}", "[]", "{}", "- - -", "? x", ": :", "|", ">", "|9", "%YAML 9.9", "---", "...", "@x", "`x`"),
    *("'", '"', "'a", '"\\x"', '"\\ud800"', '"\\U00110000"', '"\\Uffffffff"', '"\\0"', "\t", "#", "# x", "a: b: c"),
    *("9" * 5000, "a" * 300, "a/" * 3000, "\U0001f600", "\u202e", "é", "../" * 40, "/dev/zero", "/dev/null", "~"),
    *("[[[[1]]]]", "{a: {b: {c: {}}}}", "[1, a, null, true]", "{on: off}", "{1: 2}", "{[a]: b}", "<<: *a", "{<<: 3}"),
)


def fuzzed_recipe(seed: int, base: str) -> tuple[bytes, list[str]]:
    """A recipe's bytes and the settings that go with it; `base` is a base model that is there."""
    chosen = random.Random(seed)
    good = GOOD.format(base=base)
    make = chosen.choice([_replaced, _replaced, _mutated, _lines, _nested, _aliases, _long, _bytes])
    content = make(chosen, good)
    settings = [f"{chosen.choice(KEYS)}={chosen.choice(SCALARS)}" for _ in range(chosen.choice((0, 0, 0, 1, 3)))]
    # No argument of a command holds a NUL.
    return content, [setting.replace("\0", "") for setting in settings]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _replaced(chosen: random.Random, good: str) -> bytes:
    """Values in the place of others, of which some are sections."""
    lines = good.splitlines()
    for _ in range(chosen.randint(1, 3)):
        place = chosen.randrange(len(lines))
        lines[place] = f"{lines[place].partition(':')[0]}: {chosen.choice(SCALARS)}"
    return _encoded("\n".join(lines))


def _mutated(chosen: random.Random, good: str) -> bytes:
    """Letters changed, put in and taken out."""
    letters = list(good)
    for _ in range(chosen.randint(1, 12)):
        place, other = (
            chosen.randrange(len(letters)),
            chosen.choice("[]{}:,&*!|>'\"%@`#?-<= \n\t\x00\x07\x85\u2028\ufeffa0"),
        )
        change: Callable[[], object] = chosen.choice(
            [lambda p=place, o=other: letters.insert(p, o), lambda p=place: letters.pop(p)]
        )
        change()
    return _encoded("".join(letters))


def _lines(chosen: random.Random, good: str) -> bytes:
    """Lines in another order, twice, without their indentation, or missing."""
    lines = good.splitlines()
    for _ in range(chosen.randint(1, 4)):
        place = chosen.randrange(len(lines))
        lines[place : place + 1] = chosen.choice(
            [[], [lines[place]] * 2, [lines[place].strip()], [f"    {lines[place]}"], ["---"], [chosen.choice(SCALARS)]]
        )
    return _encoded("\n".join(lines))


def _nested(chosen: random.Random, good: str) -> bytes:
    depth = chosen.choice((30, 60, 500, 20_000))
    opening = chosen.choice(("[", "{a: ", "- ", "? ", "!!seq [", "[{a: "))
    return _encoded(f"{chosen.choice(KEYS).partition('.')[0] or 'a'}: {opening * depth}\n")


def _aliases(chosen: random.Random, good: str) -> bytes:
    """Aliases of aliases, which stand for up to 10**12 values; some stand for what holds themselves."""
    levels, width = chosen.randint(1, 12), chosen.randint(1, 10)
    lines = ["x0: &x0 [a, b]"]
    for level in range(1, levels + 1):
        inner = ", ".join([f"*x{level - chosen.choice((0, 1, 1, 1))}"] * width)
        lines.append(
            f"x{level}: &x{level} " + (f"[{inner}]" if chosen.random() < 0.7 else f"{{a: {inner}, b: [{inner}]}}")
        )
    key = chosen.choice(("base", "data", "compress", "tune", "data: {path", "compress: {schemes"))
    last = f"{key}: *x{levels}" + ("}" if "{" in key else "")
    return _encoded("\n".join([*lines, last, chosen.choice(("", f"<<: *x{levels}"))]))


def _long(chosen: random.Random, good: str) -> bytes:
    key = chosen.choice(KEYS)
    long = chosen.choice(("a", "é", "/", "a/", "9", " ", "\u0301")) * chosen.choice((241, 5_000, 200_000, 600_000))
    return _encoded(
        good + chosen.choice((f"{long}: 1\n", f"more: {long}\n", f"base: {long}\n", f"'{key}': '{long}'\n"))
    )


def _bytes(chosen: random.Random, good: str) -> bytes:
    """Bytes changed, another encoding, or nothing of it."""
    content = bytearray(good.encode())
    for _ in range(chosen.randint(1, 6)):
        content[chosen.randrange(len(content))] = chosen.randrange(256)
    return chosen.choice([bytes(content), good.encode("utf-16"), good.encode("utf-32"), b"", chosen.randbytes(300)])
