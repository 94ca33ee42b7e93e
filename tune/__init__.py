"""Learns from labelled data and merges what was learnt: data, probe, LoRA, freezing, full fine-tuning."""

from edgetune.serve.dependencies import require

require("build", "datasets", "peft", "pydantic", "sklearn", "torch", "transformers", "yaml")
