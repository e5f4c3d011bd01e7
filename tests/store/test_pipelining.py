"""Short requests go out together on a connection; whatever becomes of one, the others get their own answers."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aisdatapipes.model.config import ClientConfig
from aisdatapipes.store import descriptors, lane, pace
from aisdatapipes.store.engine import CurlTransport
from aisdatapipes.store.pace import DEPTH, Pace
from aisdatapipes.store.transport import Request
from tests.store.misbehaving import BODY, Misbehaving, answer
from tests.store.plain import ShortTransport
from tests.store.test_transports import HANG, Answers, ask, seen


@pytest.fixture
def there():
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture
def short(there):
    transport = ShortTransport(ClientConfig(there.url(), read_timeout=4))
    yield transport
    transport.close()


def asked(transport, there, paths, **options):
    """Requests that are begun together, on a connection that there is already; and where their answers will be."""
    answers = Answers()
    requests = [Request(there.url(path), **options) for path in paths]

    def begin(_reply):  # on the loop's own thread, which goes on when it has heard of all of them
        for request in requests:
            transport.send(request, answers.of(request))

    transport.send(Request(there.url("/name/first")), begin)
    return requests, answers


def told(requests, answers):
    """What each request was answered, in the order of the requests."""
    answers.wait(len(requests))
    assert sorted(map(id, requests)) == sorted(id(request) for request, _ in answers.all)
    replies = {id(request): reply for request, reply in answers.all}
    return [seen(replies[id(request)]) for request in requests]


def named(paths):
    return [(200, path.encode(), None) for path in paths]


# ---- who follows whom


def test_they_share_connections(short, there):
    """Requests of the same time go over few connections, and each gets its own answer."""
    paths = [f"/name/{i}" for i in range(32)]
    assert told(*asked(short, there, paths)) == named(paths)
    assert there.accepted < len(paths)


def test_as_many_as_may(short, there):
    """While nothing is answered no connection has more than it may have."""
    paths = [f"/hold/{i}" for i in range(3 * DEPTH)]
    requests, answers = asked(short, there, paths)
    while there.accepted < 3:
        time.sleep(0.01)
    there.release.set()
    assert told(requests, answers) == [(200, BODY, None)] * len(paths)
    assert there.accepted >= 3


def test_long_ones_have_a_connection_each(there):
    """Nothing follows what is long or of unknown length, and it follows nothing."""
    transport = CurlTransport(ClientConfig(there.url()))
    answers = Answers()
    try:
        expected = [-1, 10, lane.SHORT_BYTES + 1, 10, -1, 10]
        requests = [Request(there.url("/hold"), plain=True, expected=size) for size in expected]
        requests.append(Request(there.url("/hold/" + "x" * 2000), plain=True, expected=10))
        for request in requests:
            transport.send(request, answers.of(request))
        while len(there.seen) < 5:  # the short ones have one connection
            time.sleep(0.01)
        assert there.accepted == 5
        there.release.set()
        answers.wait(len(requests))
    finally:
        transport.close()


@pytest.mark.parametrize("dropped", [1, 3])
def test_asked_behind_what_was_dropped_at_once(short, there, dropped):
    """Who asks when others have asked, and do not want it any more, in the same moment."""
    answers = Answers()
    unwanted = [Request(there.url(f"/name/{i}")) for i in range(dropped)]
    wanted = Request(there.url("/name/wanted"))

    def begin(_reply):  # all of it in one turn of the loop
        for request in unwanted:
            short.send(request, answers.of(request))
        for request in unwanted:
            short.cancel(request)
        short.send(wanted, answers.of(wanted))

    short.send(Request(there.url("/name/first")), begin)
    assert told([wanted], answers) == named(["/name/wanted"])


def test_what_broke_off_is_counted(short, there):
    """Of a burst that broke off, once for the one whose answer it was."""
    requests, answers = asked(short, there, ["/name/a", "/cut/b", "/name/c"])
    told(requests, answers)
    found = {id(request): reply.repeats for request, reply in answers.all}
    assert [found[id(request)] for request in requests] == [0, 1, 0]


@pytest.mark.timeout(240)
def test_whoever_still_wants_it_is_told(there):
    """Of requests that are sent and cancelled in any order, also in the same turns, the others have their answers."""
    transport = ShortTransport(ClientConfig(there.url(), read_timeout=4))

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(turns=[[True, False, True]])
    @example(turns=[[True, True, True, False], [False, False, True]])
    @given(turns=st.lists(st.lists(st.booleans(), max_size=12), min_size=1, max_size=4))
    def same(turns):
        answers, wanted, sent = Answers(), [], []

        def act(sends):  # a request more; or the oldest one that was not cancelled is cancelled
            if sends:
                request = Request(there.url(f"/name/{len(sent)}"))
                sent.append(request)
                wanted.append(request)
                transport.send(request, answers.of(request))
            elif wanted:
                transport.cancel(wanted.pop(0))

        for turn in turns:
            acted = threading.Event()
            # Its listener is called by the loop, which goes on when all of this is done.
            transport.send(Request(there.url("/name/turn")), lambda _, do=turn, end=acted: (*map(act, do), end.set()))
            assert acted.wait(HANG)
        last = Request(there.url("/name/last"))
        wanted.append(last)
        transport.send(last, answers.of(last))
        answers.wait_for(wanted)
        replies = {id(request): reply for request, reply in answers.all}
        for request in wanted[:-1]:
            assert seen(replies[id(request)]) == (200, b"/name/%d" % sent.index(request), None)

    try:
        same()
    finally:
        transport.close()


# ---- whatever comes

ROUTES = ["name", "name", "name", "good", "refused", "redirect", "cut", "reset", "reset-inside", "nothing", "closing",
          "chunked", "chunked-cut", "interim", "not-http", "part", "part-cut", "late"]  # fmt: skip


@pytest.mark.timeout(240)
def test_whatever_comes(there):
    """Of any requests together, each is answered as it would be alone, by libcurl."""
    alone = CurlTransport(ClientConfig(there.url(), read_timeout=4))
    known = {}

    def expected(path):
        if path not in known:
            status, body, failure = seen(ask(alone, Request(there.url(path), fresh=True)))
            known[path] = (status, None if failure == "truncated" else body, failure)
        return known[path]

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(routes=["part", "part", "reset", "part"] * 3)
    @example(routes=["cut", "name", "part", "reset-inside", "part"] * 3)
    @given(routes=st.lists(st.sampled_from(ROUTES), min_size=1, max_size=20))
    def same(routes):
        paths = [f"/{route}/{i}" for i, route in enumerate(routes)]
        transport = ShortTransport(ClientConfig(there.url(), read_timeout=4))
        try:
            found = told(*asked(transport, there, paths))
        finally:
            transport.close()
        found = [(status, None if failure == "truncated" else body, failure) for status, body, failure in found]
        assert found == [expected(path) for path in paths]

    try:
        same()
    finally:
        alone.close()


def test_what_nobody_asked_for(short, there):
    """What comes behind the last answer is not the answer to what is asked next."""
    assert seen(ask(short, Request(there.url("/more")))) == (200, b"asked for", None)
    assert seen(ask(short, Request(there.url("/name/next")))) == (200, b"/name/next", None)
    assert there.accepted == 2


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_answers_in_pieces(there, size):
    """The answers to a burst come in pieces of any size."""
    whole = b"".join(answer(b"%d" % i * 5) for i in range(5))
    there.said = [whole[at : at + size] for at in range(0, len(whole), size)]
    transport = CurlTransport(ClientConfig(there.url()))
    try:
        requests, answers = asked(transport, there, ["/said"] * 5, plain=True, expected=5)
        assert told(requests, answers) == [(200, b"%d" % i * 5, None) for i in range(5)]
        assert len(there.seen) == 2  # the server says all of it to the first of them, after the one before
    finally:
        transport.close()


# ---- servers that do not do as HTTP says


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_server_that_loses_requests(there, short, lost):
    """One that looks at the first request of a packet only never has an object given the bytes of another."""
    there.forgets = True
    paths = [f"/name/{i}" for i in range(10 * lost)]
    for _ in range(3):
        assert told(*asked(short, there, paths)) == named(paths)


def test_a_server_that_mixes_answers_up(there):
    """Answers of other lengths than were expected are asked for one by one."""
    there.said = [answer(b"/name/other") + answer(b"/said")]
    transport = CurlTransport(ClientConfig(there.url()))
    try:
        requests, answers = asked(transport, there, ["/said", "/name/b"], plain=True, expected=7)
        assert told(requests, answers)[1] == (200, b"/name/b", None)
    finally:
        transport.close()


# ---- those that wait for another


def test_a_connection_of_a_long_one(there):
    """One that had short ones before is not followed either, when it has a long one."""
    transport, answers = CurlTransport(ClientConfig(there.url())), Answers()
    try:
        first, last = (Request(there.url(f"/name/{i}"), plain=True, expected=10) for i in range(2))
        long = Request(there.url("/hold"), plain=True)
        assert ask(transport, first).failure is None
        transport.send(long, answers.of(long))
        while len(there.seen) < 2:
            time.sleep(0.01)
        transport.send(last, answers.of(last))
        answers.wait(1)
        assert [request for request, _ in answers.all] == [last]
        assert there.accepted == 2
        there.release.set()
        answers.wait(2)
    finally:
        transport.close()


def test_nobody_waits_long_for_another(short, there):
    """An answer that does not come holds up those that were asked with it for a moment."""
    paths = ["/hold/0", *(f"/name/{i}" for i in range(1, 6))]
    requests, answers = asked(short, there, paths)
    answers.wait(5)
    assert requests[0] not in [request for request, _ in answers.all]
    there.release.set()
    assert told(requests, answers) == [(200, BODY, None), *named(paths[1:])]


def test_nobody_follows_it_any_more(short, there, monkeypatch):
    """Once others were kept waiting on a connection, it has no others, however long its answer does not come."""
    monkeypatch.setattr(pace, "REST_S", 0.01)
    requests, answers = asked(short, there, ["/hold/0", "/name/1"])
    answers.wait(1)
    monkeypatch.setattr(lane, "BURST_S", 60)
    time.sleep(0.02)
    assert seen(ask(short, Request(there.url("/name/2")))) == (200, b"/name/2", None)
    assert requests[0] not in [request for request, _ in answers.all]


def test_late_answers_are_nobody_elses(short, there):
    """What was asked for elsewhere meanwhile still comes: not as the answer to what is asked next."""
    paths = ["/hold/0", "/late/1", "/late/2"]
    requests, answers = asked(short, there, paths)
    answers.wait(2)
    there.release.set()
    assert told(requests, answers) == [(200, BODY, None), *named(paths[1:])]
    assert seen(ask(short, Request(there.url("/name/next")))) == (200, b"/name/next", None)


def test_a_dropped_one_lets_the_others_be(short, there):
    """Its answer is passed over, on the same connection, and nobody is told of it."""
    requests, answers = asked(short, there, ["/name/0", "/hold/1", "/name/2"])
    while not any("/hold" in text for text in there.seen):
        time.sleep(0.01)
    short.cancel(requests[1])
    there.release.set()
    answers.wait(2)
    assert sorted(seen(reply)[1] for _, reply in answers.all if reply.status) == [b"/name/0", b"/name/2"]
    assert seen(ask(short, Request(there.url("/name/3")))) == (200, b"/name/3", None)


def test_when_all_are_dropped_the_connection_goes(short, there):
    """Nothing that comes for them is taken for the answer to the next one."""
    requests, answers = asked(short, there, ["/hold/0", "/hold/1", "/hold/2"])
    while not any("/hold" in text for text in there.seen):
        time.sleep(0.01)
    for request in requests:
        short.cancel(request)
    there.release.set()
    assert seen(ask(short, Request(there.url("/name/next")))) == (200, b"/name/next", None)
    assert (answers.all, there.accepted) == ([], 2)


def test_what_was_dropped_is_not_begun_again(short, there):
    """When its connection breaks, only those that somebody waits for are asked for elsewhere."""
    requests, answers = asked(short, there, ["/silent/0", "/name/1", "/name/2"])
    while not any("/silent" in text for text in there.seen):
        time.sleep(0.01)
    short.cancel(requests[1])
    there.release.set()
    answers.wait(2)
    assert {seen(reply)[2] for _, reply in answers.all} == {"reset", None}
    assert not any("/name/1" in text for text in there.seen)


def test_few_descriptors(there, monkeypatch):
    """Those that are begun again have no more connections than there may be."""
    monkeypatch.setattr(descriptors, "connections_at_most", lambda: 4)
    transport = ShortTransport(ClientConfig(there.url(), read_timeout=4))
    try:
        paths = [f"/closing/{i}" for i in range(60)]
        assert told(*asked(transport, there, paths)) == [(200, BODY, None)] * 60
        assert there.most <= 4
    finally:
        transport.close()


# ---- servers that are faster otherwise


def test_a_slow_server_has_one_request_a_connection():
    """Answers that come long after each other are asked for side by side, until the next trial."""
    one = Pace()
    assert one.depth == DEPTH
    for _ in range(1000):
        one.answered_after(pace.SLOW_S / 4)
    assert one.depth == DEPTH
    for _ in range(100):
        one.answered_after(pace.SLOW_S * 4)
    assert one.depth == 1


def test_one_late_answer_says_nothing():
    """A pause of the whole machine is no property of the server."""
    one = Pace()
    one.answered_after(20 * pace.SLOW_S)
    assert one.depth == DEPTH


def test_the_rest_has_an_end(monkeypatch):
    """Then it is tried again."""
    monkeypatch.setattr(pace, "REST_S", 0.05)
    one = Pace()
    one.rest()
    assert one.depth == 1
    time.sleep(0.1)
    assert one.depth == DEPTH


def test_a_slow_server(short, there):
    """One whose answers take 20 ms each is asked over as many connections as there are requests, after a while."""
    paths = [f"/late/{i}" for i in range(40)]
    for _ in range(3):
        assert told(*asked(short, there, paths)) == named(paths)
    assert there.accepted >= len(paths)
