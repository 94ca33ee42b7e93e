"""Trials: a route taken as far as a draft bundle and its answers on the validation part, kept by digest.

What a trial made stays in the work folder and is used again as long as the tuned model and the data are the same,
whatever the gate, the budget or the list of schemes say: a second search with other terms costs seconds.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgetune.benchmarks.prove.held_out import held_out_logits
from edgetune.benchmarks.prove.ledger import Logits, Slice, model_answers
from edgetune.compress.candidate import Candidate
from edgetune.compress.material import Material
from edgetune.compress.route import Route, Step
from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.cascades import draft_cascade
from edgetune.export.once.export import export, spread_texts
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing, draft_bundle
from edgetune.export.once.retabled import rows_in_whole, same_answers, write_retabled
from edgetune.export.once.static_tables import folded, write_static_graph
from edgetune.export.once.static_vocabulary import for_vocabulary
from edgetune.export.once.tokenizer import check_tokenizer
from edgetune.serve.bundle import GRAPH_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.digest import value_sha256
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.errors import CompressError, WorkError
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel
from edgetune.tune.seal import finish, is_whole


@dataclass(frozen=True)
class Kept:
    """Folders that are made once: `folder` holds one a name, `digest` stands for all that went into them."""

    folder: Path
    digest: str

    def place(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of `name`, made beside its place and renamed unless it is there, whole, from the same inputs."""
        if made := self.made(name):
            return made
        place, key = self.folder / name, self._key(name)
        part = self.folder / f"{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        finish(part, key)
        part.rename(place)
        return place

    def made(self, name: str) -> Path | None:
        """The folder of `name`; None where it is not there, whole, from the same inputs."""
        place = self.folder / name
        return place if is_whole(place, self._key(name)) else None

    def _key(self, name: str) -> str:
        return value_sha256([self.digest, name])


def require_made(paths: Iterable[Path], *, search: Path) -> None:
    """Check that what a search has made is still there; `search` is its stage's folder.

    Raises:
        WorkError: it has been removed.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise WorkError(
            f"The search's candidates are gone: {', '.join(missing)}.",
            expected="what the search has left there",
            action=f"remove {search}: the same command then searches again",
        )


@dataclass(frozen=True)
class Trial:
    """A route that was taken: its candidate, the draft bundle, and the draft's logits on the validation rows."""

    route: Route
    candidate: Candidate
    draft: Bundle
    logits: Logits


@dataclass(frozen=True)
class Workbench:
    """Takes routes. `material` and `graph` are the tuned model's own; `rows` the validation rows that judge.

    `shift` makes the logits of the tuned model's head those of one that has not learnt these rows (held_out.py).
    """

    material: Material
    dataset: Dataset
    graph: Graph
    packing: Packing
    rows: Slice
    kept: Kept
    shift: Logits | float = 0.0

    def take(self, route: Route) -> Trial:
        """Make the candidate of a route, its draft and its answers, or open what an earlier search left of them.

        Raises:
            CompressError, ExportError, ParityError: a scheme failed on the way.
        """
        folder = self._made(route)
        draft = Bundle.open(folder / "draft")
        logits = self._answers(f"{route.name}.answers", lambda: self.rows.answered(draft))
        return Trial(route, Candidate.open(folder), draft, self._unlearnt(route, logits))

    def _made(self, route: Route) -> Path:
        """The folder of a route's candidate and its draft."""
        model = self.reshaped(route.steps)
        return self.kept.place(route.name, lambda part: self._make(route, model, part))

    def _unlearnt(self, route: Route, logits: Logits) -> Logits:
        return logits + self.shift if route.keeps_head else logits

    def cascade(self, small: Trial, strong: Trial, threshold: float) -> Trial:
        """The cascade of two trials: `small` answers where its margin reaches the threshold, `strong` the rest.

        Raises:
            WorkError: the two read texts otherwise.
        """
        route = replace(strong.route, small=small.route.graph)

        def make(part: Path) -> None:
            candidate = replace(strong.candidate, scheme=route.name, made_by=f"a margin of {threshold:.3f} is enough")
            candidate.save(part)
            draft_cascade(strong.draft, small.draft, threshold, part / "draft")

        kept = replace(self.kept, digest=value_sha256([self.kept.digest, threshold]))
        folder = kept.place(route.name, make)
        draft = Bundle.open(folder / "draft")
        shift = self.shift if route.keeps_head else 0.0
        return Trial(route, Candidate.open(folder), draft, held_out_logits(Predictor(draft), self.rows, shift))

    def _make(self, route: Route, model: TunedModel, folder: Path) -> None:
        scheme = SCHEMES[route.graph]
        if scheme.level == "artefact":
            self._make_artefact(route, model, folder)
            return
        if self._make_retabled(route, model, folder):
            return
        graph = self.exported(route.steps) if route.graph in ("fused", "fp32") else self._float_graph(route.steps)
        candidate = scheme.compress(graph, folder, self.of(model), route=route.name)
        self._draft(candidate, model, folder, route)

    def _draft(self, candidate: Candidate, model: TunedModel, folder: Path, route: Route) -> None:
        packing = replace(self.packing, tuned=replace(self.packing.tuned, folder=model.folder))
        draft_bundle(candidate, packing, folder / "draft", route.tolerance)

    def _make_retabled(self, route: Route, model: TunedModel, folder: Path) -> bool:
        """Make a trimmed candidate of the whole one that has been made; whether that is so, and answers as it does."""
        whole = replace(route, steps=route.steps[:-1])
        is_trimmed = bool(route.steps) and route.steps[-1].scheme == "trimmed"
        made, old = (self.kept.made(whole.name), self.reshaped(whole.steps)) if is_trimmed else (None, model)
        if made is None:
            return False
        source, folders = Candidate.open(made), (old.model_folder, model.model_folder)
        if not write_retabled(source.graph, folder / GRAPH_NAME, *folders):
            return False
        encoder, texts = Encoder.of(model), self.dataset.validation.texts
        check_tokenizer(model.model_folder / TOKENIZER_NAME, encoder, self.dataset.test.texts)
        candidate = Candidate.of(
            route.name, folder / GRAPH_NAME, f"{source.made_by}; then its table of tokens was cut in the graph itself"
        )
        self._draft(candidate, model, folder, route)
        before, after = (Predictor(Bundle.open(place / "draft")) for place in (made, folder))
        if same_answers(before, after, spread_texts(texts, encoder.max_tokens), rows_in_whole(*folders)):
            return True
        shutil.rmtree(folder / "draft")
        return False

    def _make_artefact(self, route: Route, model: TunedModel, folder: Path) -> None:
        """Learnt once, whatever vocabulary its texts are read with in the end, or with a tokenizer of its own."""
        scheme, name = SCHEMES[route.graph], f"{route.graph}.tables"
        learnt = self.kept.place(name, lambda part: _save_tables(part, *scheme.learn(self.material, part)))
        tables, line = _open_tables(learnt)
        if (learnt / "model").is_dir():
            model = replace(model, folder=learnt)
        elif route.steps:
            tables = for_vocabulary(tables, self.material.model.model_folder, model.model_folder)
        engine = write_static_graph(folded(tables), folder / GRAPH_NAME)
        candidate = Candidate.of(route.name, folder / GRAPH_NAME, line)
        packing = replace(self.packing, tuned=replace(self.packing.tuned, folder=model.folder))
        draft_bundle(candidate, packing, folder / "draft", scheme.tolerance, engine)

    def _answers(self, name: str, answer: Callable[[], Logits]) -> Logits:
        """Logits on the validation rows, kept for these very rows: another `gate.rows` asks again."""
        kept = replace(self.kept, digest=value_sha256([self.kept.digest, "one row a run", list(self.rows.texts)]))
        folder = kept.place(name, lambda part: np.save(part / "validation.npy", answer()))
        logits: Logits = np.load(folder / "validation.npy")
        return logits

    def reshaped(self, steps: tuple[Step, ...]) -> TunedModel:
        """The model after weight-level steps."""
        if not steps:
            return self.material.model
        before, last = self.reshaped(steps[:-1]), steps[-1]
        name = "+".join(step.name for step in steps) + ".model"
        scheme, material = SCHEMES[last.scheme], self.of(before)
        folder = self.kept.place(name, lambda part: scheme.reshape(material, part, last.strength))
        return replace(before, folder=folder)

    def reshaped_logits(self, steps: tuple[Step, ...]) -> Logits:
        """Logits of a reshaped model on the validation rows in PyTorch: judged before it is exported."""
        model = self.reshaped(steps)
        name = "+".join(step.name for step in steps) + ".model.answers"
        logits = self._answers(name, lambda: model_answers(model, self.rows))
        return self._unlearnt(Route(steps, "fp32"), logits)

    def of(self, model: TunedModel) -> Material:
        """The material with another model."""
        return replace(self.material, model=model)

    def exported(self, steps: tuple[Step, ...]) -> Path:
        """The float graph of a reshaped model as it is exported, proven equal to it."""
        if not steps:
            return self.graph.path
        model, progress = self.reshaped(steps), self.material.progress
        name = "+".join(step.name for step in steps) + ".graph"
        provider = self.material.provider
        folder = self.kept.place(name, lambda part: export(model, self.dataset, provider, part, progress))
        return Graph.open(folder).path

    def _float_graph(self, steps: tuple[Step, ...]) -> Path:
        """The fused graph where fusing succeeds, else the exported one: what quantizing schemes start from."""
        try:
            return Candidate.open(self._made(Route(steps, "fused"))).graph
        except CompressError:
            return self.exported(steps)


def _save_tables(folder: Path, tables: StaticTables, line: str) -> None:
    np.savez(folder / "tables.npz", **vars(tables))
    (folder / "made_by.txt").write_text(line, encoding="utf-8")


def _open_tables(folder: Path) -> tuple[StaticTables, str]:
    """What `_save_tables` wrote."""
    with np.load(folder / "tables.npz", allow_pickle=False) as stored:
        tables = StaticTables(**{name: stored[name] for name in stored.files})
    return tables, (folder / "made_by.txt").read_text(encoding="utf-8")
