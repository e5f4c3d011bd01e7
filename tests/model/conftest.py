"""Values and arithmetic: there is nothing that a test could leave behind, so nobody looks for it."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def leaves_nothing():
    """Nothing to look for."""
