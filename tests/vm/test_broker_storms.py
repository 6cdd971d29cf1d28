"""Many things at the same time, and ends at the wrong moment: the server killed, programs killed, revocations against registrations.

`--storm N` does N times as much.
"""
import contextlib
import mmap
import os
import random
import signal
import socket
import struct
import time
from errno import EACCES, EBADF, ECANCELED, ECONNABORTED, EDQUOT, EIO, ENOTCONN, ESTALE

import pytest

import guest
from broker_fixtures import *  # noqa: F403
from broker_fixtures import SIZE
from dmabuf import Udmabuf
from fuse_server import fork
from places import end_of, wait_until
from token_words import DIRECT, KIB, attachments, expect, random_bytes, wait_for
from uring import READ_FIXED, Ring

# Done as often as was asked for.
pytestmark = pytest.mark.timeout(36000)

# What a token, or the wish for one, may end with.
ENDS = {ESTALE, ENOTCONN, ECONNABORTED, ECANCELED, EDQUOT, EACCES, EBADF, EIO}


# Seconds: one, or three where the kernel has all its checks on. Usually it is a third of one.
SOON = 3 if os.path.exists('/sys/kernel/debug/kmemleak') else 1


@pytest.fixture
def times(request):
    """times(n): n, or as many times more as --storm says."""
    return lambda n: n * request.config.getoption('--storm')


def in_child(function):
    """Runs it in a process of its own; what tokens end with ends it well."""
    child = fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        except OSError as error:
            status = 0 if error.errno in ENDS else 2
        finally:
            os._exit(status)
    return child


DEPTH = 8


def read_until_it_fails(ring, buffer, path, count=lambda number: None):
    """Eight requests in flight, and what they brought compared. `count` is told how many were done."""
    fd, content = os.open(path, DIRECT), random_bytes(SIZE)
    try:
        ring.register_dmabuf(0, buffer, fd)
        while True:
            for i in range(DEPTH):
                ring.prepare(READ_FIXED, fd, i * 64 * KIB, 64 * KIB, i * 64 * KIB)
            ring.submit()
            results = list(ring.wait_all(DEPTH).values())
            count(sum(result >= 0 for result in results))
            if min(results) < 0:
                raise OSError(-min(results), os.strerror(-min(results)))
            expect(buffer[0:512 * KIB], content[:512 * KIB])
    finally:
        # Closing tells the server, which may be gone.
        for end in (lambda: ring.unregister(0), lambda: os.close(fd)):
            with contextlib.suppress(OSError):
                end()


def read_for_ever(path):
    with Ring(flags=0) as ring, Udmabuf(512 * KIB) as buffer:
        read_until_it_fails(ring, buffer, path)


def register_and_read_and_unregister(path, seconds, uid=0, wait=lambda: None):
    """In a hurry; a token that is taken away, or refused, is asked for again."""
    fd, buffer, content = os.open(path, DIRECT), Udmabuf(64 * KIB), random_bytes(SIZE)
    with Ring(flags=0) as ring:
        wait()
        end = time.monotonic() + seconds
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        while time.monotonic() < end:
            slot = random.randrange(8)
            try:
                ring.register_dmabuf(slot, buffer, fd)
                for _ in range(random.randrange(3)):
                    assert ring.read_fixed(fd, 0, 64 * KIB, 64 * KIB, slot) == 64 * KIB
                    expect(buffer[0:64 * KIB], content[64 * KIB:128 * KIB])
            except OSError as error:
                if error.errno not in ENDS:
                    raise
            if random.randrange(2):
                with contextlib.suppress(OSError):
                    ring.unregister(slot)


class Readers:
    """Processes that read whenever they are told to, until that fails. Starting them anew for each server would take longer than all the rest."""

    def __init__(self, number):
        self.done = mmap.mmap(-1, 8 * number)   # by each: shared with them
        self.channels, self.children = [], []
        for i in range(number):
            ours, theirs = socket.socketpair()
            self.children.append(in_child(lambda i=i, ours=ours, theirs=theirs: self._serve(i, ours, theirs)))
            theirs.close()
            self.channels.append(ours)

    def _serve(self, number, ours, theirs):
        for channel in (*self.channels, ours):
            channel.close()

        def count(requests):
            done, = struct.unpack_from('=Q', self.done, 8 * number)
            struct.pack_into('=Q', self.done, 8 * number, done + requests)
        with Ring(flags=0) as ring, Udmabuf(512 * KIB) as buffer:
            while path := theirs.recv(4096):
                try:
                    read_until_it_fails(ring, buffer, path.decode(), count)
                except OSError as error:
                    if error.errno not in ENDS:
                        raise
                theirs.send(b'.')

    def start(self, path):
        for channel in self.channels:
            channel.send(os.fsencode(path))

    def wait_for_failure(self):
        for channel in self.channels:
            channel.settimeout(20)
            assert channel.recv(1) == b'.'

    def requests(self):
        return sum(struct.unpack(f'={len(self.channels)}Q', self.done))

    def end(self):
        for channel in self.channels:
            channel.close()
        end_of(*self.children)


@pytest.fixture
def readers():
    readers = Readers(3)
    yield readers
    readers.end()


@contextlib.contextmanager
def idle_token(path):
    """A token that nobody uses: read(), which does it once, tells whether it is alive."""
    fd = os.open(path, DIRECT)
    with Ring(flags=0, inherited=True) as ring, Udmabuf(64 * KIB) as buffer:
        ring.register_dmabuf(0, buffer, fd)
        yield lambda: ring.read_fixed(fd, 0, 4096, 0)
    with contextlib.suppress(OSError):
        os.close(fd)


def test_server_killed_again_and_again_under_load(readers, serve, times):
    """
    Its tokens end with it, also those that nobody uses: whoever has waited for the process finds none alive, unless requests came by io_uring: then some
    milliseconds later. What was read after that is what was on its way to be counted. And within a second nothing is left of them.
    """
    target = None
    for _ in range(times(12)):
        broker = serve(target=target)
        target, before = broker.target, readers.requests()
        readers.start(target / 'file')
        wait_until(lambda: readers.requests() >= before + 3 * DEPTH and len(broker.said('granted')) == 3, pause=0.005)
        time.sleep(random.random() / 10)
        with idle_token(target / 'file') as read:
            killed = time.monotonic()
            broker.kill()
            at_the_end = readers.requests()
            with pytest.raises(OSError) as error:
                read()
                while guest.io_uring_is_offered() and time.monotonic() - killed < SOON:
                    at_the_end = readers.requests()
                    read()
            assert error.value.errno in ENDS
            readers.wait_for_failure()
            assert attachments() <= 1   # of the idle one, which has its buffer still
        wait_until(lambda: not attachments(), pause=0.005)
        assert time.monotonic() - killed < SOON
        assert readers.requests() - at_the_end <= 3 * DEPTH
        assert len(broker.said('granted')) == 4
        broker.end()


@contextlib.contextmanager
def starting_together():
    """What this gives is waited for by processes that are started now, until all of them are."""
    waiting, holding = os.pipe()

    def wait():
        os.close(holding)
        os.read(waiting, 1)
    yield wait
    os.close(holding)
    os.close(waiting)


def kill_at_the_end_of(lives, path):
    """Starts a program for each life, and kills it soon after that is over: some are still at work then, others on their way out. How they ended."""
    with starting_together() as wait:
        children = {in_child(lambda seconds=seconds: register_and_read_and_unregister(path, seconds, wait=wait)): seconds for seconds in lives}
    began = time.monotonic()
    for child, seconds in sorted(children.items(), key=lambda item: item[1]):
        time.sleep(max(0, began + seconds + random.random() * 2 - time.monotonic()))
        os.kill(child, signal.SIGKILL)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def test_programs_killed_at_random(serve, times):
    broker = serve()
    random.seed(1)
    for _ in range(times(1)):
        ends = kill_at_the_end_of([random.random() * 3 for _ in range(64)], broker.target / 'file')
        assert set(ends) <= {0, -signal.SIGKILL}
        wait_until(lambda: broker.status()['all']['tokens'] == 0)
    assert broker.tokens() == [] and broker.status()['users'] == []
    wait_for(lambda: not attachments())
    assert not broker.said('ignored')


def test_revocations_against_registrations(serve, times):
    broker = serve()
    seconds = times(3)
    revoked, ways = 0, [{'all': True}, {'path': '/'}, {'uid': 0}]
    for _round in range(10):
        children = [in_child(lambda: register_and_read_and_unregister(broker.target / 'file', seconds)) for _ in range(4)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = broker.ask(command='revoke', **random.choice(ways))
            assert answer['ok'], answer
            revoked += answer['revoked']
        end_of(*children)
        if revoked > 20:   # on a busy machine it takes more rounds
            break
    assert revoked > 20
    wait_until(lambda: broker.tokens() == [])
    assert broker.status()['all'] == {'tokens': 0, 'bytes': 0}
    assert not broker.said('should be revoked and is not') and not broker.said('ignored')


def test_permissions_that_come_and_go_against_registrations(serve, times):
    """At the end nobody has a token whose owner may not have one."""
    broker = serve()
    seconds = times(3)
    (broker.target / 'file').chmod(0o666)
    children = [in_child(lambda: register_and_read_and_unregister(broker.target / 'file', seconds, uid=1000)) for _ in range(3)]
    wait_until(lambda: len(broker.said('granted')) >= 3)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        (broker.target / 'file').chmod(0o600)
        assert [token for token in broker.tokens() if not token['revoked']] == []
        (broker.target / 'file').chmod(0o666)
        time.sleep(0.02)
    end_of(*children)
    wait_until(lambda: broker.tokens() == [])
    assert broker.said('token .* is revoked: .* the permissions of the file')


def test_unmount_while_clients_revoke(serve):
    broker = serve()
    reader = in_child(lambda: read_for_ever(broker.target / 'file'))
    wait_until(lambda: broker.said('granted'))
    with broker.connect() as client:
        client.sendall(b'{"command":"revoke","all":true}\n')
        broker.end()
    end_of(reader)
    assert broker.process.returncode == 0
