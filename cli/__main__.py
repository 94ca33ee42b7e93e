"""`python -m edgetune`: the same as the `edgetune` command, for `accelerate launch -m edgetune`."""

from edgetune.cli import main

if __name__ == "__main__":
    main()
