"""Language models in training: rows of text, instructions or chats, and how a model learns to answer them."""

from edgetune.tune import require_training

require_training()
