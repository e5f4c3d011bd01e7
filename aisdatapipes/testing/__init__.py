"""For tests of data loading: buckets that last as long as a test, and laws that any dataset must obey.

The pytest plugin that comes with the package gives the fixtures ``ais_cluster`` and ``ais_bucket``.
"""

from aisdatapipes.testing.bucket import AISBucket, RunningCluster
from aisdatapipes.testing.laws import (
    check_copies,
    check_dataset,
    check_early_break,
    check_epochs,
    check_loader,
    check_worker_error,
)
from aisdatapipes.testing.order_laws import check_order, check_resume

__all__ = [
    "AISBucket",
    "RunningCluster",
    "check_copies",
    "check_dataset",
    "check_early_break",
    "check_epochs",
    "check_loader",
    "check_order",
    "check_resume",
    "check_worker_error",
]
