"""Learns from labelled data and merges what was learnt: data, probe, LoRA, freezing, full fine-tuning."""
