"""The pretrained base, its head, and the tuned and merged model."""

from edgetune.tune import require_training

require_training()
