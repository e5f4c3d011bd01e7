"""The cluster leaves nothing behind: no thread, no socket, no process."""

import gc
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aisdatapipes.devserver import DevCluster, DevProcess

PATIENCE = 15  # seconds; a process that needs longer to start or to end hangs


DESCRIPTORS = Path("/proc/self/fd")


def sockets():
    """How many of this process' file descriptors are sockets."""
    return sum(is_socket(descriptor) for descriptor in DESCRIPTORS.iterdir())


def is_socket(descriptor):
    try:
        return str(descriptor.readlink()).startswith("socket:")
    except OSError:
        return False  # closed since


def connected(endpoint):
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=PATIENCE)
    connection.request("GET", "/v1/health")
    connection.getresponse().read()
    return connection


@pytest.mark.skipif(not DESCRIPTORS.is_dir(), reason="counts descriptors as Linux shows them")
def test_nothing_is_left():
    """After a stop there are as many threads and sockets as before, with clients still connected."""
    gc.collect()
    threads, before = threading.active_count(), sockets()
    with DevCluster(tls=False) as cluster:
        connections = [connected(cluster.endpoint) for _ in range(3)]
        connections += [connected(target.url) for target in cluster.map.targets]
    for connection in connections:
        assert b"" == connection.sock.recv(1)
        connection.close()
    gc.collect()
    assert (threads, before) == (threading.active_count(), sockets())


def test_stop_and_start_again():
    """A stopped cluster refuses connections; started again it has what it had."""
    cluster = DevCluster.demo()
    with cluster:
        endpoint = urlsplit(cluster.endpoint)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((endpoint.hostname, endpoint.port), timeout=PATIENCE)
    cluster.stop()  # twice is once
    with cluster:
        connected(cluster.endpoint).close()
        assert b"A" == cluster.get("demo", "a.txt")


def test_started_twice():
    """A running cluster cannot be started."""
    with DevCluster() as cluster, pytest.raises(RuntimeError, match="started already"):
        cluster.start()


def test_loopback_only():
    """Nodes listen on 127.0.0.1 and nowhere else."""
    with DevCluster() as cluster:
        nodes = (*cluster.map.targets, *cluster.map.proxies)
        assert {"127.0.0.1"} == {urlsplit(node.url).hostname for node in nodes}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_forked_child_keeps_nothing_open():
    """A child that lives on keeps no connection of the parent's cluster open."""
    cluster = DevCluster().start()
    connection = connected(cluster.endpoint)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent is done
        os._exit(0)
    try:
        cluster.stop()
        assert b"" == connection.sock.recv(1)
    finally:
        os.close(write)
        os.close(read)
        assert 0 == os.waitpid(child, 0)[1]
        connection.close()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_program_ends_at_once(how):
    """Ctrl-C ends the program, with status 0 and no traceback, also while clients are connected."""
    command = [sys.executable, "-m", "aisdatapipes.devserver", "--demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        said = list(iter(process.stdout.readline, "Ctrl-C ends it.\n"))
        connection = connected(said[0].strip())
        process.send_signal(how)
        _, err = process.communicate(timeout=PATIENCE)
        connection.close()
    assert (0, "") == (process.returncode, err)
    assert f"curl -L {said[0].strip()}/v1/objects/demo/a.txt" == said[-1].strip()


def test_port_in_use():
    """A port that is taken is one line, not a traceback."""
    with DevCluster() as cluster:
        port = str(urlsplit(cluster.endpoint).port)
        command = [sys.executable, "-m", "aisdatapipes.devserver", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (1, 1) == (done.returncode, len(done.stderr.splitlines()))
    assert "did not start" in done.stderr


def test_process():
    """A cluster in its own process serves, and is gone afterwards."""
    with DevProcess(targets=2, demo=True) as process:
        connected(process.endpoint).close()
        pid = process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
