"""`python -m jaxphoton` is the `jaxphoton` command."""

from jaxphoton.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
