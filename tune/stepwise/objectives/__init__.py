"""What a language model learns of its rows: one row an objective in `OBJECTIVES`, and the trainings that TRL has.

Must not import torch or TRL when it is imported: recipes are read by the table.
"""

from __future__ import annotations

from edgetune.tune.stepwise.objectives.objective import Objective

OBJECTIVES: dict[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("sft", "Answers as the data has them (supervised fine-tuning).", reads=("",)),
        Objective(
            "dpo",
            "Of two answers the preferred one, against the base (arXiv 2305.18290).",
            reads=("pairs",),
            rate_share=0.25,
            needs_reference=True,
        ),
        Objective(
            "kto",
            "Answers that were liked, and none that were not, against the base (arXiv 2402.01306).",
            reads=("votes", "pairs"),
            rate_share=0.25,
            needs_reference=True,
        ),
        Objective(
            "orpo",
            "The preferred answer and its odds over the other at once, without a reference (arXiv 2403.07691).",
            reads=("pairs",),
            rate_share=0.5,
        ),
        Objective(
            "grpo",
            "What a reward scores high, among several answers to each prompt (arXiv 2402.03300).",
            reads=("", "pairs"),
            rate_share=0.5,
            is_online=True,
        ),
        Objective(
            "rloo",
            "As grpo, each answer against the mean of the others (arXiv 2402.14740).",
            reads=("", "pairs"),
            rate_share=0.5,
            is_online=True,
        ),
        Objective("reward", "A score for a prompt and its answer, on an encoder.", reads=("pairs",), of_decoders=False),
    )
}
# What has been an objective elsewhere and is none here, with the reason.
REFUSED = {
    "ppo": "PPO has left the stable part of TRL (1.x has no PPOTrainer); its successor there is rloo, which needs no "
    "model of values",
}


def objective_fault(name: object) -> str:
    """Why no objective has that name, with those that there are; "" where one has."""
    if isinstance(name, str) and name in OBJECTIVES:
        return ""
    if isinstance(name, str) and name.casefold() in REFUSED:
        return f"{REFUSED[name.casefold()]}; expected one of {', '.join(OBJECTIVES)}"
    return f"there is no objective {name!r:.80}; expected one of {', '.join(OBJECTIVES)}"
