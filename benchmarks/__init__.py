"""Measures, compares, judges and reports, always with the base beside the bundle on the same rows."""
