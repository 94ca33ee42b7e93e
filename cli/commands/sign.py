"""`edgetune sign`: a bundle's files vouched for with a private key. Needs the extra [sign]."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import InputError


@click.command(name="sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Private key in PEM, of an elliptic curve: P-256, P-384 or P-521.",
)
@click.option(
    "--password-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose first line is the key's password.",
    show_default="the key is not encrypted",
)
@json_option
def command(bundle: Path, key: Path, password_file: Path | None, as_json: bool) -> None:
    """Sign all files of BUNDLE: model.sig is added to its folder, by the OpenSSF Model Signing format.

    Sizes and digests are checked first. Nothing is sent anywhere. `edgetune verify BUNDLE --key PUBLIC` checks it, and
    so does `model_signing verify key`. A key pair is made by `openssl ecparam -name prime256v1 -genkey -noout -out
    key.pem` and `openssl ec -in key.pem -pubout -out key.pub`.

    \b
    Example:
      edgetune sign bundles/x --key key.pem
      edgetune verify bundles/x --key key.pub
    """
    from edgetune.serve.signing import sign_bundle

    password = None if password_file is None else _password(password_file)
    opened = Bundle.open(bundle)
    signature = sign_bundle(opened, key, password)
    if as_json:
        print_json({"bundle": str(bundle), "signature": str(signature), "files": len(opened.manifest.files) + 1})
        return
    click.echo(escaped(f"{len(opened.manifest.files) + 1} files signed: {signature}"))


def _password(file: Path) -> bytes:
    try:
        return file.read_bytes().splitlines()[0]
    except (OSError, IndexError) as error:
        reason = getattr(error, "strerror", None) or "it is empty"
        raise InputError(f"The password cannot be read from {file}: {reason}.", expected="a line with it") from error
