"""Graphs that answer in one run: export, parity, drafts of bundles."""
