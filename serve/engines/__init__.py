"""Engines: how the arrays of one input become the outputs of a head. Must not import numpy."""
