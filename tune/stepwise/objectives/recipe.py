"""What a user can say about learning of judgements and rewards: sections of a language model's `tune:`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from edgetune.tune.recipe import Auto

Weight = Annotated[float, Field(allow_inf_nan=False)]


class PreferenceRecipe(BaseModel):
    """Settings of `objective: dpo`, `kto` and `orpo`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    beta: float = Field(
        0.1, gt=0, description="dpo and kto: how closely the model is held to the base; orpo: weight of the odds ratio."
    )
    answer_rows: int = Field(
        16, ge=1, description="Held-out prompts that are answered for length and divergence, before and after."
    )
    answer_tokens: int = Field(128, ge=1, description="Most tokens of such an answer.")


class OnlineRecipe(BaseModel):
    """Settings of `objective: grpo` and `rloo`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generations: int = Field(4, ge=2, description="Answers drawn to each prompt; tune.batch_size is a multiple of it.")
    answer_tokens: int = Field(64, ge=1, description="Most tokens of a drawn answer.")
    temperature: float = Field(1.0, gt=0, description="Of drawing them.")
    beta: Annotated[float, Field(ge=0)] | Auto = Field(
        "auto",
        description="Weight of the divergence from the base; auto is 0.02 where adapters can be switched off, else 0.",
    )
    reward_rows: int = Field(
        32, ge=1, description="Validation prompts that are answered for the mean reward, an epoch."
    )
