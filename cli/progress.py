"""What the user sees while a build works: one live line a stage, a bar with time left, plain lines off a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class StageLines:
    """Prints stages to a console: each has a line with its time and result."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.current: StageLine | None = None

    def show_finished(self, name: str, result: str) -> None:
        """A stage that was finished before and is not run again."""
        self._console.print(f"[green]✓[/] {name:<9} [dim]kept[/]     {result}", highlight=False)

    @contextmanager
    def running(self, name: str) -> Iterator[StageLine]:
        """Show a stage while it runs; its line stays when it is done."""
        start = time.perf_counter()
        bar = Progress(
            TextColumn("[cyan]•[/] {task.fields[stage]:<9}"),
            TimeElapsedColumn(),
            BarColumn(bar_width=24),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        with bar:
            line = StageLine(name, self._console, bar)
            self.current = line
            if not self._console.is_terminal:
                self._console.print(f"{name} ...", highlight=False)
            yield line
        self.current = None
        seconds = time.perf_counter() - start
        self._console.print(f"[green]✓[/] {name:<9} {seconds:6.1f} s  {line.words}", highlight=False)

    @property
    def progress(self) -> StageLine:
        """The line of the stage that runs now."""
        assert self.current is not None, "progress is reported inside a stage"
        return self.current


class StageLine:
    """One running stage: what the stage functions report their progress to."""

    def __init__(self, name: str, console: Console, bar: Progress) -> None:
        self.words = ""
        self._console = console
        self._bar = bar
        self._task: TaskID = bar.add_task("", total=None, stage=name)
        self._total: int | None = None

    def finish(self, words: str) -> None:
        """What the finished stage's line says."""
        self.words = words

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._console.print(f"  {text}", highlight=False, markup=False)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Move the bar; a new total is a new part of the stage and starts its clock anew."""
        if total != self._total:
            self._total = total
            self._bar.reset(self._task, total=total)
        self._bar.update(self._task, completed=done, description=note)
