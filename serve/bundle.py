"""The bundle: the folder that a build ends in and a server embeds. This module is its reader and its format.

One page of specification stands in docs/bundle-format.md; tests/golden/ pins both. Must import nothing but
the standard library and msgspec, so that `inspect` works without ONNX Runtime.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from edgetune.serve.codecs import CODECS
from edgetune.serve.digest import value_sha256
from edgetune.serve.engines.spec import CascadeSpec, EngineSpec
from edgetune.serve.errors import BundleDamaged, BundleError, BundleFormatError
from edgetune.serve.external import UnreadableGraph, external_files
from edgetune.serve.files import read_regular, sha256_regular, shape_fault
from edgetune.serve.golden_cases import Golden
from edgetune.serve.stepwise.spec import GenerationSpec, Tokens
from edgetune.serve.targets import TargetEntry

BUNDLE_FORMAT = 1
# Of bundles with first caches: an older reader would leave these out and answer as another model.
FIRST_CACHE_FORMAT = NEWEST_FORMAT = 2
MANIFEST_NAME = "manifest.json"
GRAPH_NAME = "model.onnx"
TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "config.json"
GOLDEN_NAME = "golden.json"
REPORT_NAME = "report.json"
SIGNATURE_NAME = "model.sig"  # over all files, and so in no manifest

# What answering reads: unlisted, these would be used without ever being compared with what was packed.
REQUIRED_NAMES = (GRAPH_NAME, CONFIG_NAME)

# Of a manifest, and of any other file that is read whole: larger ones are refused before anything parses them.
MOST_JSON_BYTES = 64 * 1024 * 1024

Bytes = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Cores = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
Format = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature = Annotated[float, msgspec.Meta(ge=0.01, le=100)]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
Threads = Annotated[int, msgspec.Meta(ge=1, le=1024)]

# The least tolerance that golden answers are packed with, where their logits hardly spread.
LEAST_TOLERANCE = 1e-4

_COPY_AGAIN = "copy the bundle again from where it was built, or build it again"
_LISTED = f"the files and digests that {MANIFEST_NAME} lists"

T = TypeVar("T")

# What msgspec raises on bytes that hold no such value: its own error, and two that it lets through.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class TensorSpec(msgspec.Struct, frozen=True):
    """An input or output of the graph: `shape` holds sizes, and names where the size is free."""

    name: str
    dtype: str
    shape: list[Size | str]


class FileEntry(msgspec.Struct, frozen=True):
    """Size and SHA-256 (hex) of one file of the bundle."""

    bytes: Bytes
    sha256: str


class HeadSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One head: an output of the graph and how it becomes an answer. `name` is that of its task, of several.

    `kind` is a name of `edgetune.serve.heads.HEADS`; `output` the graph's output, (batch, width) float32; `labels` the
    answers there are, in the order of its columns; `thresholds`, of the kind `labels`, the probability from which each
    label is given; `decode`, of the kind `entities`, how tags become spans, "simple" where it is empty. Probabilities
    are those of the logits divided by `temperature`; an answer of the kind `label` whose probability is below
    `abstain_below` is unsure, none where that is None. Of the kind `entities` the output is (batch, tokens, width). Of
    the kind `embedding`, `width` is that of the vectors, `lengths` are shorter ones at which they may be cut, `prompts`
    what stands before a text, by name.
    """

    kind: str
    name: str = ""
    output: str = "logits"
    labels: list[str] = []
    thresholds: list[Share] = []
    temperature: Temperature = 1.0
    abstain_below: Share | None = None
    decode: str = ""
    width: Size = 0
    lengths: list[Size] = []
    prompts: dict[str, str] = {}


class BaseIdentity(msgspec.Struct, frozen=True):
    """The pretrained model that the bundle was tuned from."""

    id: str
    digest: str


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How the graph is best run, measured when it was built, and the class of machine that this holds for.

    `threads` of one run; `spinning` whether threads wait awake for the next node; `cpu` and `cores` name the machine.
    """

    threads: Threads
    spinning: bool
    cpu: str
    cores: Cores


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One graph of a bundle that holds several of the same model: same tokenizer, same inputs, same labels.

    `graph` and `golden` name its files; `dtypes` are shares of the weights' bytes. `needs` are instruction sets, as
    /proc/cpuinfo has them, of which a processor must have one to run it fast; none where any will do. `p50_ms` is the
    median of single calls with `runtime`, all variants in turn, on the class of machine that `runtime` names.
    """

    scheme: str
    graph: str
    golden: str
    provider: str
    dtypes: dict[str, Share]
    needs: list[str] = []
    runtime: RuntimeSettings | None = None
    p50_ms: Milliseconds | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself. `dtypes` are shares of the weights' bytes; `created` is ISO 8601, UTC.

    `runtime` is None in bundles of releases before 0.2, and where nothing was timed. `variants` tells all graphs where
    there are several, `model.onnx` first; it is empty where there is one. `generation` tells of a language model's
    cache and tokens; it is None for every other task. `model_digest` is that of the merged weights that its graph was
    made from, which layouts for other engines take from the work folder; None for every other task. `codec` says how an
    input becomes arrays, `heads` how outputs become answers: none are named for a single label a text. `columns` are
    those of the training data that inputs were read from, one for each part of the codec; none where that is not known.
    `strip_inputs` says that texts were stripped before they were learnt from, as they then are before they are
    answered.
    `engine` says how outputs come about without ONNX Runtime, None where it runs `model.onnx`; `cascade` tells of a
    small model that answers before `model.onnx` is asked. `targets` are the classes of processors it was proven for.
    `manifest_digest` is `digest_of` everything else that the manifest says; None in bundles of releases before 0.2.
    """

    format: Format
    name: str
    task: str
    labels: list[str]
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    max_tokens: Tokens
    scheme: str
    provider: str
    dtypes: dict[str, Share]
    base: BaseIdentity
    data_digest: str
    versions: dict[str, str]
    created: str
    files: dict[str, FileEntry]
    runtime: RuntimeSettings | None = None
    variants: list[Variant] = []
    generation: GenerationSpec | None = None
    model_digest: str | None = None
    codec: str = "text"
    heads: list[HeadSpec] = []
    columns: list[str] = []
    strip_inputs: bool = False
    engine: EngineSpec | None = None
    cascade: CascadeSpec | None = None
    targets: list[TargetEntry] = []
    manifest_digest: str | None = None

    @property
    def answer_heads(self) -> list[HeadSpec]:
        """All heads; a manifest that names none has one of kind `label` on its `labels`, and a language model none."""
        if self.heads or self.generation is not None:
            return self.heads
        return [HeadSpec(kind="label", labels=self.labels)]

    @property
    def graphs(self) -> list[Variant]:
        """All graphs there are, `model.onnx` first."""
        return self.variants or [
            Variant(
                scheme=self.scheme,
                graph=GRAPH_NAME,
                golden=GOLDEN_NAME,
                provider=self.provider,
                dtypes=self.dtypes,
                runtime=self.runtime,
            )
        ]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> Bundle:
        """Open a bundle folder; with `verify`, check that every file has the size and bytes that were packed.

        Nothing is read but what the manifest lists, and never through a link.

        Raises:
            BundleError: the folder is missing or is no bundle.
            BundleFormatError: it was written in a newer format.
            BundleDamaged: a file is missing or changed, or is no regular file.
        """
        folder = Path(folder)
        bundle = cls(folder, _read_manifest(folder))
        if verify:
            bundle.check_files()
        else:
            bundle.check_shapes()
        return bundle

    def check_files(self) -> None:
        """Compare the sizes of all files, then the digests of those that have theirs; report all offenders at once.

        Raises:
            BundleDamaged: a file is missing or its bytes are not those that were packed.
        """
        listed = self.manifest.files
        faults = [f"{name} is not listed" for name in self._required_names() if name not in listed]
        sizes = {name: self._size_fault(name, entry) for name, entry in listed.items()}
        faults += [fault for name, entry in listed.items() if (fault := sizes[name] or self._digest_fault(name, entry))]
        self._refuse(faults or self._weight_faults())
        if self.manifest.manifest_digest is None:
            self._refuse(self._label_faults())

    def _required_names(self) -> tuple[str, ...]:
        """The files without which nothing is answered; a codec of a newer release is refused where it is opened."""
        kind = CODECS.get(self.manifest.codec)
        return (*REQUIRED_NAMES, TOKENIZER_NAME if kind is None else kind.settings)

    def check_shapes(self) -> None:
        """Refuse what must not be read at all: links, devices, and weights that the manifest does not list.

        Raises:
            BundleDamaged: a file is one of them.
        """
        shapes = {name: shape_fault(self.folder / name) for name in self.manifest.files}
        faults = [f"{name} {fault}" for name, fault in shapes.items() if fault and fault != "is missing"]
        self._refuse(faults or self._weight_faults())

    def path(self, name: str) -> Path | None:
        """Where a file of the bundle lies; None where the manifest does not list it, whatever the folder holds."""
        return self.folder / name if name in self.manifest.files else None

    def strangers(self) -> list[str]:
        """Names in the folder that the manifest does not list, in order: they are no part of the bundle."""
        known = {*self.manifest.files, MANIFEST_NAME, SIGNATURE_NAME}
        return sorted(entry.name for entry in self.folder.iterdir() if entry.name not in known)

    def golden(self, name: str = GOLDEN_NAME) -> Golden:
        """The golden answers that were packed with the graph, or in the file `name` with another variant.

        Raises:
            BundleDamaged: they cannot be read, or allow a difference as large as the logits' own spread.
        """
        golden = self.read(name, Golden)
        for task, tolerance in {"": golden.tolerance, **golden.tolerances}.items():
            of_task = [case.answers.get(task, case) for case in golden.cases]
            logits = [logit for answer in of_task for logit in answer.logits]
            spread = max(logits) - min(logits) if logits else 0.0
            if golden.cases and tolerance > max(LEAST_TOLERANCE, spread):
                raise BundleDamaged(
                    f"{self.folder / name} allows a difference of {tolerance:.4g}; its logits spread {spread:.4g}.",
                    expected="a tolerance below the spread, which an answer that is quite another would not meet",
                    action=_COPY_AGAIN,
                )
        return golden

    def read(self, name: str, kind: type[T]) -> T:
        """The JSON value in a listed file.

        Raises:
            BundleDamaged: it is not listed, or cannot be read.
        """
        path = self.path(name)
        if path is None:
            raise BundleDamaged(f"{self.folder / name} is not listed.", expected=_LISTED, action=_COPY_AGAIN)
        try:
            return msgspec.json.decode(read_regular(path, MOST_JSON_BYTES), type=kind)
        except (OSError, *NOT_JSON) as error:
            raise BundleDamaged(f"{path} cannot be read: {error}", expected=_LISTED, action=_COPY_AGAIN) from error

    def _refuse(self, faults: list[str]) -> None:
        if faults:
            raise BundleDamaged(
                f"The bundle {self.folder} is damaged: " + "; ".join(faults) + ".",
                expected=_LISTED,
                action=_COPY_AGAIN,
            )

    def _size_fault(self, name: str, entry: FileEntry) -> str:
        path = self.folder / name
        if fault := shape_fault(path):
            return f"{name} {fault}"
        size = path.stat().st_size
        return "" if size == entry.bytes else f"{name} has {size:,} bytes instead of {entry.bytes:,}"

    def _digest_fault(self, name: str, entry: FileEntry) -> str:
        try:
            digest = sha256_regular(self.folder / name, entry.bytes)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        return "" if digest == entry.sha256 else f"{name} has changed bytes (SHA-256 differs)"

    def _weight_faults(self) -> list[str]:
        """Graphs whose weights lie in files that are not listed; looked for only where there are such files at all."""
        if not self.strangers():
            return []
        faults = []
        for variant in self.manifest.graphs:
            path = self.folder / variant.graph
            try:
                names = external_files(path)
            except OSError:
                continue  # opening it says why it cannot be read
            except UnreadableGraph as error:
                faults.append(f"{variant.graph} is no graph: {error}")
                continue
            unlisted = sorted(names - self.manifest.files.keys())
            faults += [f"{variant.graph} takes weights from {name!r}, which is not listed" for name in unlisted]
        return faults

    def _label_faults(self) -> list[str]:
        """Labels that config.json names otherwise: nothing else tells damage of a manifest without a digest."""
        heads = [head for head in self.manifest.answer_heads if head.labels]
        named: dict[str, str] = {}
        with contextlib.suppress(BundleDamaged):  # a config.json that is none is refused where it is needed
            named = self.read(CONFIG_NAME, _LabelNames).id2label if heads else {}
        faults = []
        for head in heads:
            if len(named) != len(head.labels):
                continue
            names = [named.get(str(place)) for place in range(len(head.labels))]
            pairs = [(mine, other) for mine, other in zip(head.labels, names, strict=True) if mine != other]
            if pairs and sorted(map(str, names)) != sorted(f"LABEL_{place}" for place in range(len(names))):
                faults += [f"{MANIFEST_NAME} has the label {mine!r}, {CONFIG_NAME} {other!r}" for mine, other in pairs]
        return faults[:5]

    @property
    def size_bytes(self) -> int:
        """Bytes of all packed files, the manifest included."""
        packed = sum(entry.bytes for entry in self.manifest.files.values())
        return packed + (self.folder / MANIFEST_NAME).stat().st_size


class _LabelNames(msgspec.Struct):
    """What a config.json calls its labels, by their number as text."""

    id2label: dict[str, str] = {}


def digest_of(manifest: dict[str, object]) -> str:
    """The digest of a manifest's JSON value: of all it says but the digest itself."""
    rest = {key: value for key, value in manifest.items() if key != "manifest_digest"}
    return "sha256:" + value_sha256(rest)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        raise BundleError(
            f"There is no folder {folder}.",
            expected="a bundle, as `edgetune build` writes it",
            action="check the path, or build one: edgetune build --base MODEL --data FILE --out " + str(folder),
        )
    try:
        raw = read_regular(path, MOST_JSON_BYTES)
    except FileNotFoundError as error:
        raise BundleError(
            f"{folder} is no bundle: it has no {MANIFEST_NAME}.",
            expected="a folder that `edgetune build` has written",
        ) from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        value = msgspec.json.decode(raw, type=dict[str, object])
        format_number = value.get("format")
        if isinstance(format_number, int) and format_number > NEWEST_FORMAT:
            raise BundleFormatError(
                f"{folder} has bundle format {format_number}.",
                expected=f"format {NEWEST_FORMAT}, the newest that this edgetune reads",
                action="install a newer edgetune",
            )
        manifest = msgspec.json.decode(raw, type=Manifest)
    except NOT_JSON as error:
        raise BundleDamaged(f"{path} is no manifest: {error}.") from error
    if manifest.manifest_digest not in (None, digest_of(value)):
        raise BundleDamaged(
            f"{path} has changed bytes (its manifest_digest differs).",
            expected="the manifest that was packed",
            action=_COPY_AGAIN,
        )
    _refuse_paths(folder, manifest)
    _check_variants(folder, manifest)
    _check_engines(folder, manifest)
    return manifest


def _refuse_paths(folder: Path, manifest: Manifest) -> None:
    """A bundle's files lie in its folder: a name that leads elsewhere is refused, whoever wrote it."""
    named = [*manifest.files, *(name for one in manifest.variants for name in (one.graph, one.golden))]
    named += _engine_files(manifest)
    outside = [name for name in named if Path(name).name != name or name in {"", ".", ".."}]
    if outside:
        raise BundleDamaged(
            f"The manifest of {folder} names files outside the bundle: {', '.join(outside)}.",
            expected="plain file names",
        )


def _check_variants(folder: Path, manifest: Manifest) -> None:
    """Variants stand for listed files, each under a name of its own, and the first of them is the main graph."""
    variants = manifest.variants
    faults = [f"{one.graph} is not listed" for one in variants if one.graph not in manifest.files]
    schemes = [one.scheme for one in variants]
    faults += [f"{name!r} is there twice" for name in dict.fromkeys(schemes) if schemes.count(name) > 1]
    main = (GRAPH_NAME, GOLDEN_NAME, manifest.scheme, manifest.provider)
    if variants and (variants[0].graph, variants[0].golden, variants[0].scheme, variants[0].provider) != main:
        faults.append(f"the first is not that of {GRAPH_NAME}")
    if faults:
        raise BundleDamaged(
            f"The variants of {folder} cannot be told from its manifest: " + "; ".join(faults) + ".",
            expected="variants that were packed together",
            action=_COPY_AGAIN,
        )


def _engine_files(manifest: Manifest) -> list[str]:
    """The files that engines read, a decoder's first caches, and the golden answers of a cascade's small model."""
    cascade = manifest.cascade
    engines = [manifest.engine, cascade.engine if cascade else None]
    first = manifest.generation.first_caches if manifest.generation else []
    files = [engine.file for engine in engines if engine] + ([cascade.golden] if cascade else [])
    return files + [one.file for one in first]


def _check_engines(folder: Path, manifest: Manifest) -> None:
    """Engines read listed files, and a bundle has no more than one way to answer with `model.onnx`."""
    faults = [f"{name} is not listed" for name in _engine_files(manifest) if name not in manifest.files]
    ways = {"variants": manifest.variants, "a cascade": manifest.cascade, "a cache": manifest.generation}
    if manifest.engine is not None:
        faults += [f"an engine without a graph has {name}" for name, way in ways.items() if way]
    if manifest.cascade is not None:
        kinds = [head.kind for head in manifest.answer_heads]
        faults += [] if kinds == ["label"] else [f"a cascade answers with {', '.join(kinds) or 'no head'}"]
    if faults:
        raise BundleDamaged(
            f"The manifest of {folder} contradicts itself: " + "; ".join(faults) + ".",
            expected="engines and first caches on listed files, and a cascade of one label a text",
            action=_COPY_AGAIN,
        )
