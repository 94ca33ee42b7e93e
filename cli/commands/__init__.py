"""One file a command; `edgetune.cli` loads each when it is asked for."""
