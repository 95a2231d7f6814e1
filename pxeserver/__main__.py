"""Entry point: hand over to the command line."""

import gc
import os


def main() -> None:
    """Run the command line; imported late so that `import pxeserver` stays cheap."""
    # pydantic looks through every installed distribution for plugins, which costs more than parsing a spec
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()  # until the command is there (cli/main.py): what is being imported is no garbage
    from pxeserver.cli.main import cli

    cli()


if __name__ == "__main__":
    main()
