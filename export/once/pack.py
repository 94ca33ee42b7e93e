"""Packing: a candidate becomes a bundle, written beside its place and renamed, never half there.

A draft is a whole bundle without its report: quality and timing are measured on drafts, through the bundle's own
runtime, so that what is proven is what is shipped. Finishing adds report and recipe.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune import __version__
from edgetune.compress.candidate import Candidate
from edgetune.export.once.encoding import write_encoding
from edgetune.export.once.golden_pictures import golden_pictures
from edgetune.export.once.tokenizer import write_json
from edgetune.export.once.variants import VariantDraft, copy_variant
from edgetune.serve.bundle import (
    BUNDLE_FORMAT,
    GOLDEN_NAME,
    GRAPH_NAME,
    LEAST_TOLERANCE,
    MANIFEST_NAME,
    BaseIdentity,
    Bundle,
    FileEntry,
    HeadSpec,
    Manifest,
    RuntimeSettings,
    TensorSpec,
    digest_of,
)
from edgetune.serve.codecs import Input, takes_files
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.digest import file_sha256
from edgetune.serve.engines.spec import EngineSpec
from edgetune.serve.errors import WorkError
from edgetune.serve.golden import replay_golden
from edgetune.serve.golden_cases import Golden, GoldenAnswer, GoldenCase
from edgetune.serve.heads import PER_TOKEN, Head, open_head
from edgetune.serve.heads.tasks import TasksHead
from edgetune.serve.predictor import Predictor
from edgetune.serve.session import open_session
from edgetune.serve.targets import TargetEntry
from edgetune.serve.token_outputs import logits_of
from edgetune.tune.models.model import TunedModel

GOLDEN_CASES, GOLDEN_CHARACTERS = 8, 1_000
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnx", "torch", "transformers", "tokenizers", "numpy")
_UNSAID: dict[str, Any] = {
    "codec": "text",
    "heads": [],
    "columns": [],
    "strip_inputs": False,
    "engine": None,
    "cascade": None,
    "targets": [],
}
_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}


@dataclass(frozen=True)
class Packing:
    """What a draft needs beside its candidate: names, digests, inputs for the golden answers, the columns of the
    training data that inputs were read from, and whether their texts were stripped.

    Of several tasks on one encoder `heads` are those of all, each with its name and output, `tuned` is one of them, of
    whose folder tokenizer and configuration are, `task` the name for all, and `codec` what all read.
    """

    name: str
    tuned: TunedModel
    data_digest: str
    provider: str
    golden_texts: tuple[Input, ...]
    columns: tuple[str, ...] = ()
    strip_inputs: bool = False
    heads: tuple[HeadSpec, ...] = ()
    task: str = ""
    codec: str = ""

    @property
    def all_heads(self) -> tuple[HeadSpec, ...]:
        """The heads of all tasks; of one task its own."""
        return self.heads or (self.tuned.head,)


def draft_bundle(
    candidate: Candidate, packing: Packing, folder: Path, tolerance: float, engine: EngineSpec | None = None
) -> Bundle:
    """Write a whole bundle without a report into `folder`, golden answers computed by its own runtime.

    Args:
        candidate: whose graph becomes `model.onnx`.
        packing: names, digests and texts.
        folder: where to; what is there goes.
        tolerance: largest logit difference when golden answers are replayed, as a share of the logits' spread.
        engine: what answers from the tensors in `model.onnx`; None where ONNX Runtime does.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(candidate.graph, folder / GRAPH_NAME)
    codec = packing.codec or packing.tuned.codec
    write_encoding(packing.tuned.model_folder, folder, codec, packing.tuned.max_tokens)
    _write_config(packing.tuned.model_folder, folder, packing.all_heads)
    manifest = msgspec.structs.replace(_manifest(candidate, packing, folder), engine=engine)
    write_manifest(folder, manifest)
    _write_golden(folder, packing.golden_texts, tolerance)
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def settled_draft(
    draft: Bundle,
    folder: Path,
    runtime: RuntimeSettings,
    variants: Sequence[VariantDraft] = (),
    heads: Sequence[HeadSpec] | None = None,
    targets: Sequence[TargetEntry] = (),
) -> Bundle:
    """Copy a draft into `folder`, with the settings it is best run with in its manifest.

    Args:
        draft: what is packed as `model.onnx`.
        folder: where to; what is there goes.
        runtime: its settings.
        variants: all graphs where there are several, that of `draft` first; each is replayed from where it lies then.
        heads: the draft's heads with temperatures and thresholds; None leaves them as they are.
        targets: the classes of processors that it was proven for.

    Raises:
        WorkError: a variant is no graph of the same model, tokenizer and inputs.
        BundleDamaged: a variant does not give its golden answers.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(draft.folder, folder)
    entries = [copy_variant(draft, one, folder) for one in variants]
    listed = draft.manifest.heads if heads is None else listed_heads(heads)
    changes = {"runtime": runtime, "variants": entries, "heads": listed, "targets": list(targets)}
    write_manifest(folder, msgspec.structs.replace(draft.manifest, **changes))
    settled = Bundle.open(folder)
    for one in entries:
        replay_golden(Predictor(settled, variant=one.scheme))
    return settled


def finish_bundle(draft: Bundle, out: Path, extra: Mapping[str, bytes]) -> Bundle:
    """Copy a draft to `out` with the extra files, whole or not at all; an old bundle there is replaced.

    Raises:
        WorkError: `out` exists and is no bundle, or the disk is full.
    """
    check_place(out)
    part = out.with_name(f".{out.name}.part")
    old = out.with_name(f".{out.name}.old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        for path in draft.folder.iterdir():  # copytree would wrap a full disk into a list of its own errors
            shutil.copyfile(path, part / path.name)
        for name, content in extra.items():
            (part / name).write_bytes(content)
        write_manifest(part, draft.manifest)
        Bundle.open(part)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        part.rename(out)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        restore_bundle(out)
        raise WorkError(
            f"The bundle {out} cannot be written: {error.strerror or error}.",
            expected="a disk with room that this user may write to",
            action="free space or choose another --out; the work folder keeps what was built",
        ) from error
    shutil.rmtree(old, ignore_errors=True)
    return Bundle.open(out)


def restore_bundle(out: Path) -> None:
    """Put an old bundle back that a build was stopped from replacing, between the two renames."""
    old = out.with_name(f".{out.name}.old")
    if old.is_dir() and not out.exists():
        old.rename(out)


def check_place(out: Path) -> None:
    """Refuse an output that exists and is no bundle: only a whole old bundle may be replaced.

    Raises:
        WorkError: the folder is something else.
    """
    if out.is_file():
        raise WorkError(f"The output {out} is a file.", expected="a folder to create", action="choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST_NAME).is_file():
        raise WorkError(
            f"The output folder {out} exists and is no bundle (it has no {MANIFEST_NAME}).",
            expected="a new folder, an empty one, or an old bundle to replace",
            action="choose another --out, or move that folder away",
        )


def golden_texts(inputs: Sequence[Input], most_characters: int | None = None) -> tuple[Input, ...]:
    """A few inputs spread over the lengths in characters, shortest to longest; texts cut where `most_characters` says
    so, since of every token of theirs the logits are stored."""
    if most_characters is not None:
        inputs = [one[:most_characters] if isinstance(one, str) else one for one in inputs]
    distinct = {tuple(_texts_of(one)): one for one in inputs}
    by_length = sorted(distinct, key=lambda texts: (sum(map(len, texts)), texts))
    places = np.linspace(0, len(by_length) - 1, min(GOLDEN_CASES, len(by_length))).round().astype(int)
    return tuple(distinct[by_length[place]] for place in dict.fromkeys(places.tolist()))


def golden_inputs(codec: str, inputs: Sequence[Input], most_characters: int | None = None) -> tuple[Input, ...]:
    """The inputs whose answers are packed with a graph; texts as `golden_texts` has them."""
    return golden_pictures(inputs, GOLDEN_CASES) if takes_files(codec) else golden_texts(inputs, most_characters)


def _texts_of(one: Input) -> Sequence[str]:
    """The texts of an input, whichever codec takes it."""
    if isinstance(one, str | bytes | Path):
        return (str(one),)
    return tuple(one.values()) if isinstance(one, Mapping) else one


def _write_config(source: Path, folder: Path, heads: Sequence[HeadSpec]) -> None:
    """The model's configuration, with what other servers know it as: of several heads the trunk's, without labels."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        MODEL_MAPPING_NAMES,
    )

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    for name in ("_name_or_path", "auto_map"):  # code of the base, which the graph has no use for
        config.pop(name, None)
    # A type without a sequence classifier of its own keeps its trunk's name.
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    if len(heads) > 1:
        known = MODEL_MAPPING_NAMES
        for key in ("id2label", "label2id", "problem_type", "edgetune_pooling"):  # of one of the heads
            config.pop(key, None)
    elif heads[0].kind in PER_TOKEN:
        known = MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES
    elif config.get("edgetune_head") == "none":
        known = MODEL_MAPPING_NAMES
    name = known.get(config["model_type"])
    config["architectures"] = [name] if isinstance(name, str) else config["architectures"]
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = 0
    write_json(folder / "config.json", config)


def _manifest(candidate: Candidate, packing: Packing, folder: Path) -> Manifest:
    session = open_session(folder / GRAPH_NAME, provider=packing.provider, threads=1)
    heads = packing.all_heads
    shapes: dict[str, list[int | str]] = {
        head.output: ["batch", *(["tokens"] if head.kind in PER_TOKEN else []), open_head(head).width] for head in heads
    }
    return Manifest(
        format=BUNDLE_FORMAT,
        name=packing.name,
        task=packing.task or packing.tuned.task,
        labels=list(heads[0].labels) if len(heads) == 1 else [],
        inputs=[TensorSpec(v.name, _DTYPES[v.type], _shape(v.shape)) for v in session.get_inputs()],
        outputs=[TensorSpec(v.name, _DTYPES[v.type], shapes[v.name]) for v in session.get_outputs()],
        max_tokens=packing.tuned.max_tokens,
        scheme=candidate.scheme,
        provider=packing.provider,
        dtypes=candidate.dtypes,
        base=BaseIdentity(packing.tuned.base_id, packing.tuned.base_digest),
        data_digest=packing.data_digest,
        versions={"edgetune": __version__, **package_versions()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={},
        codec=packing.codec or packing.tuned.codec,
        heads=listed_heads(heads),
        columns=list(packing.columns),
        strip_inputs=packing.strip_inputs,
    )


def _shape(shape: Sequence[int | str | None]) -> list[int | str]:
    """The shape of an input: ids are (batch, tokens), pictures (batch, 3, height, width)."""
    if len(shape) == 2:
        return ["batch", "tokens"]
    return ["batch", *(size for size in shape[1:] if isinstance(size, int))]


def listed_heads(heads: Sequence[HeadSpec]) -> list[HeadSpec]:
    """What a manifest says of its heads: nothing of that which one without heads is read as."""
    return [] if list(heads) == [HeadSpec(kind="label", labels=heads[0].labels)] else list(heads)


def package_versions() -> dict[str, str]:
    """Versions of the packages that shaped the bundle; absent ones are left out."""
    versions: dict[str, str] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _write_golden(folder: Path, inputs: Sequence[Input], tolerance: float) -> None:
    predictor = Predictor(Bundle.open(folder))
    rows = predictor.encode(inputs)
    # One input a call, as `replay_golden` does it: int8 scales are taken over the whole batch.
    logits = [predictor.logits([row], batch_size=1)[0] for row in rows]
    texts, parts = predictor.codec.texts(inputs), len(predictor.codec.parts)
    cases = [
        _golden_case(predictor.head, texts[parts * place : parts * (place + 1)], row, logits[place])
        for place, row in enumerate(rows)
    ]
    golden = Golden(tolerance=_tolerance(logits, tolerance), cases=cases)
    if isinstance(predictor.head, TasksHead):
        parts = [predictor.head.split(row[None]) for row in logits]
        of_each = {task: _tolerance([part[task][0] for part in parts], tolerance) for task in predictor.head.heads}
        golden = Golden(tolerance=max(of_each.values()), cases=cases, tolerances=of_each)
    (folder / GOLDEN_NAME).write_bytes(pretty_json(golden))


def _tolerance(rows: Sequence[NDArray[np.float32]], share: float) -> float:
    """The largest difference of a logit, by the share of the spread of all that it may be."""
    values = np.concatenate([logits_of(row) for row in rows])
    return max(LEAST_TOLERANCE, share * float(values.max() - values.min()))


def _golden_case(head: Head, texts: Sequence[str], row: EncodedText, logits: NDArray[np.float32]) -> GoldenCase:
    """What the graph gives for one input: `logits` (width,) float32, or of a head on each token (tokens, 2 + width)."""
    pair = len(texts) > 1
    answers: dict[str, GoldenAnswer] = {}
    if isinstance(head, TasksHead):
        parts = head.split(logits[None])
        answers = {task: _golden_answer(one, parts[task][0]) for task, one in head.heads.items()}
        own = GoldenAnswer(logits=[logit for answer in answers.values() for logit in answer.logits])
    else:
        own = _golden_answer(head, logits)
    return GoldenCase(
        text=texts[0],
        input_ids=row.all_ids,
        logits=own.logits,
        label=own.label,
        answer=own.answer,
        text_pair=texts[1] if pair else None,
        type_ids=row.type_ids if pair else [],
        answers=answers,
    )


def _golden_answer(head: Head, logits: NDArray[np.float32]) -> GoldenAnswer:
    answer = head.plain(head.decide(logits[None])[0])
    is_vector = isinstance(answer, list) and any(isinstance(number, float) for number in answer)  # the logits say it
    return GoldenAnswer(
        logits=[_rounded(value) for value in logits_of(logits)],
        label=answer if isinstance(answer, str) else "",
        answer=None if isinstance(answer, str) or is_vector else answer,  # type: ignore[arg-type]  # lists of either kind
    )


def _rounded(value: np.float32) -> float:
    return round(float(value), 6)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json with size and digest of every other file that is there now."""
    names = sorted(path.name for path in folder.iterdir() if path.name != MANIFEST_NAME)
    files = {name: FileEntry((folder / name).stat().st_size, file_sha256(folder / name)) for name in names}
    path = folder / MANIFEST_NAME
    value = msgspec.to_builtins(msgspec.structs.replace(manifest, files=files))
    # What readers that know of no codecs and heads take for granted is not said.
    value = {name: value[name] for name in value if name not in _UNSAID or value[name] != _UNSAID[name]}
    for head in value.get("heads", []):
        if not head["name"]:  # of a bundle that answers one task
            del head["name"]
    read_again = msgspec.json.decode(pretty_json(value))
    path.write_bytes(pretty_json({**value, "manifest_digest": digest_of(read_again)}))
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def pretty_json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
