"""Pictures fetched from addresses that strangers send; no answer comes from where none may be asked."""

from __future__ import annotations

import asyncio
import gzip
import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

pytest.importorskip("aiohttp")

from jaxphoton.bodies.faults import BodyError
from jaxphoton.bodies.fetching import AT_ONCE, REDIRECTS, Fetcher
from tests.batch.site import Site, drop, send

PICTURE = b"\xff\xd8 as good as a picture" * 100
OPEN = ip_address("127.0.0.1")


class Sites(ExitStack):
    """A site where pictures may be fetched from (127.0.0.1), and one inside the network (127.0.0.2)."""

    def __enter__(self):
        self.outside = self.enter_context(Site(lambda *request: self.answer(*request)))
        self.inside = self.enter_context(Site(lambda _, handler, *__: send(handler, b"secret"), "127.0.0.2"))
        self.looked_up = []
        return self

    def answer(self, site, handler, path, number):
        send(handler, PICTURE)

    def lookup(self, host, port, **more):
        """A resolver for names of 127.x.x.x: "a127-0-0-1.test", "a127-0-0-2.a127-0-0-1.test" for several."""
        self.looked_up.append(host)
        places = [part[1:].replace("-", ".") for part in host.removesuffix(".test").split(".")]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    def fetcher(self, **options):
        ports = {int(site.url.rpartition(":")[2]) for site in (self.outside, self.inside)}
        defaults = {"ports": ports, "allowed": lambda address: address == OPEN, "lookup": self.lookup}
        return Fetcher(**(defaults | options))

    def fetch(self, url, **options):
        async def main():
            return await self.fetcher(**options).fetch(url, "image")

        return asyncio.run(main())

    def fault(self, url, **options):
        with pytest.raises(BodyError) as caught:
            self.fetch(url, **options)
        error = caught.value
        assert (error.status, error.param, error.code) == (400, "image", "invalid_image_url")
        start = "image cannot be fetched: "
        assert str(error).startswith(start)
        return str(error).removeprefix(start)


@pytest.fixture
def sites():
    with Sites() as both:
        yield both
        assert both.inside.tries == {}, "something inside the network was asked"


def at(site, host):
    """The address of a site under another name."""
    return f"http://{host}:{site.url.rpartition(':')[2]}/a.jpg"


def test_a_picture_is_what_its_server_sends_whatever_it_calls_it(sites):
    sites.answer = lambda _, handler, *__: send(handler, PICTURE, Content_Type="text/html")
    assert sites.fetch(f"{sites.outside.url}/a%20b?c=d#e") == PICTURE
    assert sites.outside.tries == {"/a%20b?c=d": 1}
    assert sites.fetch(at(sites.outside, "a127-0-0-1.test")) == PICTURE


def test_one_without_a_length_is_read_to_its_end(sites):
    def answer(site, handler, path, number):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(3):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(PICTURE), PICTURE))
        handler.wfile.write(b"0\r\n\r\n")

    sites.answer = answer
    assert sites.fetch(sites.outside.url) == 3 * PICTURE


def test_only_the_public_internet_is_asked_unless_told_otherwise():
    async def main(url):
        return await Fetcher().fetch(url)

    with Site(lambda site, handler, path, number: send(handler, PICTURE)) as site:
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254"):
            for port in ("", ":443", f":{site.url.rpartition(':')[2]}"):
                with pytest.raises(BodyError):
                    asyncio.run(main(f"http://{host}{port}/a.jpg"))
        assert site.tries == {}


NUMBERS = ["127.2", "127.0.2", "2130706434", "0x7f000002", "0x7f.0.0.2", "0177.0.0.2", "017700000002", "127.0.0.2."]


@pytest.mark.parametrize(
    "host", [*NUMBERS, "127.0.0.0x2", "1.1.1.1.1", "256.1.1.1", "a b", "a..b", ".", "", "a%00b", "*"]
)
def test_odd_hosts_are_not_asked_for(sites, host):
    fault = sites.fault(at(sites.inside, host), lookup=socket.getaddrinfo)
    assert fault in ("its host is not valid", "it is not a valid address")


def test_an_address_of_the_network_is_refused_in_every_form(sites):
    for host in ("127.0.0.2", "[::ffff:127.0.0.2]", "①②⑦.⓪.⓪.②", "127。0。0。2"):
        assert sites.fault(at(sites.inside, host)) == "it is not a public address"
    assert sites.looked_up == []


def test_a_name_of_the_network_and_one_that_there_is_not_are_told_alike(sites):
    def nowhere(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    url = at(sites.inside, "a127-0-0-2.test")
    told = {
        sites.fault(url),
        sites.fault(url, lookup=nowhere),
        sites.fault(at(sites.inside, "a" * 64 + ".test"), lookup=socket.getaddrinfo),
        sites.fault(f"http://a127-0-0-1.test:{port}/", ports={port}),
        sites.fault(at(sites.inside, "a127-0-0-2.a127-0-0-2.test")),
    }
    assert told == {"no public address of its host answers"}


def test_of_several_addresses_only_the_public_ones_are_asked(sites):
    assert sites.fetch(at(sites.outside, "a127-0-0-2.a127-0-0-1.a127-0-0-3.test")) == PICTURE


def test_a_name_that_changes_its_address_is_judged_as_it_is_then(sites):
    places = iter(["127.0.0.1", "127.0.0.2", "127.0.0.2"])

    def lookup(host, port, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(places), port))]

    url = at(sites.outside, "changes.test")
    sites.answer = lambda _, handler, path, number: send(handler, status=302, Location=at(sites.inside, "changes.test"))
    assert sites.fault(url, lookup=lookup) == "no public address of its host answers"
    assert sum(sites.outside.tries.values()) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_judged_one_by_one(sites, status):
    def answer(site, handler, path, number):
        if path == "/end":
            return send(handler, PICTURE)
        send(handler, status=status, Location="end" if path == "/start" else sites.inside.url)

    sites.answer = answer
    assert sites.fetch(f"{sites.outside.url}/start") == PICTURE
    assert sites.fault(f"{sites.outside.url}/away") == "it is not a public address"


@pytest.mark.parametrize(
    ("location", "fault"),
    [
        ("http://user:secret@127.0.0.1/", "there is a user or a password in it"),
        ("http://127.0.0.1:22/", "port 22 is not allowed"),
        ("file:///etc/passwd", "it is neither http nor https"),
        ("ftp://127.0.0.1/a", "it is neither http nor https"),
        ("//127.0.0.2/", "port 80 is not allowed"),
        ("http://[", "it is not a valid address"),
    ],
)
def test_a_redirect_is_held_to_the_same_rules(sites, location, fault):
    sites.answer = lambda _, handler, *__: send(handler, status=302, Location=location)
    assert sites.fault(sites.outside.url) == fault


def test_redirects_come_to_an_end(sites):
    sites.answer = lambda _, handler, path, number: send(handler, status=302, Location=f"{path}x")
    assert sites.fault(sites.outside.url) == f"it redirects more than {REDIRECTS} times"
    assert len(sites.outside.tries) == REDIRECTS + 1


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://user@127.0.0.1/", "there is a user or a password in it"),
        ("http://:@127.0.0.1/", "there is a user or a password in it"),
        ("http://127.0.0.1:22/", "port 22 is not allowed"),
        ("https://127.0.0.1:8443/", "port 8443 is not allowed"),
        ("http://127.0.0.1:99999/", "it is not a valid address"),
        ("file:///etc/passwd", "it is neither http nor https"),
        ("gopher://127.0.0.1/", "it is neither http nor https"),
        ("http://127.0.0.1/" + "x" * 9000, "it is longer than 8192 characters"),
    ],
)
def test_what_is_wrong_with_an_address_is_said_before_anybody_is_asked(sites, url, fault):
    assert sites.fault(url) == fault
    assert sites.outside.tries == {} and sites.looked_up == []


def test_a_picture_that_is_too_large_is_left(sites):
    sent = []

    def endless(site, handler, path, number):
        handler.send_response(200)
        handler.end_headers()
        while not site.over.is_set():
            handler.wfile.write(bytes(1 << 16))
            sent.append(1 << 16)

    for length, read in ((len(PICTURE), True), (len(PICTURE) + 1, False)):
        sites.answer = lambda _, handler, *__, data=bytes(length): send(handler, data)
        if read:
            assert sites.fetch(sites.outside.url, most_bytes=len(PICTURE)) == bytes(length)
        else:
            fault = sites.fault(sites.outside.url, most_bytes=len(PICTURE))
            assert fault == f"it is larger than {len(PICTURE):,} bytes"
    # By what it says, before anything is read; and where it says nothing, on the way.
    sites.answer = lambda site, handler, *_: (send(handler, b"x", length=1 << 40), site.over.wait(60))
    assert "it is larger than" in sites.fault(sites.outside.url)
    sites.answer = endless
    assert "it is larger than" in sites.fault(sites.outside.url, most_bytes=1 << 20)


def test_what_is_compressed_is_refused(sites):
    asked = []

    def answer(site, handler, path, number):
        asked.append(handler.headers)
        send(handler, gzip.compress(PICTURE), Content_Encoding="gzip")

    sites.answer = answer
    assert sites.fault(sites.outside.url) == "its server sends it compressed"
    assert asked[0]["Accept-Encoding"] == "identity"


def test_proxies_cookies_and_passwords_of_here_are_not_used(sites, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, sites.inside.url)
    asked = []

    def answer(site, handler, path, number):
        asked.append(handler.headers)
        send(handler, PICTURE, Set_Cookie="a=b; Path=/")

    async def main():
        fetcher = sites.fetcher()
        return [await fetcher.fetch(f"{sites.outside.url}/x") for _ in range(2)]

    sites.answer = answer
    assert asyncio.run(main()) == [PICTURE] * 2
    for headers in asked:
        assert not {"cookie", "authorization", "proxy-authorization", "referer"} & {name.lower() for name in headers}


@pytest.mark.parametrize("status", [204, 206, 304, 401, 404, 500, 503])
def test_other_answers_are_no_pictures(sites, status):
    sites.answer = lambda _, handler, *__: send(handler, b"" if status in (204, 304) else PICTURE, status=status)
    assert sites.fault(sites.outside.url) == f"its server answers with status {status}"
    assert sum(sites.outside.tries.values()) == 1


def test_broken_answers_are_told_apart_from_none(sites):
    def nonsense(site, handler, path, number):
        handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    for answer in (
        nonsense,
        lambda _, handler, *__: drop(handler),
        lambda _, handler, *__: (send(handler, PICTURE, length=10**6), drop(handler)),
    ):
        sites.answer = answer
        assert sites.fault(sites.outside.url) == "its server does not answer properly"


def test_a_server_without_tls_is_not_taken_for_one_with_it(sites):
    fault = sites.fault(sites.outside.url.replace("http://", "https://"))
    assert fault == "its server has no valid certificate, or no TLS"
    assert sites.outside.tries == {}


def hang(site, handler, path, number):
    site.over.wait(60)


def trickle(site, handler, path, number):
    send(handler, b"", length=len(PICTURE))
    while not site.over.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def slow_redirects(site, handler, path, number):
    if not site.over.wait(0.1):
        send(handler, status=302, Location=f"{path}x")


@pytest.mark.parametrize("answer", [hang, trickle, slow_redirects])
def test_what_takes_too_long_is_left(sites, answer):
    sites.answer = answer
    assert sites.fault(sites.outside.url, seconds=0.3) == "it took longer than 0.3 s"


def test_a_machine_that_accepts_nothing_is_left_sooner(sites):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as kept:
        port = full.getsockname()[1]
        for _ in range(3):  # what the kernel accepts by itself
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        fault = sites.fault(f"http://127.0.0.1:{port}/", ports={port}, connect_s=0.3)
        assert fault == "no public address of its host answers"


def test_so_many_are_fetched_at_once_and_no_more(sites):
    import threading

    lock, now, most = threading.Lock(), [0], [0]
    full = threading.Event()

    def answer(site, handler, path, number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            if now[0] == 3:
                full.set()
        full.wait(60)
        with lock:
            now[0] -= 1
        send(handler, PICTURE)

    async def main():
        fetcher = sites.fetcher(at_once=3)
        return await asyncio.gather(*(fetcher.fetch(f"{sites.outside.url}/{n}") for n in range(12)))

    sites.answer = answer
    assert asyncio.run(main()) == [PICTURE] * 12
    assert most[0] == 3


def test_whoever_leaves_leaves_nothing_behind(sites):
    async def main():
        fetcher = sites.fetcher()
        tasks = [asyncio.create_task(fetcher.fetch(f"{sites.outside.url}/{n}")) for n in range(AT_ONCE)]
        while len(sites.outside.tries) < AT_ONCE:
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        sites.answer = lambda _, handler, *__: send(handler, PICTURE)
        assert await fetcher.fetch(f"{sites.outside.url}/again") == PICTURE
        assert asyncio.all_tasks() == {asyncio.current_task()}

    sites.answer = hang
    asyncio.run(main())
