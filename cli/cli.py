"""The `edgetune` command: a table of command names, each loaded when asked for, and the one place where an
error becomes a message. Must import nothing heavier than click: `edgetune --help` answers in a base install.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from edgetune import __version__
from edgetune.serve.errors import EdgetuneError

# name: (module, help line). The help line stands here so that `edgetune --help` loads no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("edgetune.commands.init", "Write a commented recipe from a look at the data."),
    "build": (
        "edgetune.commands.build",
        "Fine-tune, compress, measure and pack: data in, bundle out.",
    ),
    "tune": ("edgetune.commands.tune", "Run a build up to the tuned model."),
    "export": ("edgetune.commands.export", "Run a build up to the graph, proven to answer as the model does."),
    "compress": ("edgetune.commands.compress", "Run a build up to the compressed candidates."),
    "bench": ("edgetune.commands.bench", "Run a build up to the report on quality and speed."),
    "predict": ("edgetune.commands.predict", "Answer texts with a bundle."),
    "serve": ("edgetune.commands.serve", "Serve bundles over HTTP, by the Open Inference Protocol."),
    "inspect": ("edgetune.commands.inspect", "Show what a bundle is and what it was measured to do."),
    "verify": ("edgetune.commands.verify", "Check a bundle's bytes and replay its golden answers."),
    "pack": ("edgetune.commands.pack", "Write a bundle as the folder that another server opens."),
    "doctor": (
        "edgetune.commands.doctor",
        "Check what this machine and installation can do, and what is wrong.",
    ),
}

EPILOG = """\b
Example:
  edgetune build --base sentence-transformers/all-MiniLM-L6-v2 --data train.csv --out bundles/x
  edgetune predict bundles/x "my card has not arrived"
"""


class CommandTable(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=CommandTable, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@click.version_option(__version__, package_name="edgetune")
def root() -> None:
    """Labelled text in, a small, fast, proven model bundle out."""


def prepare_environment() -> None:
    """Set what libraries read when they are imported; what the user has set stays."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    training = {}
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        # OpenMP threads that spin on after their work double the step time of whatever runs beside them; threads
        # that never spin make a LoRA step 1.5 times slower (docs/log.md).
        training = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}
    if "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ:
        # oneDNN keeps a compiled kernel for each shape it has met, 1,024 of them by default: with batches of ever other
        # lengths that is most of a gigabyte.
        training["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "256"
    # Named, so that the benchmark's processes can run without them, as a user's would.
    os.environ.update(training, EDGETUNE_TRAINS_WITH=" ".join(training))


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 usage, 3 gate not met, 130 stopped by the user."""
    prepare_environment()
    try:
        status = root.main(standalone_mode=False)
    except EdgetuneError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has left (`edgetune predict ... | head`): nothing is wrong here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(status if isinstance(status, int) else 0)
