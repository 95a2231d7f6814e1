"""Entry point: hand over to the command line."""


def main() -> None:
    """Run the command line; imported late so that `import pxeserver` stays cheap."""
    from pxeserver.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
