"""The command ``aisdatapipes``; the same as ``python -m aisdatapipes.cli``."""
