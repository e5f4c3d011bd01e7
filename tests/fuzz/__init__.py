"""Fuzzers of all that reads bytes which others wrote: ``python -m tests.fuzz`` runs them, `test_fuzz` in the test suite."""
