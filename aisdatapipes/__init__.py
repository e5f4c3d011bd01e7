"""Train PyTorch models straight from NVIDIA AIStore.

Importing this package gives the functional names to every ``IterDataPipe``: ``ais_list_files``, ``ais_load_files``,
``ais_list_sources``, ``ais_read_shards``, ``ais_plan``, and ``list_files_by_ais``, ``load_files_by_ais``.
"""

from aisdatapipes.datasets.batch_iter_dataset import AISBatchIterDataset
from aisdatapipes.datasets.batch_sampler import AISSampler
from aisdatapipes.datasets.iter_dataset import AISIterDataset
from aisdatapipes.datasets.iterable import AISBaseIterDataset
from aisdatapipes.datasets.manifest import Manifest
from aisdatapipes.datasets.map_dataset import AISMapDataset
from aisdatapipes.datasets.mapped import AISBaseMapDataset
from aisdatapipes.datasets.mix import AISMix
from aisdatapipes.datasets.multishard import AISMultiShardStream
from aisdatapipes.datasets.parallel_map_dataset import AISParallelMapDataset
from aisdatapipes.datasets.pipe_dataset import AISPipeDataset
from aisdatapipes.datasets.plan import Plan
from aisdatapipes.datasets.sampler import DynamicBatchSampler
from aisdatapipes.datasets.shard_map_dataset import AISShardMapDataset
from aisdatapipes.datasets.shard_reader import AISShardReader
from aisdatapipes.datasets.worker_client import WorkerRequestClient
from aisdatapipes.flow.shard_writer import ShardWriter
from aisdatapipes.model.config import ClientConfig, FetchPlan, RetryPolicy
from aisdatapipes.model.errors import (
    AISPipeError,
    BucketNotFound,
    ConfigError,
    CorruptBody,
    CorruptSample,
    CorruptShard,
    Denied,
    InvalidURL,
    NotFound,
    NotResumable,
    ObjectNotFound,
    RemoteBucketNotFound,
    StoreError,
    Truncated,
    Unavailable,
    UnreadableManifest,
)
from aisdatapipes.model.url import AISURL
from aisdatapipes.model.world import World
from aisdatapipes.pipes.lister import AISFileListerIterDataPipe
from aisdatapipes.pipes.loader import AISFileLoaderIterDataPipe
from aisdatapipes.pipes.planner import AISPlanner
from aisdatapipes.pipes.samples import AISShardSamples
from aisdatapipes.pipes.sources import AISSourceLister
from aisdatapipes.version import __version__

AISFileLister = AISFileListerIterDataPipe
AISFileLoader = AISFileLoaderIterDataPipe

__all__ = [
    "AISURL",
    "AISBaseIterDataset",
    "AISBaseMapDataset",
    "AISBatchIterDataset",
    "AISFileLister",
    "AISFileListerIterDataPipe",
    "AISFileLoader",
    "AISFileLoaderIterDataPipe",
    "AISIterDataset",
    "AISMapDataset",
    "AISMix",
    "AISMultiShardStream",
    "AISParallelMapDataset",
    "AISPipeDataset",
    "AISPipeError",
    "AISPlanner",
    "AISSampler",
    "AISShardMapDataset",
    "AISShardReader",
    "AISShardSamples",
    "AISSourceLister",
    "BucketNotFound",
    "ClientConfig",
    "ConfigError",
    "CorruptBody",
    "CorruptSample",
    "CorruptShard",
    "Denied",
    "DynamicBatchSampler",
    "FetchPlan",
    "InvalidURL",
    "Manifest",
    "NotFound",
    "NotResumable",
    "ObjectNotFound",
    "Plan",
    "RemoteBucketNotFound",
    "RetryPolicy",
    "ShardWriter",
    "StoreError",
    "Truncated",
    "Unavailable",
    "UnreadableManifest",
    "WorkerRequestClient",
    "World",
    "__version__",
]
