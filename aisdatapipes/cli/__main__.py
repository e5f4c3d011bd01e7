"""``python -m aisdatapipes.cli``."""

from aisdatapipes.cli.command import main

if __name__ == "__main__":
    main()
