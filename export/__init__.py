"""Turns a tuned model into a graph, proves that both answer alike, and packs bundles."""
