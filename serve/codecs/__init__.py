"""Codecs: how an input becomes arrays."""
