"""The `tierlight` command."""


def main() -> None:
    """Run the command line."""
