"""Whatever a cluster does wrong: the exact data, or the error that docs/reliability.md names, in time, and nothing left."""

from __future__ import annotations

import pytest

from tests.reliability.matrix import CONSUMERS, cells, outcomes, shown
from tests.reliability.ways import WAYS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("way", WAYS)
def test_every_fault_of_every_request(way, consumer, caplog):
    """A fault that passes leaves no trace in the data; one that stays is what the page says, in every consumer."""
    caplog.set_level("CRITICAL")  # each try that failed is a warning
    page, wrong = shown(), []
    some = cells(way, consumer)
    for cell, outcome in zip(some, outcomes(some, consumer), strict=True):
        told = page[cell.request, str(cell.fault)]
        staying = told.get(way, told[""])
        expected = staying if cell.stays or cell.fault.is_final else "data"
        if outcome != expected and not (cell.fault.is_final and not cell.stays and outcome == "data"):
            wrong.append(f"{cell}: {outcome}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_there_are_enough():
    """Each way of reading has cells, and all of them together are the issue of a release."""
    counts = {(way, consumer): len(cells(way, consumer)) for way in WAYS for consumer in CONSUMERS}
    assert min(counts.values()) > 10
    assert sum(counts.values()) >= 5000
