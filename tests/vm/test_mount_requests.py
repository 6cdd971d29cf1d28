"""How requests come to the server: it reads them from /dev/fuse, or they come by io_uring where the kernel offers that. All other tests of the mount
can be run either way (--requests)."""
import os
import random
import signal
import struct
import time
from pathlib import Path

import pytest

import guest
from broker_fixtures import Broker
from fuse_server import fork
from places import wait_until

PROCESSORS = os.cpu_count()
BY_URING = f'requests come by io_uring, by {PROCESSORS} queues'
DISABLED = Path('/proc/sys/kernel/io_uring_disabled')


@pytest.fixture
def serve(ext4, tmp_path, request):
    """serve(by_uring): a server in the foreground of the directory .source on .target."""
    servers, target = [], tmp_path / 'target'
    target.mkdir()

    def start(by_uring, starter=()):
        guest.offer_io_uring(by_uring)
        servers.append(Broker(ext4, target, tmp_path / 'log', 'log=info', starter))
        return servers[-1]

    yield start
    guest.offer_io_uring(request.config.getoption('--requests') == 'io_uring')
    for server in servers:
        server.end()


def affinities(server):
    return [os.sched_getaffinity(int(thread)) for thread in os.listdir(f'/proc/{server.process.pid}/task')]


def on_processor(number, function):
    """A process that runs there, and says whether function() was true."""
    child = fork()
    if not child:
        status = 1
        try:
            os.sched_setaffinity(0, {number})
            status = not function()
        finally:
            os._exit(status)
    return child


def has_ended(child, *statuses):
    ended, how = os.waitpid(child, os.WNOHANG)
    assert not ended or os.waitstatus_to_exitcode(how) in (statuses or [0])
    return bool(ended)


@pytest.mark.parametrize('by_uring', [False, True], ids=['read', 'by io_uring'])
def test_whether_requests_are_read(serve, by_uring, trace):
    server = serve(by_uring)
    with guest.returns_of('fuse_dev_read') as returns, trace(returns) as read:
        for i in range(200):
            assert not os.path.exists(server.target / f'absent-{i}')
    assert (read.hits < 100) == by_uring
    assert bool(server.said(BY_URING)) == by_uring


def test_each_processor_has_threads_of_its_own(serve):
    server = serve(True)
    wait_until(lambda: server.said(BY_URING))
    for number in range(PROCESSORS):
        assert {number} in affinities(server)


def test_a_server_that_was_bound_stays_where_it_is(serve):
    server = serve(True, ['taskset', '-c', '0'])
    wait_until(lambda: server.said(BY_URING))
    assert all(affinity == {0} for affinity in affinities(server))
    end = on_processor(1, lambda: (server.target / 'file').write_text('x'))
    wait_until(lambda: has_ended(end))


def test_where_io_uring_is_forbidden_requests_are_read(serve):
    before = DISABLED.read_text()
    DISABLED.write_text('2')
    try:
        server = serve(True)
        (server.target / 'file').write_text('x')
    finally:
        DISABLED.write_text(before)
    assert server.said('no io_uring, requests are read: Operation not permitted') and not server.said(BY_URING)
    assert (server.source / 'file').read_text() == 'x'


def test_requests_that_wait_keep_no_others_of_their_processor_waiting(serve, filesystems):
    """Each in a directory of its own: in one the kernel lets only one create something."""
    server, root = serve(True), filesystems.hold('ext4')
    (server.source / 'old').write_text('x')
    for i in range(3 * PROCESSORS):
        (server.source / f'{i}').mkdir()
    guest.run('fsfreeze', '--freeze', root)
    try:
        waiting = [on_processor(0, lambda i=i: (server.target / f'{i}/new').write_text('x')) for i in range(3 * PROCESSORS)]
        other = on_processor(0, lambda: os.stat(server.target / 'old').st_size == 1 and len(os.listdir(server.target)) == 1 + len(waiting))
        wait_until(lambda: has_ended(other), seconds=20)
        assert not any(has_ended(child) for child in waiting)
    finally:
        guest.run('fsfreeze', '--unfreeze', root)
    for child in waiting:
        wait_until(lambda child=child: has_ended(child))
    assert len(list(server.source.glob('*/new'))) == len(waiting)


def idle_and_waiting():
    """Clock ticks in which processors had nothing to do, and in which they are said to have waited for a disk."""
    words = Path('/proc/stat').read_text().split()
    return int(words[4]), int(words[5])


def test_a_server_with_nothing_to_do_does_not_wait_for_a_disk(serve):
    server = serve(True)
    os.listdir(server.target)
    idle, waiting = idle_and_waiting()
    time.sleep(3)
    idle_then, waiting_then = idle_and_waiting()
    assert waiting_then - waiting < (idle_then - idle) / 4


@pytest.mark.parametrize('by', [signal.SIGTERM, signal.SIGKILL])
def test_no_request_outlives_the_server(serve, by):
    """Programs on all processors ask all the time; each is told that the server has gone."""
    server = serve(True)

    def ask():
        try:
            while True:
                os.path.exists(server.target / 'x') or os.stat(server.target)
        except OSError:
            return True

    programs = [on_processor(number, ask) for number in range(PROCESSORS)]
    time.sleep(0.5)
    server.process.send_signal(by)
    server.process.wait(20)
    server.ended = True
    if by == signal.SIGTERM:
        # It was unmounted lazily: whoever had no request on its way sees the directory below from now on.
        for child in programs:
            os.kill(child, signal.SIGKILL)
            wait_until(lambda child=child: has_ended(child, 0, -signal.SIGKILL))
        assert server.process.returncode == 0 and not os.path.ismount(server.target)
    else:
        for child in programs:
            wait_until(lambda child=child: has_ended(child), seconds=20)
        guest.unmount(server.target)


@pytest.mark.parametrize('by_uring', [False, True], ids=['read', 'by io_uring'])
def test_what_was_done_before_the_server_ended_is_told(serve, by_uring):
    """Programs make directories until they are told that the server has gone: all that there are were answered."""
    def make(path, told):
        root, made = os.open(path, os.O_PATH), 0
        try:
            while True:
                os.mkdir(f'{os.getpid()}-{made}', dir_fd=root)
                made += 1
        except OSError:
            return os.write(told, struct.pack('=Q', made))

    for _ in range(8):
        server, programs = serve(by_uring), []
        for number in range(PROCESSORS):
            read, write = os.pipe()
            programs.append((on_processor(number, lambda write=write, path=server.target: make(path, write)), read))
            os.close(write)
        time.sleep(random.random() / 5)
        server.end()
        for child, told in programs:
            wait_until(lambda child=child: has_ended(child))
            assert len(list(server.source.glob(f'{child}-*'))) == struct.unpack('=Q', os.read(told, 8))[0]
            os.close(told)
