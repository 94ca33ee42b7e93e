"""Training on the Hugging Face Trainer, and what stands around it."""

from edgetune.tune import require_training

require_training()
