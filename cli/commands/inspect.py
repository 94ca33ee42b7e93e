"""`edgetune inspect`: what a bundle is and what it was measured to do. Opens no graph."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped, message
from edgetune.serve.bundle import Bundle, Manifest
from edgetune.serve.codecs import describe_codec
from edgetune.serve.heads import describe_head
from edgetune.serve.stepwise.report import report_of
from edgetune.serve.stepwise.spec import GenerationSpec


@click.command(name="inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show a bundle's manifest and the verdict of its report, after a check of all sizes and digests.

    \b
    Example:
      edgetune inspect bundles/x
      edgetune inspect bundles/x --json | jq .report.quality
    """
    opened = Bundle.open(bundle)
    report = report_of(opened)
    if as_json:
        print_json(
            {
                "manifest": msgspec.to_builtins(opened.manifest),
                "report": msgspec.to_builtins(report) if report else None,
            }
        )
        return
    for name, value in _facts(opened):
        click.echo(f"{name:<12}{escaped(value)}")
    if report:
        if report.decision:
            click.echo()
            for line in report.decision.lines:
                click.echo(message(line))
        click.echo(f"\n{message(report.verdict)}\n\nThe whole report: {escaped(str(bundle / 'report.html'))}")


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    spec = manifest.generation
    dtypes = ", ".join(
        f"{100 * share:.0f}% {name.lower()}" for name, share in manifest.dtypes.items() if share >= 0.005
    )
    return [
        ("name", manifest.name),
        ("task", manifest.task),
        *(() if spec else _answers(manifest)),
        ("scheme", f"{manifest.scheme} for {manifest.provider} ({dtypes})"),
        *_engines(manifest),
        *_targets(manifest),
        ("size", f"{bundle.size_bytes:,} bytes in {len(manifest.files) + 1} files"),
        *(_decoder(spec) if spec else _tensors(manifest)),
        ("base", f"{manifest.base.id} ({manifest.base.digest[:19]}...)"),
        ("data", f"{manifest.data_digest[:19]}..."),
        ("created", f"{manifest.created} by edgetune {manifest.versions.get('edgetune', '?')}"),
    ]


def _engines(manifest: Manifest) -> list[tuple[str, str]]:
    """How it answers where a graph alone does not."""
    cascade = manifest.cascade
    if manifest.engine is not None:
        return [
            ("engine", f"{manifest.engine.kind}: numpy on tables in {manifest.engine.file}, no ONNX Runtime needed")
        ]
    if cascade is None:
        return []
    return [
        ("cascade", f"{cascade.scheme} answers where its margin is {cascade.threshold:.3f} or more, then the scheme")
    ]


def _targets(manifest: Manifest) -> list[tuple[str, str]]:
    """What it answers with on each class of processors, and how far that was proven."""
    return [
        (
            "target",
            f"{entry.name}: {entry.scheme}, "
            + (
                entry.proof
                if entry.agreement is None
                else f"{100 * entry.agreement:.1f}% of {entry.rows:,} rows answered as here, {entry.proof}"
            ),
        )
        for entry in manifest.targets
    ]


def _answers(manifest: Manifest) -> list[tuple[str, str]]:
    heads = manifest.answer_heads
    named = [f"{head.name or head.output}: " if len(heads) > 1 else "" for head in heads]
    return [
        ("input", describe_codec(manifest.codec)),
        *(("answer", name + describe_head(head, 8)) for name, head in zip(named, heads, strict=True)),
    ]


def _tensors(manifest: Manifest) -> list[tuple[str, str]]:
    inputs = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in manifest.inputs)
    outputs = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in manifest.outputs)
    return [("inputs", f"{inputs}, at most {manifest.max_tokens} tokens"), ("outputs", outputs)]


def _decoder(spec: GenerationSpec) -> list[tuple[str, str]]:
    """What a decoder takes; its tensors, two a layer and more, would say it less well."""
    floats = spec.layers * len(spec.parts) * spec.kv_heads * spec.head_dim
    ends = ", ".join(str(token) for token in spec.eos_ids) or "none"
    other = [
        f"{name} {token}" for name, token in (("begin", spec.bos_id), ("padding", spec.pad_id)) if token is not None
    ]
    return [
        ("context", f"{spec.context_tokens:,} tokens of prompt and answer"),
        ("batch", "one prompt at a time (attention fused for it)" if spec.batch_one else "any number of prompts"),
        ("vocabulary", f"{spec.vocabulary:,} tokens; {', '.join([f'end {ends}', *other])}"),
        (
            "cache",
            f"{spec.layers} layers, {spec.kv_heads} key-value heads of {spec.head_dim}, "
            f"{4 * floats:,} bytes a token, {4 * floats * spec.context_tokens / 1e6:,.1f} MB for a whole context",
        ),
        *_first_caches(spec),
    ]


def _first_caches(spec: GenerationSpec) -> list[tuple[str, str]]:
    """The virtual tokens that stand before every sequence."""
    tokens = ", ".join(f"{one.name} {one.tokens}".strip() for one in spec.first_caches)
    return [("adapters", f"virtual tokens before every sequence: {tokens}")] if tokens else []
