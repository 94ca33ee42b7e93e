"""Opening one bundle for a server: verified, warmed up, its golden answers replayed, and only then handed over.

Stands apart from the repository because it runs in a thread and knows of one folder only. Must not import the web
server.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgetune.serve.batcher import Batcher, BatchRun
from edgetune.serve.bundle import MANIFEST_NAME, MOST_JSON_BYTES, Bundle, Manifest
from edgetune.serve.drift import DriftWatch
from edgetune.serve.errors import BundleError, InputError
from edgetune.serve.files import read_regular
from edgetune.serve.golden import replay_all, replay_golden
from edgetune.serve.golden_cases import Golden
from edgetune.serve.http.answerers import Classifier, Writer
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.warmup import warm_up, warm_up_generator
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.proving import prove
from edgetune.serve.report import Report
from edgetune.serve.stepwise.generator import PREFIX_BYTES, Generator
from edgetune.serve.stepwise.golden import GenerationGolden, read_golden, replay
from edgetune.serve.stepwise.report import LanguageReport, report_of
from edgetune.serve.stepwise.scheduler import Scheduler
from edgetune.serve.tasks_report import TasksReport
from edgetune.serve.workload import WORKLOAD_NAME, Workload

logger = logging.getLogger("edgetune.serve")

# A second session holds the weights a second time: larger bundles answer lone requests with the threads of all others.
LONE_BYTES = 128 * 1024 * 1024

# msgspec builds what it knows of a type when it first reads one, and two threads that do so at once take the process
# down (msgspec 0.22: a segmentation fault in one of a few starts with two bundles). So it is done before there are any.
_READ_IN_THREADS = tuple(
    map(msgspec.json.Decoder, (Manifest, Golden, Report, TasksReport, LanguageReport, GenerationGolden))
)
_opening_generator = threading.Lock()  # which reads a type of its own

# Fingerprint and provider of what was proven in a process of its own: the digests of all files hang on the fingerprint.
_proven: set[tuple[str, str]] = set()


@dataclass(frozen=True)
class Seen:
    """A bundle folder as it lies there: the SHA-256 of its manifest, and name, bytes and time of change of each file.

    Two equal ones need not be tried twice; the manifest alone would not tell when a copy that was under way is whole.
    """

    fingerprint: str
    files: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Opened:
    """A bundle that was proven on this machine, ready to answer."""

    fingerprint: str
    answerer: Classifier | Writer
    report: Report | LanguageReport | None


def look_at(folder: Path) -> Seen | None:
    """What lies in a bundle folder now; None where there is no manifest that can be read."""
    try:
        fingerprint = _fingerprint(folder)
        files = tuple(sorted((one.name, one.lstat().st_size, one.lstat().st_mtime_ns) for one in folder.iterdir()))
    except OSError:
        return None
    return Seen(fingerprint, files)


def open_proven(
    folder: Path,
    settings: ServerSettings,
    observe: Callable[[BatchRun], None] | None = None,
    leaving: threading.Event | None = None,
) -> Opened:
    """Open a bundle, check all digests, run it over its length range, and replay its golden answers.

    The first time, a process of its own does so before, within bounds of time and memory: what never ends holds up
    nothing here.

    Args:
        folder: of the bundle.
        settings: of the server.
        observe: told of each run of the graph.
        leaving: set when the server is on its way out and nobody waits for the bundle.

    Raises:
        BundleError, BundleDamaged, BundleFormatError: the folder cannot be used, or answers otherwise than packed.
        ProviderError, MissingDependency: nothing here can run it.
        InputError: `abstain_below` is set, and its answers are never unsure.
    """
    bundle = Bundle.open(folder, verify=False)  # says what is wrong with a folder that has no manifest
    # Before the files are read: where they change meanwhile, the next look finds another fingerprint and loads again.
    fingerprint = _fingerprint(folder)
    if (fingerprint, settings.provider) not in _proven:
        bundle.check_files()
        prove(bundle, provider=settings.provider, all_variants=False, seconds=settings.prove_seconds, leaving=leaving)
        _proven.add((fingerprint, settings.provider))
    if bundle.manifest.generation is not None:
        _refuse_abstention(bundle, settings)
        return Opened(fingerprint, _open_writer(bundle, settings), _report(bundle))
    return Opened(fingerprint, _open_classifier(folder, settings, observe), _report(bundle))


def _refuse_abstention(bundle: Bundle, settings: ServerSettings) -> None:
    """Refuse to call answers unsure that are text.

    Raises:
        InputError: it was asked for.
    """
    if settings.abstain_below is not None:
        raise InputError(
            f"{bundle.folder} generates text, of which no answer is unsure.",
            expected="bundles that give each input one label",
            action="leave abstain_below away, or serve this bundle by itself",
        )


def _open_classifier(folder: Path, settings: ServerSettings, observe: Callable[[BatchRun], None] | None) -> Classifier:
    predictor = load(
        folder,
        threads=settings.threads,
        provider=settings.provider,
        eager=True,
        abstain_below=settings.abstain_below,
    )
    lone = _open_lone(predictor, settings)
    warm_up(predictor, max_batch=settings.max_batch)
    replay_all(predictor)
    if lone is not None:
        warm_up(lone, max_batch=1)
        replay_golden(lone)
    batcher = Batcher(
        predictor,
        max_batch=settings.max_batch,
        max_waiting=settings.max_waiting,
        runners=settings.runners,
        observe=observe,
        lone=lone,
    )
    return Classifier(predictor, batcher, drift=_drift_watch(predictor.bundle))


def _drift_watch(bundle: Bundle) -> DriftWatch | None:
    """What watches the inputs; None, with a line in the log, for bundles that do not say what their test part was."""
    reference = None
    if WORKLOAD_NAME in bundle.manifest.files:
        with contextlib.suppress(BundleError):  # answering needs none
            reference = bundle.read(WORKLOAD_NAME, Workload).drift
    if reference is None:
        logger.info("%s does not say how its test part is distributed: drift is not watched", bundle.folder)
        return None
    return DriftWatch(str(bundle.folder), reference)


def _open_writer(bundle: Bundle, settings: ServerSettings) -> Writer:
    """A step serves all answers at once and nothing runs beside it, so it has all the cores."""
    provider = bundle.manifest.provider if settings.provider == "auto" else settings.provider
    with _opening_generator:
        prefix_bytes = 0 if settings.answers_alone else PREFIX_BYTES
        generator = Generator.open(
            bundle.folder,
            threads=settings.lone_threads,
            provider=provider,
            prefix_bytes=prefix_bytes,
            lookup=settings.lookup,
        )
    replay(generator, read_golden(bundle))
    warm_up_generator(generator, max_sequences=settings.max_sequences)
    scheduler = Scheduler(
        generator, rows=settings.max_sequences, max_waiting=settings.max_prompts, alone=settings.answers_alone
    )
    return Writer(bundle, generator, scheduler)


def _open_lone(predictor: Predictor, settings: ServerSettings) -> Predictor | None:
    """The graph opened once more for a lone caller's runs; None where it would be opened the same way."""
    bundle, threads = predictor.bundle, settings.lone_threads
    if predictor.providers[0] != "CPUExecutionProvider" or threads == predictor.threads:
        return None
    if threads is None and bundle.size_bytes > LONE_BYTES:
        return None
    lone = predictor.with_threads(threads)
    return lone if lone.threads != predictor.threads else None


def _fingerprint(folder: Path) -> str:
    return hashlib.sha256(read_regular(folder / MANIFEST_NAME, MOST_JSON_BYTES)).hexdigest()


def _report(bundle: Bundle) -> Report | LanguageReport | None:
    """The bundle's own report; None where it has none that this release reads: answering needs none."""
    try:
        return report_of(bundle)
    except BundleError:
        return None
