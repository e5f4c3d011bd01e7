"""A real cluster as processes of this one: started, hurt, and stopped for certain."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hmac
import json
import os
import re
import resource
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cluster.settings import CONTROL, DATA, PUBLIC, cluster_settings, node_settings

READY_TIMEOUT = 90.0  # seconds; a start takes about 10, on a machine that does nothing else
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
STOP_TIMEOUT = 20.0  # seconds for a clean shutdown, before nodes are killed
# What would change a node's behaviour must not come in with the tests' environment.
_DROPPED = re.compile(
    r"(AIS|AWS|GOOGLE|AZURE|OCI|KUBERNETES|S3)_|KUBECONFIG$|MY_(POD|NODE)|(?i:https?_proxy|all_proxy)$"
)


class ClusterFailed(RuntimeError):
    """The cluster did not start, or did not reach a state in time; the message has the ends of the nodes' logs."""


def aisnode() -> str | None:
    """Path of the program on PATH; None where there is none."""
    return shutil.which("aisnode")


class LocalCluster:
    """One AIStore cluster on loopback.

    Args:
        targets: Number of targets.
        proxies: Number of proxies; the first one is the primary.
        tls: Serve HTTPS with a self-signed certificate (``ca_file``).
        authn_secret: Require tokens signed with it (``token`` is an administrator's).
        mountpaths: Disks that each target pretends to have.
    """

    def __init__(
        self, targets: int = 3, proxies: int = 1, *, tls: bool = False, authn_secret: str = "", mountpaths: int = 2
    ) -> None:
        program = aisnode()
        if program is None:
            raise ClusterFailed("no aisnode on PATH")
        self._program = program
        self._dir = Path(tempfile.mkdtemp(prefix="aistore-"))
        self._tls = make_certificate(self._dir) if tls else None
        self._secret = authn_secret
        self._mountpaths = mountpaths
        self._ports: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._revivable: set[str] = set()  # nodes that may crash once, while the cluster starts
        self._names = [f"p{i + 1}" for i in range(proxies)] + [f"t{i + 1}" for i in range(targets)]
        self._targets = targets

    @property
    def endpoint(self) -> str:
        """Address of the primary."""
        return self.url("p1")

    @property
    def ca_file(self) -> str | None:
        """The certificate to trust; None without TLS."""
        return str(self._tls[0]) if self._tls else None

    def token_for(self, *, valid_s: float = 86_400, **claims: Any) -> str:
        """A user's token with these claims, of AIStore's ``api/authn``."""
        return signed_token(self._secret, valid_s=valid_s, **claims)

    @property
    def uuid(self) -> str:
        """The cluster's identity, which claims name."""
        return str(json.loads(self._call("p1", "/v1/daemon?what=smap"))["uuid"])

    @property
    def token(self) -> str | None:
        """An administrator's token; None where none is needed."""
        return admin_token(self._secret) if self._secret else None

    def url(self, name: str) -> str:
        """Public address of a node: ``p1``, ``t2``."""
        return f"{'https' if self._tls else 'http'}://{PUBLIC}:{self._ports[name]}"

    def __enter__(self) -> LocalCluster:  # noqa: PYI034
        try:
            for address in (CONTROL, DATA):
                _have_address(address)
            for name in self._names:
                self._prepare(name)
            self.start("p1")
            self.until(lambda: self._status("p1", "/v1/health"), "the primary does not listen")
            for name in self._names[1:]:
                self.start(name)
            self._revivable = set(self._names) if self._tls else set()
            self.wait_ready()
            self._revivable = set()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """Start a node, again with its data and address if it ran before."""
        root = self._dir / name
        role = "proxy" if name.startswith("p") else "target"
        argv = [
            self._program, f"-role={role}", f"-config={root}/conf/ais.json",
            f"-local_config={root}/conf/ais_local.json",
        ]  # fmt: skip
        if name == "p1":
            argv.append(f"-ntargets={self._targets}")
        env = {key: value for key, value in os.environ.items() if not _DROPPED.match(key)}
        if self._secret:
            env["AIS_AUTHN_SECRET_KEY"] = self._secret
        with (root / "stdio").open("ab") as out:
            self._running[name] = subprocess.Popen(
                argv, env=env, cwd=root, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                preexec_fn=_as_a_node,  # noqa: PLW1509 - two system calls
            )  # fmt: skip

    def signal(self, name: str, number: int) -> None:
        """Send a signal; for SIGKILL and SIGTERM, wait until the node is gone."""
        process = self._running[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(STOP_TIMEOUT)
            del self._running[name]

    def kill(self, name: str) -> None:
        """Crash a node: the map keeps it until the others miss it (10 to 13 s)."""
        self.signal(name, signal.SIGKILL)

    def term(self, name: str) -> None:
        """End a node as an administrator does: it leaves the map first."""
        self.signal(name, signal.SIGTERM)

    def pause(self, name: str) -> None:
        """Stop a node where it stands: it keeps its connections, and says nothing on them."""
        self.signal(name, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a paused node go on."""
        self.signal(name, signal.SIGCONT)

    def add_target(self) -> str:
        """One target more; its name. Objects that are its own from now on are moved to it."""
        name = f"t{sum(one.startswith('t') for one in self._names) + 1}"
        self._names.append(name)
        self._prepare(name)
        self.start(name)
        return name

    def runs(self, name: str) -> bool:
        """Whether a node was started and not killed."""
        return name in self._running

    def wait_ready(self) -> None:
        """Wait until the primary has started the cluster and every running node takes requests."""

        def ready() -> bool:
            self._must_live()
            up = all(self._status(name, "/v1/health?readiness=true") for name in self._running)
            # The primary alone says 200 too early; `prr` means that it could rebalance.
            return up and self._status(self._proxy(), "/v1/health?prr=true")

        self.until(ready, "not ready")

    def wait_targets(self, number: int) -> None:
        """Wait until the cluster map has so many targets."""
        self.until(lambda: len(self.map()["tmap"]) == number, f"the map has not {number} targets")

    def map(self) -> dict[str, Any]:
        """The cluster map, as any proxy that runs has it."""
        found: dict[str, Any] = json.loads(self.call("/v1/daemon?what=smap"))
        return found

    def id_of(self, name: str) -> str:
        """What the cluster calls a node."""
        smap, port = self.map(), str(self._ports[name])
        nodes = {**(smap["pmap"] or {}), **(smap["tmap"] or {})}
        return next(key for key, node in nodes.items() if node["public_net"]["daemon_port"] == port)

    def call(self, path: str, message: Any = None, method: str = "") -> bytes:
        """Ask any proxy that runs; with a message it is a PUT, unless another method is given."""
        return self._call(self._proxy(), path, message, method)

    def maintain(self, name: str, *, on: bool = True) -> None:
        """Have a target's objects moved away, and keep it out; or the other way round. Takes about 40 s."""
        # Refused while a node is busy: it has a second to agree.
        self.until(lambda: self.ask_to_maintain(name, on=on) is None, "maintenance was refused")

    def ask_to_maintain(self, name: str, *, on: bool = True) -> None:
        """The same, once; `urllib.error.HTTPError` where it is refused, as it is while there is a get-batch."""
        value = {"sid": self.id_of(name), "skip_rebalance": False}
        self.call("/v1/cluster", {"action": f"{'start' if on else 'stop'}-maintenance", "value": value})

    def rebalances(self) -> bool:
        """Whether objects are being moved."""
        try:
            found = self.call("/v1/cluster?what=running_all", {"kind": "rebalance"}, "GET")
        except urllib.error.HTTPError as error:
            if error.code == 404:  # no job runs
                return False
            raise
        return bool(json.loads(found or b"null"))

    def set(self, **settings: str) -> None:
        """Change the configuration of all nodes; an underscore twice stands for a dot."""
        query = "&".join(f"{key.replace('__', '.')}={value}" for key, value in settings.items())
        self.call(f"/v1/cluster/set-config?{query}", {})

    def crash(self) -> None:
        """End every node at once."""
        for process in self._running.values():
            process.kill()

    def stop(self) -> None:
        """End every node, if need be by force, and remove all files."""
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
        with contextlib.suppress(OSError):
            self.call("/v1/cluster", {"action": "shutdown"})
        end = time.monotonic() + STOP_TIMEOUT
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()
        shutil.rmtree(self._dir, ignore_errors=True)

    # ---- inside

    def _prepare(self, name: str) -> None:
        root = self._dir / name
        for folder in (root / "conf", root / "log", self._dir / "data"):
            folder.mkdir(parents=True, exist_ok=True)
        self._ports[name] = _free_port(set(self._ports.values()))
        common = cluster_settings(self.url("p1"), self._dir, tls=self._tls, authn=bool(self._secret))
        instance = int(name[1:]) if name.startswith("t") else 0
        own = node_settings(root, self._ports[name], instance, self._mountpaths)
        (root / "conf" / "ais.json").write_text(json.dumps(common))
        (root / "conf" / "ais_local.json").write_text(json.dumps(own))

    def _proxy(self) -> str:
        """A proxy that answers."""
        for name in [one for one in self._running if one.startswith("p")]:
            if self._status(name, "/v1/health"):
                return name
        raise ConnectionError("no proxy answers")

    def _call(self, name: str, path: str, message: Any = None, method: str = "") -> bytes:
        method = method or ("GET" if message is None else "PUT")
        request = urllib.request.Request(self.url(name) + path, method=method)
        if message is not None:
            request.data = json.dumps(message).encode()
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        handlers: list[Any] = [urllib.request.ProxyHandler({})]
        if self._tls:
            handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(self._tls[0]))))
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as reply:
            return reply.read()

    def _status(self, name: str, path: str) -> bool:
        try:
            self._call(name, path)
        except (OSError, urllib.error.URLError):
            return False
        return True

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until something is so; `ClusterFailed` when it does not come, or when a node ends by itself."""
        end = time.monotonic() + READY_TIMEOUT
        while time.monotonic() < end:
            self._must_live()
            with contextlib.suppress(OSError):  # such as from a proxy that has not noticed yet that the primary is gone
                if condition():
                    return
            time.sleep(0.2)
        raise ClusterFailed(f"{what} after {READY_TIMEOUT} s\n{self._tails()}")

    def _must_live(self) -> None:
        for name, process in list(self._running.items()):
            if process.poll() is None:
                continue
            if name in self._revivable:
                # AIStore 5.0 starts two listeners with one TLS configuration at the same moment, and Go's set-up of
                # HTTP/2 in it can crash then.
                self._revivable.discard(name)
                self.start(name)
            else:
                raise ClusterFailed(f"{name} ended with status {process.returncode}\n{self._tails()}")

    def _tails(self) -> str:
        found = []
        for path in sorted(self._dir.glob("[pt]*/stdio")) + sorted(self._dir.glob("[pt]*/log/*.INFO")):
            found += [f"--- {path.parent.name}/{path.name}", *path.read_text(errors="replace").splitlines()[-15:]]
        return "\n".join(found)


def admin_token(secret: str) -> str:
    """A token of an administrator, valid for a day."""
    return signed_token(secret, admin=True)


def signed_token(secret: str, *, valid_s: float = 86_400, **claims: Any) -> str:
    """A JSON web token (HS256, RFC 7519); claims as in AIStore's ``api/authn``."""

    def encoded(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"sub": "user", "admin": False, "iat": now, "exp": now + int(valid_s), **claims}
    text = f"{encoded(json.dumps({'alg': 'HS256', 'typ': 'JWT'}).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{text}.{encoded(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


def make_certificate(where: Path) -> tuple[Path, Path]:
    """(certificate, key), self-signed for the loopback addresses, by the openssl command."""
    crt, key = where / "server.crt", where / "server.key"
    names = ",".join(["DNS:localhost", *(f"IP:{address}" for address in (PUBLIC, CONTROL, DATA))])
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", f"subjectAltName={names}", "-keyout", str(key), "-out", str(crt)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return crt, key


def _free_port(taken: set[int]) -> int:
    """A port that is free on all three addresses, below the range that the system gives to clients."""
    for _ in range(1000):
        # Several runs look for ports at the same moment, and may have seeded `random` alike.
        port = 20_000 + secrets.randbelow(12_700)
        if port not in taken and all(_can_bind(address, port) for address in (PUBLIC, CONTROL, DATA)):
            return port
    raise ClusterFailed("no free port")


def _can_bind(address: str, port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            return False
    return True


def _have_address(address: str) -> None:
    """Nodes want their addresses on an interface: 127.0.0.2 works without, but is not listed as one."""
    if shutil.which("ip") is None:
        _add_address(address)
    else:
        subprocess.run(["ip", "addr", "add", f"{address}/32", "dev", "lo"], capture_output=True, check=False)


def _add_address(address: str) -> None:
    """``ip addr add ADDRESS/32 dev lo`` by a netlink message (RTM_NEWADDR, rtnetlink(7)); needs root."""
    import struct

    raw = socket.inet_aton(address)
    body = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 254, socket.if_nametoindex("lo"))
    for kind in (2, 1):  # IFA_LOCAL, IFA_ADDRESS
        body += struct.pack("=HH", 8, kind) + raw
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 16 + len(body), 20, 0x605, 1, 0) + body)
        (code,) = struct.unpack_from("=i", sock.recv(4096), 16)
    if code not in (0, -17):  # 17: it is there already
        raise ClusterFailed(f"cannot add {address} to lo: {os.strerror(-code)}; run as root")


def _as_a_node() -> None:
    """In the new process: files as many as it may have, and an end when the thread that started it ends.

    Whoever kills the tests by force kills the nodes too (PR_SET_PDEATHSIG, prctl(2)).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
