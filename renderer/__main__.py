"""`frieze` and `python -m frieze.renderer`: the command line, which can be stopped from here on."""

from . import interrupts


def main() -> None:
    """Entry point of the console script `frieze`."""
    interrupts.run(_command_line)


def _command_line() -> None:
    from . import cli

    cli.main()


if __name__ == "__main__":
    main()
