"""What races for one family, made in a process of its own: a random model, its graphs, and another tool's graph.

Run as `python -m benchmarks.lab.language.artefacts --family NAME --folder DIR`. Apart from the race, because
making graphs takes torch and several times the model's memory, which must be gone when the clock runs.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from msgspec.structs import replace

from benchmarks.lab.language.families import FAMILIES, make_model
from edgetune.benchmarks.stepwise.race import weight_bytes
from edgetune.benchmarks.stepwise.side import GenerationSide
from edgetune.serve.errors import BundleDamaged, EdgetuneError, ExportError
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    from edgetune.export.stepwise.graph import DecoderGraph

FILE = "artefacts.json"
PYTORCH, STATIC, FP32 = "PyTorch fp32", "PyTorch fp32, static cache", "fp32"
INT4_G128, INT4, INT4_ONE, INT8 = "int4_g128", "int4", "int4_g128, batch 1", "int8"
GENAI, GENAI_G128 = "onnxruntime-genai int4", "onnxruntime-genai int4, groups of 128"
# Weights that share a scale; of the sides that are not named as many as BLOCK, as genai's builder does by itself.
BLOCKS = {INT4_G128: 128, INT4_ONE: 128, GENAI_G128: 128}
BLOCK = 32
Step = tuple[tuple[str, ...], Callable[["Artefacts", Path], "Artefacts"]]


class Artefacts(msgspec.Struct, frozen=True, kw_only=True):
    """A family's sides that could be made, and why the others could not.

    `parameters` counts a tied matrix once; `made` names the sides beside PyTorch's that there are; `specs` holds the
    specification of each of our graphs, and `coverage` what its file holds, in a sentence.
    """

    family: str
    parameters: int
    made: list[str] = msgspec.field(default_factory=list)
    specs: dict[str, GenerationSpec] = msgspec.field(default_factory=dict)
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    coverage: dict[str, str] = msgspec.field(default_factory=dict)

    def added(self, side: str, spec: GenerationSpec, coverage: str = "") -> Artefacts:
        """With one more graph of ours."""
        return replace(
            self,
            made=[*self.made, side],
            specs=self.specs | {side: spec},
            coverage=self.coverage | {side: coverage},
        )

    @property
    def unknown(self) -> list[str]:
        """The sides that are neither made nor known to fail: making one of them ended the process."""
        return [name for names, _ in STEPS for name in names if name not in self.made and name not in self.reasons]

    def given_up(self) -> Artefacts:
        """With a reason for the sides that were not made."""
        ended = dict.fromkeys(self.unknown, "the process that makes it ended, as it does for want of memory")
        return replace(self, reasons=self.reasons | ended)

    def sides(self, folder: Path, threads: int) -> dict[str, GenerationSide]:
        """Who can race, from the folder in which they were made, PyTorch first."""
        model = folder / "model"
        torch_bytes = weight_bytes(model)
        sides = {
            PYTORCH: GenerationSide("base", model, threads, runtime="torch", size_bytes=torch_bytes),
            STATIC: GenerationSide("base", model, threads, runtime="torch-static", size_bytes=torch_bytes),
        }
        for name, spec in self.specs.items():
            place = folder / place_of(name)
            sides[name] = GenerationSide(
                "bundle",
                place,
                threads,
                runtime="graph",
                spec=spec,
                size_bytes=weight_bytes(place),
                most_batch=1 if spec.batch_one else None,
            )
        for name in (GENAI, GENAI_G128):
            if name in self.made:
                place = folder / place_of(name)
                sides[name] = GenerationSide("bundle", place, threads, runtime="genai", size_bytes=weight_bytes(place))
        return sides


def without_paths(reason: str) -> str:
    """A reason with the names of files alone: where they lay says nothing on a page."""
    return re.sub(r"(?<![\w:/])/(?:[\w.+-]+/)+(?=[\w.+-])", "", reason)


def place_of(side: str) -> str:
    """The folder of a side."""
    return side.replace(",", "").replace(" ", "-")


def make(family: str, sizes: dict[str, Any], folder: Path, steps: Sequence[Step] | None = None) -> Artefacts:
    """Make a family in `folder`, by all steps if none are said; what fails leaves its reason and the others are made.

    What there is so far is written after each step, for a process that is killed for its memory tells nothing.
    """
    made = Artefacts(family=family, parameters=make_model(family, sizes, folder / "model"))
    for names, step in STEPS if steps is None else steps:
        try:
            made = step(made, folder)
        except EdgetuneError as error:
            made = replace(made, reasons={**dict.fromkeys(names, without_paths(error.found)), **made.reasons})
        (folder / FILE).write_bytes(msgspec.json.encode(made))
    return made


def _fp32(made: Artefacts, folder: Path) -> Artefacts:
    return made.added(FP32, _exported(folder / "model", folder / place_of(FP32), batch_one=False).spec)


def _exported(model: Path, folder: Path, *, batch_one: bool) -> DecoderGraph:
    """A graph that ONNX Runtime opens, without the exporter's fusions where they break it, as the export stage does."""
    from edgetune.export.stepwise.graph import export_decoder
    from edgetune.serve.stepwise.decoder import Decoder

    try:
        graph = export_decoder(model, folder, batch_one=batch_one)
        Decoder(graph.path, graph.spec, threads=1).close()
    except (ExportError, BundleDamaged):
        if batch_one:
            raise
        graph = export_decoder(model, folder, fused=False)
    return graph


def _int4_g128(made: Artefacts, folder: Path) -> Artefacts:
    return _quantized(made, folder, INT4_G128, 4)


def _int4(made: Artefacts, folder: Path) -> Artefacts:
    return _quantized(made, folder, INT4, 4)


def _int8(made: Artefacts, folder: Path) -> Artefacts:
    return _quantized(made, folder, INT8, 8)


def _quantized(made: Artefacts, folder: Path, name: str, bits: int) -> Artefacts:
    if FP32 not in made.specs:
        raise EdgetuneError(made.reasons[FP32])
    spec = made.specs[FP32]
    return made.added(name, spec, _quantize(folder / place_of(FP32) / "model.onnx", folder, name, bits, spec))


def _int4_one(made: Artefacts, folder: Path) -> Artefacts:
    """In four bits with the batch fixed to one, which takes the rotation into the attention; its fp32 is not kept."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        found = _exported(folder / "model", Path(scratch), batch_one=True)
        said = _quantize(found.path, folder, INT4_ONE, 4, found.spec)
    return made.added(INT4_ONE, found.spec, said)


def _quantize(graph: Path, folder: Path, name: str, bits: int, spec: GenerationSpec) -> str:
    """Rounded to nearest: of random weights there is nothing to calibrate, and the file is as large and as fast."""
    from edgetune.compress.gptq.quantization import quantize_decoder

    target = folder / place_of(name) / "model.onnx"
    target.parent.mkdir(exist_ok=True)
    found = quantize_decoder(graph, target, bits=bits, block=BLOCKS.get(name, BLOCK), method="rtn", spec=spec)
    return found.sentence()


def _genai(made: Artefacts, folder: Path) -> Artefacts:
    return _built(made, folder, GENAI)


def _genai_g128(made: Artefacts, folder: Path) -> Artefacts:
    return _built(made, folder, GENAI_G128)


def _built(made: Artefacts, folder: Path, name: str) -> Artefacts:
    build_genai(folder / "model", folder / place_of(name), BLOCKS.get(name, BLOCK))
    return replace(made, made=[*made.made, name])


def build_genai(model: Path, folder: Path, block: int = BLOCK) -> None:
    """A folder by onnxruntime-genai's own builder: int4 weights in blocks, computing in int8 as ours do.

    Raises:
        EdgetuneError: it is not installed, or does not take this architecture.
    """
    found = importlib.util.find_spec("onnxruntime_genai")
    if found is None or not found.submodule_search_locations:
        raise EdgetuneError("onnxruntime-genai is not installed")
    script = Path(next(iter(found.submodule_search_locations)), "models", "builder.py")
    command = [sys.executable, str(script), "-m", str(model), "-o", str(folder), "-p", "int4", "-e", "cpu"]
    command += ["-c", str(folder.parent / "cache"), "--extra_options"]
    command += [f"block_size={block}", "accuracy_level=4"]
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ran.returncode or not (folder / "genai_config.json").is_file():
        said = ran.stderr.strip().splitlines()
        raise EdgetuneError(f"its builder ended with {ran.returncode}: {said[-1] if said else 'no word'}")
    if (found_blocks := product_blocks(folder / "model.onnx")) != {block}:
        raise EdgetuneError(f"its builder wrote blocks of {sorted(found_blocks)} where {block} were asked for")


def product_blocks(graph: Path) -> set[int]:
    """The blocks by which a graph's products in few bits are quantized, read from the file."""
    import onnx_ir

    nodes = [node for node in onnx_ir.load(graph).graph if node.op_type == "MatMulNBits"]
    return {node.attributes.get_int("block_size", 0) for node in nodes}


STEPS: tuple[Step, ...] = (
    ((FP32,), _fp32),
    ((INT4,), _int4),
    ((INT4_G128,), _int4_g128),
    ((INT8,), _int8),
    ((INT4_ONE,), _int4_one),
    ((GENAI,), _genai),
    ((GENAI_G128,), _genai_g128),
)


@click.command()
@click.option("--family", type=click.Choice(list(FAMILIES)), required=True)
@click.option("--large", is_flag=True, help="About 500 million parameters instead of 60.")
@click.option("--folder", type=click.Path(path_type=Path), required=True)
def main(family: str, large: bool, folder: Path) -> None:
    """Make a family's artefacts and write what they are into artefacts.json."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = FAMILIES[family].large if large else FAMILIES[family].small
    make(family, sizes, folder)


if __name__ == "__main__":
    main()
