"""Downloads over a real HTTP server: they go on where they broke off, and never join parts of two files."""

import contextlib
import hashlib
import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foldmark.core.errors import UserError
from foldmark.data.download import Known, Received, Wanted, download
from tests.file_server import Behaviour, serving

OLD, NEW = bytes(range(256)) * 40, bytes(reversed(range(256))) * 40
DATES = {OLD: "Mon, 01 Jan 2024 00:00:00 GMT", NEW: "Tue, 02 Jan 2024 00:00:00 GMT"}
TAGS = {OLD: '"old"', NEW: '"new"'}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(url, folder, limit=10**6, size=None, sha256=None, timeout=5.0) -> Received:
    wanted = Wanted(url, folder, limit, Known(size, sha256), timeout, waits=(0, 0, 0))
    return download(wanted, "give a path: make data IBUG=path")


def refused(url, folder, *words, **settings) -> None:
    with pytest.raises(UserError) as error:
        fetch(url, folder, **settings)
    for word in (url, *words, "make data IBUG=path"):
        assert word in str(error.value), str(error.value)
    assert not (folder / "archive").exists()


def test_a_file_arrives_whole_with_its_size_and_digest(tmp_path):
    with serving(Behaviour(OLD)) as server:
        received = fetch(server.url, tmp_path)
    assert received.path.read_bytes() == OLD
    assert (received.size, received.sha256) == (len(OLD), hashlib.sha256(OLD).hexdigest())


def test_a_finished_download_is_not_asked_for_again(tmp_path):
    with serving(Behaviour(OLD)) as server:
        first = fetch(server.url, tmp_path)
        assert fetch(server.url, tmp_path) == first
        assert len(server.requests) == 1


@pytest.mark.parametrize("validator", [{"tag": '"a"'}, {"date": DATES[OLD]}])
def test_a_broken_download_asks_only_for_the_rest(tmp_path, validator):
    with serving(Behaviour(OLD, **validator, stop_after=3000), Behaviour(OLD, **validator)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD
        assert [request.get("Range") for request in server.requests] == [None, "bytes=3000-"]
        assert server.requests[1]["If-Range"] in validator.values()


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(tmp_path):
    with serving(
        *[Behaviour(OLD, tag='"a"', stop_after=3000)] + [Behaviour(OLD, status=503)] * 4, Behaviour(OLD, tag='"a"')
    ) as server:
        refused(server.url, tmp_path, "503", "run the same command later")
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD
        assert server.requests[-1]["Range"] == "bytes=3000-"


def test_a_call_killed_after_the_last_byte_asks_for_nothing(tmp_path):
    with serving(Behaviour(OLD, tag='"a"')) as server:
        archive = fetch(server.url, tmp_path).path
        archive.rename(tmp_path / "archive.partial")
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD
        assert len(server.requests) == 1


def test_a_server_that_ignores_ranges_sends_everything_again(tmp_path):
    with serving(Behaviour(OLD, tag='"a"', stop_after=3000), Behaviour(OLD, tag='"a"', ranges=False)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("validator", ["tag", "date"])
def test_a_file_that_changes_between_two_parts_is_fetched_from_the_start(tmp_path, validator, if_range):
    old, new = ({"tag": TAGS[it]} if validator == "tag" else {"date": DATES[it]} for it in (OLD, NEW))
    with serving(Behaviour(OLD, **old, stop_after=3000), Behaviour(NEW, **new, if_range=if_range)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == NEW


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_without_a_sure_sign_of_the_same_file_nothing_is_appended(tmp_path, tag):
    with serving(Behaviour(OLD, tag=tag, stop_after=3000), Behaviour(NEW, tag=tag)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == NEW
        assert "Range" not in server.requests[1]


def test_a_file_that_shrank_between_two_parts_is_fetched_from_the_start(tmp_path):
    with serving(Behaviour(OLD, tag='"a"', stop_after=3000), Behaviour(NEW[:2000], tag='"b"', if_range=False)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == NEW[:2000]


def test_what_came_from_another_address_is_not_gone_on_with(tmp_path):
    with serving(Behaviour(OLD, tag='"a"', stop_after=3000), Behaviour(OLD, status=404)) as first:
        refused(first.url, tmp_path, "404")
        assert (tmp_path / "archive.partial").stat().st_size == 3000
    with serving(Behaviour(NEW, tag='"a"'), name="mirror.tar.gz") as second:
        assert fetch(second.url, tmp_path).path.read_bytes() == NEW
        assert "Range" not in second.requests[0]
    with serving(Behaviour(OLD), name="third.tar.gz") as third:
        assert fetch(third.url, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize("description", ["", "[]", '{"url": 1}', "null"])
def test_a_part_whose_description_is_damaged_is_fetched_again(tmp_path, description):
    (tmp_path / "archive.partial").write_bytes(NEW[:100])
    (tmp_path / "archive.json").write_text(description)
    with serving(Behaviour(OLD, tag='"a"')) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_promises_more_than_it_has_is_given_up(tmp_path, ranges):
    with serving(Behaviour(OLD, tag='"a"', length=2 * len(OLD), ranges=ranges)) as server:
        refused(server.url, tmp_path, "run the same command later")
        assert len(server.requests) < 10


def test_a_server_that_always_breaks_off_at_the_same_byte_is_given_up(tmp_path):
    with serving(Behaviour(OLD, stop_after=3000)) as server:
        refused(server.url, tmp_path, "broke off")
        assert len(server.requests) == 4


def test_a_silent_server_is_given_up(tmp_path):
    with serving(Behaviour(OLD, tag='"a"', hang_after=3000), Behaviour(OLD, tag='"a"', hang_after=0)) as server:
        refused(server.url, tmp_path, "timed out", timeout=0.2)
    assert (tmp_path / "archive.partial").read_bytes() == OLD[:3000]


def test_a_size_is_not_needed(tmp_path):
    with serving(Behaviour(OLD, chunked=True, stop_after=3000), Behaviour(OLD, chunked=True)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD


@pytest.mark.parametrize("how", [Behaviour(OLD), Behaviour(OLD, chunked=True)])
def test_more_than_the_limit_is_not_fetched(tmp_path, how):
    with serving(how) as server:
        refused(server.url, tmp_path, "not the data set", limit=5000)
    kept = tmp_path / "archive.partial"
    assert not kept.exists() or kept.stat().st_size <= 5000


def test_a_disk_without_room_is_told_before_the_first_byte(tmp_path):
    with serving(Behaviour(OLD, length=2**50)) as server, pytest.raises(UserError, match="the disk has only"):
        fetch(server.url, tmp_path, limit=2**60)
    assert (tmp_path / "archive.partial").stat().st_size == 0


def test_another_size_than_known_is_told_before_the_first_byte(tmp_path):
    with serving(Behaviour(OLD)) as server:
        refused(server.url, tmp_path, "10,240 bytes", "sources.json", size=10_000)
    assert not (tmp_path / "archive.partial").exists()


def test_another_digest_than_known_is_refused_and_the_file_removed(tmp_path):
    with serving(Behaviour(NEW)) as server:
        refused(server.url, tmp_path, hashlib.sha256(OLD).hexdigest(), sha256=hashlib.sha256(OLD).hexdigest())
    assert not (tmp_path / "archive.partial").exists()


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusing_server_is_asked_once(tmp_path, status):
    with serving(Behaviour(OLD, status=status)) as server:
        refused(server.url, tmp_path, str(status))
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "address", ["", "ftp://127.0.0.1/a", "file:///etc/passwd", "gopher://a", "http://", "//", "http://a b/"], ids=repr
)
def test_a_redirect_to_itself_or_to_what_is_not_http_is_refused(tmp_path, address):
    with serving(Behaviour(OLD, redirect=address)) as server:
        refused(server.url, tmp_path)
        assert len(server.requests) < 15


def test_a_redirect_to_http_is_followed(tmp_path):
    with serving(Behaviour(OLD)) as there, serving(Behaviour(b"", redirect=there.url)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD


def test_a_server_that_is_busy_is_asked_again(tmp_path):
    with serving(Behaviour(OLD, status=503), Behaviour(OLD, status=429), Behaviour(OLD)) as server:
        assert fetch(server.url, tmp_path).path.read_bytes() == OLD


def test_without_a_network_the_user_is_told_at_once(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused(f"http://127.0.0.1:{taken.getsockname()[1]}/a", tmp_path, "cannot be reached", "check the network")


@pytest.mark.parametrize(
    "url", ["http://a:b/c", "http://", "http:///a", "http://\u00e9" + "a" * 70 + ".org/", "http://127.0.0.1/a b"]
)
def test_no_address_is_a_sentence(tmp_path, url):
    refused(url, tmp_path)


answers = st.builds(
    lambda content, validators, ranges, if_range, stop_after, chunked: Behaviour(
        content,
        tag=TAGS[content] if "tag" in validators else None,
        date=DATES[content] if "date" in validators else None,
        ranges=ranges,
        if_range=if_range,
        stop_after=stop_after,
        chunked=chunked,
    ),
    content=st.sampled_from([OLD, NEW]),
    validators=st.sets(st.sampled_from(["tag", "date"])),
    ranges=st.booleans(),
    if_range=st.booleans(),
    stop_after=st.integers(0, len(OLD) - 1),
    chunked=st.booleans(),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(answers, max_size=6), last=st.sampled_from([OLD, NEW]))
def test_whatever_breaks_or_changes_the_result_is_one_whole_file(tmp_path_factory, plan, last):
    folder = tmp_path_factory.mktemp("download")
    with serving(*plan, Behaviour(last, tag=TAGS[last])) as server:
        for _ in range(len(plan)):
            with contextlib.suppress(UserError):  # the same command, typed again after it gave up
                fetch(server.url, folder)
        received = fetch(server.url, folder)
        assert received.path.read_bytes() in (OLD, NEW)
        assert received.sha256 == hashlib.sha256(received.path.read_bytes()).hexdigest()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="only POSIX systems have pipes in folders")
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
@pytest.mark.parametrize("name", ["archive", "archive.partial", "archive.json"])
def test_a_pipe_or_folder_among_the_parts_is_a_sentence(tmp_path, make, name):
    make(tmp_path / name)
    with serving(Behaviour(OLD)) as server, pytest.raises(UserError, match=f"{name}: is not a file; remove it"):
        fetch(server.url, tmp_path)
