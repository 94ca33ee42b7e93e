"""What may be asked of a bundle that is opened, looked at before anything of it is."""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.serve.bundle import Bundle, HeadSpec, Manifest
from edgetune.serve.codecs import Codec, codec_alone, open_codec
from edgetune.serve.errors import BundleFormatError, InputError, ProviderError
from edgetune.serve.heads import PER_TOKEN, abstaining


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


def asked_heads(bundle: Bundle, task: str = "", abstain_below: float | None = None) -> Sequence[HeadSpec]:
    """The heads that answer: all, or that of one task; `abstain_below` as for `load`.

    Raises:
        BundleFormatError: the bundle generates text.
        InputError: the bundle has no such task, or is asked to be unsure and is not, or of several tasks.
    """
    heads = bundle.manifest.answer_heads
    if bundle.manifest.generation is not None:
        raise BundleFormatError(
            f"{bundle.folder} is for the task {bundle.manifest.task!r}.",
            action="open it with edgetune.serve.Generator.open",
        )
    if not task and len(heads) == 1:
        return [abstaining(heads[0], abstain_below)]
    if not task and abstain_below is not None:
        raise InputError(
            f"abstain_below is {abstain_below}, and the bundle answers {len(heads)} tasks.",
            expected="one task, whose answers can be unsure",
            action=f"name it: {', '.join(head.name for head in heads)}",
        )
    if not task:
        return heads
    chosen = [head for head in heads if head.name == task]
    if not chosen:
        names = ", ".join(head.name for head in heads if head.name)
        raise InputError(
            f"{bundle.folder} has no task {task!r:.80}.",
            expected=f"one of {names}" if names else "no task by name: it answers one task alone",
        )
    return [abstaining(chosen[0], abstain_below)]


def asked_codec(bundle: Bundle, task: str = "") -> Codec:
    """The codec of a bundle, or of one of its tasks, which reads a text as a whole or by its tokens.

    Raises:
        BundleFormatError, BundleDamaged, InputError: as `open_codec` and `asked_heads`.
    """
    manifest, name = bundle.manifest, bundle.manifest.codec
    if task and len(manifest.answer_heads) > 1:
        name = codec_alone(name, per_token=asked_heads(bundle, task)[0].kind in PER_TOKEN)
    return open_codec(name, bundle.folder, manifest.max_tokens, strip=manifest.strip_inputs)
