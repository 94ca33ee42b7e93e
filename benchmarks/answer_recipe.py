"""What a user can say about confidence: the `answer:` section of a recipe."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class AnswerRecipe(BaseModel):
    """Which probabilities an answer bears, and below which it is unsure."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibrate: bool = Field(
        True,
        description="Divide the packed model's logits by a temperature fitted on the validation part, so that "
        "probabilities are shares of right answers; no label changes.",
    )
    abstain_below: float | None = Field(
        None, gt=0, lt=1, description="Probability below which a label is unsure; empty: none is."
    )
    max_error: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="In place of abstain_below: largest share of wrong labels among those that are not unsure; the "
        "probability is chosen on the validation part so that this holds with gate.confidence.",
    )

    decode: Literal["simple", "viterbi"] = Field(
        "simple",
        description="How tags of tokens become entities: each token by itself, as transformers' pipeline does, or the "
        "likeliest row of tags in which no I- stands behind another type.",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.abstain_below is not None and self.max_error is not None:
            raise ValueError(
                f"both abstain_below ({self.abstain_below:g}) and max_error ({self.max_error:g}) are given: keep one, "
                "either chooses the threshold"
            )
        return self

    @property
    def abstains(self) -> bool:
        """Whether some answers are to be unsure."""
        return self.abstain_below is not None or self.max_error is not None
