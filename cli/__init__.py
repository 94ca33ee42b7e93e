"""edgetune: labelled text in, a small, fast, proven model bundle out. Import `edgetune.serve` to use one."""

__version__ = "0.1.0"
