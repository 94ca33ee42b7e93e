"""A Ctrl-C while training: the first one saves a checkpoint and stops after the step, a second one stops at once.

Apart from the trainings of the tasks, which all stop this way.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from transformers import TrainerCallback

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class StopOnInterrupt(TrainerCallback):
    """Turns the first Ctrl-C into a checkpoint and a stop after the step.

    Attributes:
        stopped: whether there was one.
    """

    def __init__(self) -> None:
        self.stopped = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGINT; signals can be caught in the main thread only, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Save and stop, where the user asked for it."""
        if self.stopped:
            control.should_save = True
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> TrainerControl:
        """Judge no half epoch."""
        # The Trainer ends an epoch that is stopped half-way too: judging it would use up patience and bend the curve.
        if self.stopped and abs(state.epoch - round(state.epoch)) > 1e-6:
            control.should_evaluate = control.should_log = control.should_save = False
        return control
