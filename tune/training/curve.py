"""The curve of a training, read from its log, and one plain sentence on it: does it show over- or underfitting?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetune.serve.report import CurvePoint


def curve_of(history: Sequence[Mapping[str, float]]) -> tuple[CurvePoint, ...]:
    """The evaluations of a Trainer's log, `state.log_history`, each with the training loss of its epoch."""
    losses = {round(entry["epoch"], 4): entry["loss"] for entry in history if "loss" in entry}
    return tuple(
        CurvePoint(
            epoch=entry["epoch"],
            train_loss=losses.get(round(entry["epoch"], 4)),
            validation_loss=entry["eval_loss"],
            validation_value=entry["eval_value"],
        )
        for entry in history
        if "eval_value" in entry
    )


def remark_on(curve: Sequence[CurvePoint]) -> str:
    """Say what the curve shows.

    Overfitting: the validation loss ends more than 5% above its lowest while the training loss still falls.
    Underfitting: the last epoch is the best and gained more than half a point over the one before.
    """
    if not curve:
        return "The head alone was solved; nothing was trained."
    if len(curve) == 1:
        return "There was one evaluation, which shows no trend."
    last = curve[-1]
    lowest = min(curve, key=lambda point: point.validation_loss)
    losses = [point.train_loss for point in curve if point.train_loss is not None]
    falling = len(losses) >= 2 and losses[-1] < losses[-2]
    if last.validation_loss > 1.05 * lowest.validation_loss and falling:
        return (
            f"Overfitting after epoch {lowest.epoch:.0f}: the validation loss rose from "
            f"{lowest.validation_loss:.3f} to {last.validation_loss:.3f} while the training loss fell; "
            "the best epoch was kept. Fewer epochs, more data or --method probe may do better."
        )
    gain = last.validation_value - curve[-2].validation_value
    if gain > 0.005:
        return (
            f"Underfitting: the last epoch still gained {100 * gain:.1f} "
            "points on the validation part; more epochs may do better."
        )
    return "The curve is sound: the validation metric has levelled off and its loss does not rise."
