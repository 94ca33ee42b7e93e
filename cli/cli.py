"""The `edgetune` command: a table of command names, each loaded when asked for, and the one place where an
error becomes a message. Must import nothing heavier than click: `edgetune --help` answers in a base install.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import os
import select
import sys
from typing import Any

import click

from edgetune import __version__
from edgetune.escaping import message
from edgetune.serve.errors import EdgetuneError

# name: (module, help line). The help line stands here so that `edgetune --help` loads no command.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("edgetune.commands.init", "Write a commented recipe from a look at the data."),
    "review": ("edgetune.commands.review", "List rows that are probably mislabelled or nearly repeat others."),
    "build": (
        "edgetune.commands.build",
        "Fine-tune, compress, measure and pack: data in, bundle out.",
    ),
    "tune": ("edgetune.commands.tune", "Run a build up to the tuned model."),
    "export": ("edgetune.commands.export", "Run a build up to the graph, proven to answer as the model does."),
    "compress": ("edgetune.commands.compress", "Run a build up to the compressed candidates."),
    "bench": ("edgetune.commands.bench", "Run a build up to the report on quality and speed."),
    "sweep": ("edgetune.commands.sweep", "Search better hyper-parameters, trial by trial."),
    "predict": ("edgetune.commands.predict", "Answer texts with a bundle."),
    "explain": ("edgetune.commands.explain", "Show what each word of a text adds to its answer."),
    "serve": ("edgetune.commands.serve", "Serve bundles over HTTP, by the Open Inference Protocol."),
    "inspect": ("edgetune.commands.inspect", "Show what a bundle is and what it was measured to do."),
    "verify": ("edgetune.commands.verify", "Check a bundle's bytes and replay its golden answers."),
    "measure": ("edgetune.commands.measure", "Measure a bundle on this machine: answers, times, memory, cold start."),
    "check": ("edgetune.commands.check", "Hold a bundle against a budget: size, times, memory, metric."),
    "compare": ("edgetune.commands.compare", "Compare two models on the same rows, or arms of live traffic by votes."),
    "report": ("edgetune.commands.report", "Join a build's report and measurements in one HTML page."),
    "feedback": ("edgetune.commands.feedback", "Turn what people said about answers into data and figures."),
    "loop": ("edgetune.commands.loop", "Take a turn: corrections join the data, a better bundle the old one's place."),
    "sign": ("edgetune.commands.sign", "Sign a bundle's files with a private key."),
    "pack": ("edgetune.commands.pack", "Write a bundle as the folder that another server opens."),
    "join": ("edgetune.commands.join", "Join language models of one base whose virtual tokens differ."),
    "target": ("edgetune.commands.target", "Set up what proves bundles for processors that are not at hand."),
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


# What a disk or a file system refuses, wherever it is met: nothing that a traceback would explain.
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENAMETOOLONG)


class _ReaderLeft(Exception):
    """Who reads our output has gone, as head does when it has seen enough."""


class CommandTable(click.Group):
    """A group that knows its commands by name and imports one only to run it or to show its help."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; click itself would end with 1 for a reader that has left."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            if _reader_has_left():
                raise _ReaderLeft from error
            raise

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


def _prepare_streams() -> None:
    """Let an old terminal show what it has no letters for as escapes, instead of ending the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads any more; a broken pipe may also be one between our own processes."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this system, or no descriptor
        return True


def _drop_output() -> None:
    """Let what is still to be flushed go nowhere: the interpreter would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refused(error: OSError) -> EdgetuneError:
    if error.errno == errno.ENAMETOOLONG:
        return EdgetuneError(
            f"A name is too long: {str(error.filename)[:60]!r}...",
            expected="a name of at most 255 bytes between slashes",
            action="check what was given as a path",
        )
    return EdgetuneError(
        f"{error.filename or 'The output'} cannot be written: {error.strerror}.",
        expected="a disk with room that this user may write to",
        action="free space or write elsewhere, and run the command again",
    )


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 usage, 3 gate not met, 130 stopped by the user."""
    prepare_environment()
    _prepare_streams()
    try:
        status = root.main(standalone_mode=False)
    except EdgetuneError as error:
        click.echo(message(f"Error: {error}"), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(130)
    except _ReaderLeft:
        # `edgetune predict ... | head`: nothing is wrong here.
        _drop_output()
        sys.exit(0)
    except OSError as error:
        if error.errno not in _OF_THE_DISK:
            raise
        _drop_output()
        click.echo(message(f"Error: {_refused(error)}"), err=True)
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
