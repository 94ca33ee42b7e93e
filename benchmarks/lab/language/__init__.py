"""The laboratory of language models: family races and real models."""
