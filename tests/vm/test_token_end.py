"""Tokens that end while the server, the exporter or the client does something else: in the right order, and nobody waits for ever."""

import contextlib
import os
import signal
import struct
import threading
import time
from errno import EIO, ENOMEM, ETIMEDOUT

import pytest

import fuse_server
import guest
from faults import overridden
from fuse_server import OPEN, RELEASE, REVOKED, TOKEN_CREATE, TOKEN_RELEASE, FuseServer, fork
from test_token_broker import aborted, connection, killed
from token_fixtures import *  # noqa: F403
from token_words import KIB, Target, data_on_ext4, expect_untouched, fails, opened, read_and_compare, wait_for
from uring import Ring

PLACES = 16  # for background requests, as the scripted server asks for


# A server that is silent


def ask_and_die(server, buffer, fd, count, read):
    """So many clients ask for a token, and are killed when the server has read at least some of their questions."""
    before, pids = len(server.creates()), []
    with Ring(flags=0, inherited=True) as ring:
        for _ in range(-(-count // 10)):
            pid = fork()
            if not pid:
                for _ in range(10):
                    threading.Thread(target=ring.register_dmabuf, args=(0, buffer, fd)).start()
                signal.pause()
            pids.append(pid)
        wait_for(lambda: len(server.creates()) - before >= read)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)


def test_questions_that_are_never_answered_hold_up_nothing_else(serve, udmabuf):
    """Neither closing files, nor ordinary reads, nor who asks next."""
    server, target = serve(fuse_server.no_answer)
    ask_and_die(server, udmabuf, target.fd, 20, read=PLACES)
    os.close(os.open(target.path, os.O_RDONLY))
    wait_for(lambda: server.requests(RELEASE))
    ask_and_die(server, udmabuf, target.fd, 1, read=1)


def test_a_server_that_owes_too_many_answers_is_not_asked(serve, udmabuf):
    server, target = serve(fuse_server.no_answer)
    ask_and_die(server, udmabuf, target.fd, 70, read=70)
    asked = len(server.creates())
    with Ring() as ring:
        started = time.monotonic()
        with fails(ETIMEDOUT):
            ring.register_dmabuf(0, udmabuf, target.fd)
        assert time.monotonic() - started < 5
    assert len(server.creates()) == asked


# A server that is late to answer the end of a token


@pytest.fixture
def owing(ext4, tmp_path):
    """The server, and a file of its mount."""
    path, content = data_on_ext4(ext4)
    (tmp_path / "fuse").mkdir()
    with FuseServer(ext4, tmp_path / "fuse", owing=[TOKEN_RELEASE]) as server:
        target = Target(server.path(path.name), content)
        yield server, target
        target.close()


def register_and_unregister(ring, buffer, target):
    """The end of the token is what lets the file go."""
    ring.register_dmabuf(0, buffer, target.fd)
    read_and_compare(ring, target, buffer, (0, 64 * KIB, 0))
    target.close()
    ring.unregister(0)


def handles(requests):
    return [struct.unpack_from("=Q", request.body)[0] for request in requests]


def test_the_end_of_a_file_is_told_when_that_of_its_token_is_answered(owing, moving, ring):
    """Not before, as requests may come by several queues. Meanwhile the file can be opened anew, and have tokens."""
    server, target = owing
    register_and_unregister(ring, moving, target)
    register_and_unregister(ring, moving, Target(target.path, target.content))
    wait_for(lambda: len(server.releases()) == 2, ring)
    os.close(os.open(target.path, os.O_RDONLY))
    wait_for(lambda: server.requests(RELEASE))
    with_tokens = [token.fh for token in server.creates()]
    assert set(handles(server.requests(RELEASE))).isdisjoint(with_tokens)
    server.answer_owed()
    wait_for(lambda: len(server.requests(RELEASE)) == 3)
    assert handles(server.requests(RELEASE))[1:] == with_tokens


def test_a_mount_is_not_busy_while_the_end_of_a_token_is_not_answered(owing, moving, ring):
    server, target = owing
    register_and_unregister(ring, moving, target)
    server.unmount(lazy=False)
    guest.run("mount", "-t", "tmpfs", "tmpfs", server.mountpoint)  # for the server's own unmount


def unmounted(server):
    server.unmount()
    guest.run("mount", "-t", "tmpfs", "tmpfs", server.mountpoint)


@pytest.mark.parametrize("end", [killed, aborted, unmounted])
def test_a_connection_that_ends_without_that_answer(owing, moving, ring, end):
    """Nobody waits for it any more, and nothing stays."""
    server, target = owing
    register_and_unregister(ring, moving, target)
    wait_for(server.releases, ring)
    waiting = connection(server, "waiting")
    assert waiting.read_text() == "1\n"
    end(server)
    wait_for(lambda: not waiting.exists() or waiting.read_text() == "0\n")
    assert server.requests(RELEASE) == []
    assert moving.stats.attaches == moving.stats.detaches == 1


# A token that is revoked while its client goes


@contextlib.contextmanager
def beside(trace, event, function, *arguments):
    """A thread calls the function, and has come to the event; tells whether it still runs."""
    thread = threading.Thread(target=function, args=arguments)
    with trace(event) as seen:
        thread.start()
        wait_for(lambda: seen.update().hits)
    try:
        yield thread.is_alive
    finally:
        thread.join()


@contextlib.contextmanager
def mapped_slowly_for_another(moving, server, trace, seconds=4):
    """Its exporter holds its lock, and the map of the token is there: the other token is for reads only, and needs a map of its own."""
    moving.delay_map(seconds * 1000)
    with opened(f"{server.source}/data", os.O_RDONLY | os.O_DIRECT) as fd, Ring(flags=0) as other:
        try:
            with beside(trace, "dmabuf_token:dmabuf_token_create", other.register_dmabuf, 0, moving, fd) as still:
                yield still
        finally:
            moving.delay_map(0)
    wait_for(lambda: moving.stats.detaches >= 1)


def test_the_file_stays_open_until_the_end_of_the_token_is_told(ring, serve, moving, trace):
    """The server revokes a token, which takes a while, as the exporter holds its lock. Meanwhile the client lets go of everything."""
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    target.close()  # now: closing asks the server, which is going to be busy
    with mapped_slowly_for_another(moving, server, trace) as still:
        server.revoke_all()
        time.sleep(1)
        ring.unregister(0)
        assert still(), "it was too slow"
    wait_for(lambda: server.requests(RELEASE))
    assert [request.opcode for request in server.requests()] == [OPEN, TOKEN_CREATE, TOKEN_RELEASE, RELEASE]
    (release,) = server.releases()
    assert release.reason == REVOKED


def test_a_token_that_the_server_revokes(ring, serve, moving, trace):
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    read_and_compare(ring, target, moving, (0, 64 * KIB, 0))
    moving.fill()
    with trace("dmabuf_token:dmabuf_token_revoke") as revoked:
        for _ in range(2):
            server.revoke_all()
            wait_for(lambda: moving.stats.maps == moving.stats.unmaps)
        ring.unregister(0)
        wait_for(server.releases, ring)
    assert revoked.hits == 1
    expect_untouched(moving)


def locked(moving, trace, seconds=4):
    """Its exporter moves it, and keeps the lock; tells whether it still does."""
    return beside(trace, "dmabuf_token:dmabuf_map_invalidate", moving.move, seconds * 1000)


@pytest.mark.parametrize("end", [killed, aborted])
def test_the_end_of_a_connection_waits_for_no_exporter(serve, moving, ring, trace, end):
    """Also when the client lets go of the token while the connection ends, which then has the last reference."""
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    target.close()
    ending = threading.Thread(target=end, args=(server,))
    with locked(moving, trace) as still, overridden("dmabuf_token_revoke", delay_ms=20000) as revoke:
        ending.start()
        wait_for(revoke.hits)
        ring.unregister(0)
        revoke.let_go()
        ending.join()
        ended_in_time = still()
    assert ended_in_time
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches == 1)


def test_a_server_that_waits_for_an_exporter_can_be_killed(serve, moving, ring, trace):
    """Also when the client has let go of the token that it revokes, so that it has the last reference."""
    server, target = serve()
    ring.register_dmabuf(0, moving, target.fd)
    target.close()
    with mapped_slowly_for_another(moving, server, trace) as still:
        with trace("dmabuf_token:dmabuf_token_revoke") as revoked:
            server.revoke_all()
            wait_for(lambda: revoked.update().hits)
        ring.unregister(0)
        server.kill()
        ended_in_time = still()
    assert ended_in_time
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches == 2)


# What is traced


def test_events_come_in_pairs_also_when_a_token_cannot_be_created(ring, file, moving, trace):
    with (
        trace("dmabuf_token:dmabuf_token_create") as created,
        trace("dmabuf_token:dmabuf_token_release") as released,
        trace("dmabuf_token:dmabuf_token_revoke") as revoked,
    ):
        for number in ENOMEM, EIO:
            moving.fail_map(1, number)
            with fails(number):
                ring.register_dmabuf(0, moving, file.fd)
        ring.register_dmabuf(0, moving, file.fd)
        ring.unregister(0)
        wait_for(lambda: moving.stats.detaches == 3, ring)
    assert (created.hits, released.hits, revoked.hits) == (3, 3, 0)


# The list in the control filesystem


def test_the_list_of_tokens_is_read_in_pieces(serve, little):
    """Each token once, also when some end between two pieces."""
    server, target = serve()
    count = 200
    with Ring(slots=count) as ring:
        for slot in range(count):
            ring.register_dmabuf(slot, little, target.fd)
        numbers = [token.token for token in server.creates()]
        path = connection(server, "dmabuf_tokens")
        assert listed(path) == numbers
        with open(path, "rb", buffering=0) as file:
            first = file.read(4096)
            for slot in range(0, count, 2):
                ring.unregister(slot)
            wait_for(lambda: len(server.releases()) == count // 2, ring)
            rest = file.read(1 << 20) + file.read(1 << 20)
            while piece := file.read(1 << 20):
                rest += piece
        found = tokens_of(first + rest)
        assert len(set(found)) == len(found) < count
        assert set(numbers[1::2]) <= set(found)


def listed(path):
    with open(path, "rb") as file:
        return tokens_of(file.read())


def tokens_of(text):
    return [int(line.split()[0].removeprefix(b"token=")) for line in text.splitlines()]
