"""`python -m embridge`."""

from embridge.cli import main

if __name__ == "__main__":
    main()
