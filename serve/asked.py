"""What may be asked of a bundle that is opened, looked at before anything of it is."""

from __future__ import annotations

from edgetune.serve.bundle import Bundle, HeadSpec, Manifest
from edgetune.serve.errors import BundleFormatError, InputError, ProviderError


def may_wait(manifest: Manifest, threads: int | None, provider: str, variant: str) -> bool:
    """Whether the graph of a cascade opens later as surely as now: what may be refused is refused when it is loaded."""
    is_usual = manifest.provider == "cpu" and provider in ("auto", "cpu") and variant == "auto"
    return is_usual and (threads is None or threads >= 1)


def check_asked(manifest: Manifest, threads: int | None, provider: str, variant: str) -> None:
    """Refuse what tables have not: they are looked up on the processor, and there is no other graph.

    Raises:
        ProviderError: another provider is asked for.
        InputError: another variant, or fewer than one thread.
    """
    if provider not in ("auto", "cpu"):
        raise ProviderError(
            f"The provider {provider!r} runs graphs; this bundle is answered from tables.", expected="auto or cpu"
        )
    if variant not in ("auto", manifest.scheme):
        raise InputError(f"The bundle has no variant {variant!r}.", expected=f"auto, {manifest.scheme}")
    if threads is not None and threads < 1:
        raise InputError(f"The number of threads is {threads}.", expected="1 or more, or None for all usable cores")


def only_head(bundle: Bundle) -> HeadSpec:
    """The head that answers.

    Raises:
        BundleFormatError: the bundle generates text, or has several heads.
    """
    heads = bundle.manifest.answer_heads
    if bundle.manifest.generation is not None:
        raise BundleFormatError(
            f"{bundle.folder} is for the task {bundle.manifest.task!r}.",
            action="open it with edgetune.serve.Generator.open",
        )
    if len(heads) != 1:
        raise BundleFormatError(
            f"{bundle.folder} has {len(heads)} heads: {', '.join(f'{head.kind} on {head.output}' for head in heads)}.",
            expected="one head, which is all that this edgetune answers with",
            action="install a newer edgetune",
        )
    return heads[0]
