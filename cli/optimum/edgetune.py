"""`optimum-cli edgetune ...`: the command line of this package as a command of optimum's.

Installed as `optimum.commands.register.edgetune`, where optimum looks for what other packages register
(`load_optimum_namespace_cli_commands` of optimum 2). `optimum` is a namespace package that many distributions add to
(PEP 420), so this folder has no `__init__.py`, and nothing here is imported unless optimum is there.
"""

from __future__ import annotations

import sys
from argparse import REMAINDER, ArgumentParser
from typing import ClassVar

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo


class EdgetuneCommand(BaseOptimumCLICommand):
    """Hands all arguments on to `edgetune`."""

    COMMAND: ClassVar = CommandInfo(
        name="edgetune", help="Fine-tune, quantize, prove and pack a model: as the command edgetune does."
    )

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Take whatever follows, options included."""
        parser.usage = "optimum-cli edgetune COMMAND [ARGUMENTS]   (optimum-cli edgetune COMMAND --help)"
        parser.add_argument(
            "arguments", nargs=REMAINDER, help="Command of edgetune, such as build, with its arguments."
        )

    def run(self) -> None:
        """Run it; its exit status is the process's."""
        from edgetune.cli import main

        sys.argv = ["edgetune", *(self.args.arguments or ["--help"])]  # which reports quote, to be run again
        main()


REGISTER_COMMANDS = [EdgetuneCommand]
