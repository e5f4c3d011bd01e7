"""The laws of a `Transport`, held by both, on libcurl and on threads; and by the fast lane that the former has."""

from __future__ import annotations

import gc
import itertools
import os
import random
import ssl
import subprocess
import threading
import time

import pytest

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store import engine, threads
from aisdatapipes.store.engine import CurlTransport
from aisdatapipes.store.threads import ThreadTransport
from aisdatapipes.store.transport import Request
from tests.store.misbehaving import BODY, Misbehaving
from tests.store.plain import PlainTransport, ShortTransport

HANG = 30  # seconds; longer than this is for ever


@pytest.fixture
def there():
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture(
    params=[CurlTransport, PlainTransport, ShortTransport, ThreadTransport],
    ids=["curl", "lane", "pipelined", "threads"],
)
def kind(request):
    return request.param


@pytest.fixture
def new(kind):
    """A maker of transports, which are closed at the end."""
    made = []

    def make(endpoint, **options):
        made.append(kind(ClientConfig(endpoint, read_timeout=options.pop("read_timeout", 10), **options)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


class Answers:
    """What came, by request; ``wait(n)`` waits for so many answers."""

    def __init__(self):
        self.all = []
        self._news = threading.Condition()

    def of(self, request):
        def done(reply):
            with self._news:
                self.all.append((request, reply))
                self._news.notify_all()

        return done

    def wait(self, n):
        with self._news:
            assert self._news.wait_for(lambda: len(self.all) >= n, HANG), f"{len(self.all)} answers of {n}"
        return [reply for _, reply in self.all]

    def wait_for(self, requests):
        """Wait for the answers to these, whichever others come."""
        wanted = set(map(id, requests))
        with self._news:
            came = self._news.wait_for(lambda: wanted <= {id(request) for request, _ in self.all}, HANG)
            assert came, f"of {len(wanted)} requests some are not answered"


def ask(transport, request):
    answers = Answers()
    transport.send(request, answers.of(request))
    return answers.wait(1)[0]


def seen(reply):
    return (reply.status, reply.body, reply.failure.kind if reply.failure else None)


@pytest.mark.parametrize(
    ("route", "status", "body", "failure"),
    [
        ("good", 200, BODY, None),
        ("chunked", 200, BODY, None),
        ("interim", 200, BODY, None),
        ("closing", 200, BODY, None),
        ("redirect", 302, b"there", None),
        ("refused", 404, b"no" * 20, None),
        ("cut", 200, None, "truncated"),
        ("chunked-cut", 200, None, "truncated"),
        ("reset-inside", 200, None, "truncated"),
        ("reset", 0, b"", "reset"),
        ("nothing", 0, b"", "reset"),
        ("not-http", 0, b"", "protocol"),
        ("silent", 0, b"", "timeout"),
        ("stalled", 200, None, "timeout"),
    ],
)
def test_each_misbehaviour_has_its_name(new, there, route, status, body, failure):
    """What goes wrong is a failure of the named kind; what does not is the answer, bytes and all."""
    reply = ask(new(there.url(), read_timeout=1), Request(there.url(f"/{route}")))
    got = seen(reply)
    assert (got[0], got[2]) == (status, failure), reply.failure
    assert body is None or got[1] == body


def test_an_unreasonable_head_is_a_failure(new, there):
    """400 kB of headers are no answer."""
    assert ask(new(there.url()), Request(there.url("/huge"))).failure is not None


def test_headers_are_those_of_the_answer(new, there):
    """A header of an interim answer does not hide that of the answer; names count in any case."""
    reply = ask(new(there.url()), Request(there.url("/interim")))
    assert (reply.header("x-KIND"), reply.header("X-None")) == ("final", None)


def test_nobody_listens(new, there):
    """A port without a listener is a failure to connect."""
    port = there.port
    there.close()
    reply = ask(new(f"http://127.0.0.1:{port}"), Request(f"http://127.0.0.1:{port}/"))
    assert seen(reply) == (0, b"", "connect")
    reply = ask(new("http://no-such-host.invalid"), Request("http://no-such-host.invalid/"))
    assert seen(reply) == (0, b"", "connect")


@pytest.fixture(autouse=True)
def _close_twice(monkeypatch):
    """A server that a test has closed is not closed again."""
    close = Misbehaving.close
    closed = set()
    monkeypatch.setattr(Misbehaving, "close", lambda self: self in closed or (closed.add(self), close(self)))


def test_done_once_for_each_send(new, there):
    """Two hundred requests of all sorts, in any order: each answered exactly once."""
    transport, answers = new(there.url(), read_timeout=5), Answers()
    routes = ["good", "cut", "reset", "closing", "chunked", "refused", "nothing"] * 30
    random.Random(1).shuffle(routes)
    requests = [Request(there.url(f"/{route}/{i}")) for i, route in enumerate(routes)]
    for request in requests:
        transport.send(request, answers.of(request))
    answers.wait(len(requests))
    transport.close()
    assert sorted(id(request) for request, _ in answers.all) == sorted(map(id, requests))
    wrong = [r.url for r, reply in answers.all if "/good" in r.url and seen(reply) != (200, BODY, None)]
    assert wrong == []


NAMES = ["a/../b", "a/./b", "%2F%2E%2E", "a//b", "a%20b%23%3F", "~!$&'()*+,;=:@"]


@pytest.mark.parametrize("name", NAMES)
def test_urls_go_out_as_they_are(new, there, name):
    """Nobody repairs a path: what is asked for is what is sent."""
    ask(new(there.url()), Request(there.url(f"/good/{name}?x=%2F&y=a%20b")))
    assert there.seen[0].split(" ")[1] == f"/good/{name}?x=%2F&y=a%20b"


def test_what_is_sent(new, there):
    """Method, headers, body and range reach the server, and the next request does not inherit them."""
    transport = new(there.url(), token="s3cret")
    ask(transport, Request(there.url("/a"), "POST", ("Content-Type: x/y",), b"body", with_token=True))
    ask(transport, Request(there.url("/b"), byte_range=(5, 9)))
    ask(transport, Request(there.url("/c"), byte_range=(5, None)))
    ask(transport, Request(there.url("/d")))
    post, first, second, plain = (text.split("\r\n\r\n") for text in there.seen)
    assert post[0].startswith("POST /a HTTP/1.1\r\n")
    assert post[1] == "body"
    heads = [{line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in part[0].split("\r\n")[1:]}
             for part in (post, first, second, plain)]  # fmt: skip
    assert [head.get("range") for head in heads] == [None, "bytes=5-9", "bytes=5-", None]
    assert [head.get("authorization") for head in heads] == ["Bearer s3cret", None, None, None]
    assert [head.get("content-type") for head in heads] == ["x/y", None, None, None]


def test_head_has_no_body(new, there):
    """A HEAD gives the length and waits for no body; a GET on the same connection works after it."""
    transport = new(there.url())
    reply = ask(transport, Request(there.url("/head"), "HEAD"))
    assert (seen(reply), reply.header("Content-Length")) == ((200, b"", None), "12345")
    assert seen(ask(transport, Request(there.url("/good"))))[0] == 200


def test_cancelled_before_during_and_after(new, there):
    """A cancelled request is answered at most once, whenever that is, and the others all the same."""
    transport, answers = new(there.url()), Answers()
    later = Request(there.url("/good"), delay=60)
    held = Request(there.url("/hold"))
    unsent = Request(there.url("/good"))
    transport.cancel(unsent)
    for request in (later, held):
        transport.send(request, answers.of(request))
    while not any("/hold" in text for text in there.seen):
        time.sleep(0.01)
    transport.cancel(later)
    transport.cancel(held)
    # What is said to the transport it hears in this order: when this is answered, it knows that nobody wants the others.
    assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)
    there.release.set()
    assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)
    transport.cancel(held)
    transport.close()
    assert [r for r, reply in answers.all if seen(reply)[2] is None] == []
    assert len(answers.all) <= 1


def test_close_answers_all(new, there):
    """Whatever is under way, waiting or delayed when the transport is closed gets its answer, and so do late ones."""
    transport, answers = new(there.url(), read_timeout=1), Answers()
    requests = [Request(there.url("/stalled"), delay=delay) for delay in (0, 0, 60)]
    for request in requests:
        transport.send(request, answers.of(request))
    while len(there.seen) < 2:
        time.sleep(0.01)
    transport.close()
    transport.close()
    assert sorted(id(r) for r, _ in answers.all) == sorted(map(id, requests))
    assert [seen(reply) for _, reply in answers.all if reply.failure is None] == []
    assert seen(ask(transport, Request(there.url("/good")))) == (0, b"", "closed")


def test_close_while_the_thread_is_busy(there, monkeypatch):
    """A thread that sees by itself that it is to end waits for who tells it: what that writes to is still there."""
    transport, begun = CurlTransport(ClientConfig(there.url())), threading.Event()
    write = os.eventfd_write

    def again(reply):
        begun.set()
        if reply.failure is None or reply.failure.kind != "closed":
            transport.send(Request(there.url("/good")), again)

    def slowly(fd, value):
        time.sleep(0.2)
        write(fd, value)

    transport.send(Request(there.url("/good")), again)
    assert begun.wait(HANG)
    monkeypatch.setattr(os, "eventfd_write", slowly)
    transport.close()


def test_a_body_cut_by_close_is_no_answer(kind):
    """A transfer that close interrupts between two chunks is a failure, never a short success."""
    server = Misbehaving()
    transport, answers = kind(ClientConfig(server.url(), read_timeout=1)), Answers()
    request = Request(server.url("/good"), sink=Slow())
    transport.send(request, answers.of(request))
    assert request.sink.asked.wait(HANG)
    transport.close()
    server.close()
    assert [seen(reply)[2] for reply in answers.wait(1)] == ["closed"]


class Slow:
    """A sink that takes nothing."""

    def __init__(self):
        self.asked = threading.Event()

    def write(self, data):
        self.asked.set()
        return False


class Moody:
    """A sink that says "not now" to every other piece."""

    def __init__(self):
        self.data, self.refused, self.turn = b"", 0, 0
        self.news = threading.Event()

    def write(self, data):
        self.turn += 1
        if self.turn % 2:
            self.refused += 1
            self.news.set()
            return False
        self.data += data
        return True


@pytest.mark.parametrize("route", ["good", "chunked"])
def test_a_sink_gets_all_bytes_once(new, there, route):
    """A sink that pauses now and then has every byte once at the end, and the reply has none."""
    transport, answers, sink = new(there.url()), Answers(), Moody()
    request = Request(there.url(f"/{route}"), sink=sink)
    transport.send(request, answers.of(request))
    end = time.monotonic() + HANG
    while not answers.all and time.monotonic() < end:
        if sink.news.wait(0.05):
            sink.news.clear()
            transport.resume(request)
    assert (seen(answers.wait(1)[0]), sink.data == BODY, sink.refused > 0) == ((200, b"", None), True, True)


def test_a_sink_gets_no_error(new, there):
    """The body of a refusal is the reply's, not the sink's."""
    sink = Moody()
    reply = ask(new(there.url()), Request(there.url("/refused"), sink=sink))
    assert (seen(reply), sink.turn) == ((404, b"no" * 20, None), 0)


def test_a_delay_is_kept(new, there):
    """A delayed request is not sent before its time, and those behind it are not held up."""
    transport, answers = new(there.url()), Answers()
    began = time.monotonic()
    slow, quick = Request(there.url("/slow"), delay=0.5), Request(there.url("/quick"))
    for request in (slow, quick):
        transport.send(request, answers.of(request))
    answers.wait(2)
    assert ([request for request, _ in answers.all], time.monotonic() - began >= 0.5) == ([quick, slow], True)


def test_slow_requests_do_not_hold_up_others(new, there):
    """Requests sent in a burst all go out, though the first of them take for ever."""
    transport, answers = new(there.url()), Answers()
    ask(transport, Request(there.url("/good")))  # one idle thread is there
    held = [Request(there.url("/hold")) for _ in range(3)]
    quick = Request(there.url("/good"))
    for request in (*held, quick):
        transport.send(request, answers.of(request))
    answers.wait(1)
    assert answers.all[0][0] is quick
    there.release.set()
    answers.wait(4)


def test_a_fresh_connection(new, there):
    """However many kept connections are broken, a request that is to be fresh is answered."""
    transport, answers = new(there.url()), Answers()
    for _ in range(16):
        request = Request(there.url("/once"))
        transport.send(request, answers.of(request))
    end = time.monotonic() + HANG
    while len(there.seen) < 16 and time.monotonic() < end:
        time.sleep(0.01)
    there.release.set()
    assert {seen(reply) for reply in answers.wait(16)} == {(200, BODY, None)}
    assert seen(ask(transport, Request(there.url("/good"), fresh=True))) == (200, BODY, None)


def test_the_thread_ends_and_starts_again(new, there, monkeypatch):
    """Without work the threads end by themselves; the next request starts one."""
    monkeypatch.setattr(engine, "LINGER", 0.2)
    monkeypatch.setattr(threads, "LINGER", 0.2)
    transport = new(there.url())
    for _ in range(2):
        assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)
        end = time.monotonic() + HANG
        while any(t.name.startswith("aisdatapipes-") and "devserver" not in t.name for t in threading.enumerate()):
            assert time.monotonic() < end
            time.sleep(0.02)


def test_requests_from_answers(new, there):
    """A ``done`` may send: that is how a retry goes."""
    transport, answers = new(there.url()), Answers()
    left = itertools.count()

    def again(reply):
        if next(left) < 20:
            transport.send(Request(there.url("/good")), again)
        else:
            answers.of(None)(reply)

    transport.send(Request(there.url("/good")), again)
    assert seen(answers.wait(1)[0]) == (200, BODY, None)


def test_a_listener_that_fails_hurts_nobody(new, there, caplog):
    """A ``done`` that raises is logged, and the requests of others are answered all the same."""
    transport = new(there.url())

    def bad(_reply):
        raise RuntimeError("a defect of the listener")

    for _ in range(20):  # more than there are threads
        transport.send(Request(there.url("/good")), bad)
    assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)
    transport.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 20


def test_a_sink_that_fails_is_a_failure(new, there, capfd):
    """A sink that raises ends its own transfer and no other."""

    class Bad:
        def write(self, data):
            raise RuntimeError("full")

    transport = new(there.url())
    assert ask(transport, Request(there.url("/good"), sink=Bad())).failure is not None
    assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)


def test_a_fork_in_the_middle(kind, there):
    """A child reads by a transport of its own, and the parent's requests go on."""
    config = ClientConfig(there.url(), read_timeout=10)
    transport, answers = kind(config), Answers()
    held = Request(there.url("/hold"))
    transport.send(held, answers.of(held))
    while not there.seen:
        time.sleep(0.01)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = kind(config)
            code = 0 if seen(ask(own, Request(there.url("/good")))) == (200, BODY, None) else 2
            own.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    there.release.set()
    assert seen(answers.wait(1)[0]) == (200, BODY, None)
    transport.close()


# ---- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """(certificate, key) of 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", pem, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return pem, key


@pytest.fixture
def secure(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = Misbehaving(context)
    yield server
    server.close()


def test_a_certificate_that_is_trusted(new, secure, certificate):
    """With ``ca_file``, or without checking, https gives the bytes."""
    for options in ({"ca_file": str(certificate[0])}, {"verify": False}):
        assert seen(ask(new(secure.url(), **options), Request(secure.url("/good")))) == (200, BODY, None)


def test_a_certificate_that_is_not(new, secure):
    """A certificate that nobody vouches for is a failure of TLS."""
    assert seen(ask(new(secure.url()), Request(secure.url("/good")))) == (0, b"", "tls")


def test_the_wrong_scheme(new, secure, there):
    """https to a port without TLS is a failure of TLS; http to one with it is a failure."""
    plain = there.url("/good").replace("http:", "https:")
    assert seen(ask(new(there.url()), Request(plain)))[2] == "tls"
    assert ask(new(secure.url()), Request(secure.url("/good").replace("https:", "http:"))).failure is not None


def test_timeouts_without_end(new, there):
    """A timeout of infinity is a long one."""
    transport = new(there.url(), read_timeout=float("inf"), connect_timeout=float("inf"))
    assert seen(ask(transport, Request(there.url("/good")))) == (200, BODY, None)


def test_what_cannot_be_sent_is_a_failure(new, there):
    """A request that no HTTP library can send is answered, too."""
    assert ask(new(there.url()), Request(there.url("/a"), headers=("X: \udcff",))).failure is not None


def test_a_collection_at_any_moment(kind, there):
    """An iteration that nobody can reach is cancelled wherever the collector finds it: while something is sent, too."""

    def send(moment):
        transport, answers = kind(ClientConfig(there.url())), Answers()
        dropped = Request(there.url("/good"), delay=HANG)
        transport.send(dropped, answers.of(dropped))
        if moment % 2:
            transport.close()  # half of the times the thread has to be started
            transport = kind(ClientConfig(there.url()))
        good = Request(there.url("/good"))
        gc.collect()  # from here on allocations are counted
        cycle = Forgotten(transport, dropped)
        cycle.itself = cycle
        del cycle
        gc.set_threshold(moment)
        gc.enable()
        transport.send(good, answers.of(good))
        gc.disable()
        while good not in [request for request, _ in answers.all]:
            time.sleep(0.001)
        transport.close()

    before, on = gc.get_threshold(), gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for moment in range(1, 30):
            sender = threading.Thread(target=send, args=(moment,), daemon=True)
            sender.start()
            sender.join(HANG)
            assert not sender.is_alive(), f"a collection after {moment} allocations stops everything"
    finally:
        gc.set_threshold(*before)
        if on:
            gc.enable()


def test_a_collection_in_a_thread_that_is_just_being_started(new, there, monkeypatch):
    """Whoever starts a thread waits until it counts as started; before that the collector may cancel something in it."""
    transport, answers = new(there.url()), Answers()
    unknown, good = Request(there.url("/good")), Request(there.url("/good"))
    begin = threading.Thread._bootstrap_inner

    def begin_with_a_collection(thread):
        if thread.name.startswith("aisdatapipes"):
            transport.cancel(unknown)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", begin_with_a_collection)
    sender = threading.Thread(target=transport.send, args=(good, answers.of(good)), daemon=True)
    sender.start()
    sender.join(HANG)
    assert not sender.is_alive(), "a collection in the new thread stops everything"
    assert seen(answers.wait(1)[0]) == (200, BODY, None)


class Forgotten:
    """Cancels a request when it is collected, as an iteration does."""

    def __init__(self, transport, request):
        self.transport, self.request = transport, request

    def __del__(self):
        self.transport.cancel(self.request)
