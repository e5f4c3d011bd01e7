"""What type checkers must refuse: mypy reports every line marked ``# refused``, and no other."""

from aisdatapipes import AISFileLister, AISIterDataset, AISShardReader, ClientConfig, RetryPolicy, World
from aisdatapipes.testing import check_loader

ENDPOINT = "http://localhost:8080"
lister = AISFileLister(["ais://bucket/"], ENDPOINT)

AISFileLister(17, ENDPOINT)  # refused
AISFileLister(["ais://bucket/"], ENDPOINT, length="many")  # refused
lister.ais_load_files(port=8080)  # refused
lister.load_files_by_ais(ENDPOINT, on_error="ignore")  # refused
lister.ais_plan(even="always")  # refused
lister.ais_load_files().ais_read_shards("png")  # refused
for url, _stream in lister.ais_load_files():
    size: str = url.size  # refused
for _key, fields in lister.ais_load_files().ais_read_shards(decode=b"pil"):  # refused
    print(fields["txt"])
AISIterDataset("ais://bucket/", shufle=True)  # refused
AISIterDataset("ais://bucket/", seed="one")  # refused
AISShardReader("ais://bucket/", missing="never")  # refused
AISShardReader("ais://bucket/", index="always")  # refused
AISShardReader("ais://bucket/", decode=3)  # refused
for _name, sample in AISShardReader("ais://bucket/"):
    sample[1]  # refused
ClientConfig(ENDPOINT, retry=3)  # refused
ClientConfig(ENDPOINT).endpoint = "http://other:8080"  # refused
RetryPolicy(attempts="3")  # refused
World(rank="0")  # refused
check_loader(lister, num_workers="two")  # refused
