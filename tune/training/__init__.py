"""Training on the Hugging Face Trainer, and what stands around it."""
