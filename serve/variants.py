"""Which graph of a bundle answers here: by the build's figures and the instruction sets present, with the reason.

A bundle may hold several graphs of one model. What was measured on this class of machine decides; elsewhere a graph
that needs instructions which this processor lacks stands back behind one that does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgetune.serve.bundle import Bundle, RuntimeSettings, Variant
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import InputError, ProviderError
from edgetune.serve.kept_settings import kept_settings
from edgetune.serve.processor import cpu_name, instruction_sets
from edgetune.serve.session import open_session, provider_is_built_in
from edgetune.serve.targets import TargetEntry, target_here


@dataclass(frozen=True)
class Machine:
    """What the choice looks at. `instructions` and `target`, its class, are empty where the system does not tell."""

    cpu: str
    cores: int
    instructions: tuple[str, ...] = ()
    target: str = ""

    @classmethod
    def here(cls, *, instructions: bool = True) -> Machine:
        """This machine; without `instructions` they are not read, which takes a while where there are many cores."""
        if not instructions:
            return cls(cpu_name(), usable_cores())
        return cls(cpu_name(), usable_cores(), tuple(instruction_sets()), target_here())

    def is_of(self, settings: RuntimeSettings | None) -> bool:
        """Whether settings were measured on a machine of this class."""
        return settings is not None and (settings.cpu, settings.cores) == (self.cpu, self.cores)

    def runs_fast(self, variant: Variant) -> bool:
        """Whether the processor has an instruction set that the variant needs, as far as the system tells."""
        return not variant.needs or not self.instructions or bool(set(variant.needs) & set(self.instructions))


@dataclass(frozen=True)
class OpenedVariant:
    """A graph that is ready to answer: its session, what it is, why it was taken, and the threads of one run."""

    session: Any
    variant: Variant
    reason: str
    threads: int


def open_variant(
    bundle: Bundle, *, variant: str, provider: str, threads: int | None, spinning: bool | None
) -> OpenedVariant:
    """Open the graph of a bundle that suits this machine best, or the one named.

    Args:
        bundle: what holds the graphs.
        variant: "auto" or the scheme of one of them.
        provider: "auto" (a GPU's where the bundle has a graph for it and it runs here), "cpu" or "cuda".
        threads: of one run; None takes what was kept beside the bundle, or measured by its build, on this class of
            machine, elsewhere the usable cores.
        spinning: as for threads; elsewhere yes.

    Raises:
        InputError: the bundle has no such variant.
        ProviderError: nothing here runs any of them.
        BundleDamaged: the file is no graph.
    """
    suitable = suitable_variants(bundle.manifest.graphs, variant, provider)
    machine = Machine.here(instructions=len(suitable) > 1)
    ranked = rank_variants(suitable, machine, named=variant != "auto")
    if variant == "auto" and len(suitable) > 1:
        ranked = proven_first(ranked, machine, bundle.manifest.targets)
    failed: dict[str, ProviderError] = {}
    for one, reason in ranked:
        if one.provider in failed:
            continue
        kept = kept_settings(bundle, one.scheme, machine.cpu, machine.cores)
        measured = kept or (one.runtime if machine.is_of(one.runtime) else None)
        runs = threads if threads is not None else (min(measured.threads, machine.cores) if measured else machine.cores)
        spins = spinning if spinning is not None else (measured.spinning if measured else True)
        target = one.provider if provider == "auto" else provider
        try:
            session = open_session(bundle.folder / one.graph, provider=target, threads=runs, spinning=spins)
        except ProviderError as error:
            failed[one.provider] = error
            if all(other.provider in failed for other, _ in ranked):
                raise
            continue
        left = "".join(f" {error.found}" for error in failed.values())
        return OpenedVariant(session, one, reason + left, runs)
    raise AssertionError("a bundle has at least one graph")


def suitable_variants(graphs: Sequence[Variant], variant: str, provider: str) -> list[Variant]:
    """The graphs that may answer.

    Raises:
        InputError: there is none of the name.
    """
    if variant != "auto":
        named = [one for one in graphs if one.scheme == variant]
        if not named:
            known = ", ".join(one.scheme for one in graphs)
            raise InputError(f"The bundle has no variant {variant!r}.", expected=f"auto, {known}")
        return named
    # A provider that no graph was made for may still run the main one.
    return [one for one in graphs if provider in ("auto", one.provider)] or list(graphs[:1])


def rank_variants(graphs: Sequence[Variant], machine: Machine, *, named: bool = False) -> list[tuple[Variant, str]]:
    """The graphs with the reason to take each, best first; those for a GPU stand before the others."""
    if named or len(graphs) == 1:
        why = "it was asked for" if named else "the bundle has no other graph for this provider"
        return [(one, f"{one.scheme}: {why}.") for one in graphs]
    ranked: list[tuple[Variant, str]] = []
    for provider in sorted({one.provider for one in graphs}, key=lambda name: name == "cpu"):
        if provider_is_built_in(provider) or all(one.provider == provider for one in graphs):
            ranked += _rank_alike(graphs, [one for one in graphs if one.provider == provider], machine)
    return ranked or rank_variants(graphs[:1], machine)  # nothing is built in: opening the main one says so


def proven_first(
    ranked: list[tuple[Variant, str]], machine: Machine, targets: Sequence[TargetEntry]
) -> list[tuple[Variant, str]]:
    """The order of `rank_variants`, but of the graphs for the CPU that one first which this class was proven with.

    A right answer goes before a fast one: what was measured on a machine of the same name was not proven for it.
    """
    entry = next((one for one in targets if one.name == machine.target), None)
    place = next((at for at, (one, _) in enumerate(ranked) if entry and one.scheme == entry.scheme), None)
    if entry is None or place is None or ranked[place][0].provider != "cpu":
        return ranked
    first = next(at for at, (one, _) in enumerate(ranked) if one.provider == "cpu")
    proven = (ranked[place][0], f"{entry.scheme}: the graph for {entry.name} processors ({entry.proof}).")
    rest = ranked[:place] + ranked[place + 1 :]
    return [*rest[:first], proven, *rest[first:]]


def _rank_alike(everything: Sequence[Variant], graphs: list[Variant], machine: Machine) -> list[tuple[Variant, str]]:
    """Graphs of one provider, best first."""
    measured_here = all(machine.is_of(one.runtime) and one.p50_ms is not None for one in graphs)
    order = sorted(graphs, key=lambda one: (not measured_here and not machine.runs_fast(one), _p50(one)))
    best = order[0]
    where = f" for the provider {best.provider}" if len({one.provider for one in everything}) > 1 else ""
    if len(graphs) == 1:
        why = f"the only graph{where}"
    elif measured_here:
        why = f"measured fastest on this class of machine, {_figures(order)} ({machine.cpu}, {machine.cores} cores)"
    else:
        why = _unmeasured_reason(order, machine)
    return [(one, f"{one.scheme}: {why}." if one is best else f"{one.scheme}: behind {best.scheme}.") for one in order]


def _unmeasured_reason(order: Sequence[Variant], machine: Machine) -> str:
    best = order[0]
    slow = [one for one in order if not machine.runs_fast(one)]
    if best in slow:
        return f"no graph of the bundle suits this processor, which has none of {', '.join(best.needs)}"
    if slow:
        lacking = ", ".join(dict.fromkeys(name for one in slow for name in one.needs))
        names = ", ".join(one.scheme for one in slow)
        return f"{names} needs one of {lacking}, which this processor lacks, and was not measured on one of its class"
    has = [name for name in best.needs if name in machine.instructions]
    able = f"this processor has {', '.join(has)}, and " if has else ""
    if best.p50_ms is None or best.runtime is None:
        return f"{able}nothing was measured"
    return f"{able}it was the fastest where the bundle was built, {_figures(order)} ({best.runtime.cpu})"


def _figures(order: Sequence[Variant]) -> str:
    figures = [f"{one.p50_ms:.3g} ms ({one.scheme})" for one in order if one.p50_ms is not None]
    return " against ".join(figures)


def _p50(variant: Variant) -> float:
    return float("inf") if variant.p50_ms is None else variant.p50_ms
