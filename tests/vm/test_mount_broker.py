"""The server as broker: what it grants, refuses, counts and tells."""
import contextlib
import ctypes
import os
import re
import signal
import time
from errno import EACCES, EDQUOT, EPERM
from pathlib import Path

import pytest

import guest
from broker_fixtures import *  # noqa: F403
from broker_fixtures import SIZE
from dmabuf import Udmabuf
from fuse_server import RELEASE, TOKEN_RELEASE, fork
from places import end_of, wait_until
from token_words import DIRECT, KIB, expect, fails, random_bytes
from uring import Ring

IO_URING_REGISTER = '427 '   # as /proc/PID/syscall shows it


def test_grant_and_end_are_logged_with_what_was_moved(serve, use):
    broker = serve()
    ring, fd, buffer = use(broker.target / 'file')
    assert ring.read_fixed(fd, 0, SIZE, 0) == SIZE
    expect(buffer[0:SIZE], random_bytes(SIZE))
    assert broker.said(r'token (\d+) granted: "(\S+)" uid 0 pid (\d+) size (\d+) exporter (\w+)') == [('1', '/file', str(os.getpid()), str(SIZE), 'udmabuf')]
    ring.unregister(0)
    wait_until(lambda: broker.said('closed'))
    ((number, requests, read, written),) = broker.said(r'token (\d+) closed: .* (\d+) requests, (\d+) bytes read, (\d+) bytes written')
    assert (number, int(read), written) == ('1', SIZE, '0') and int(requests) > 0


def test_user_and_totals_are_counted(serve, use):
    broker = serve()
    use(broker.target / 'file')
    ring, _fd, _buffer = use(broker.target / 'file', 64 * KIB)
    ring.unregister(0)
    wait_until(lambda: broker.said('closed'))
    use(broker.target / 'file', 128 * KIB)
    assert broker.said(r'this user has (\d+) tokens of (\d+) bytes, all users (\d+) of (\d+)') == [
        (str(count), str(size), str(count), str(size)) for count, size in [(1, SIZE), (2, SIZE + 64 * KIB), (2, SIZE + 128 * KIB)]]


@pytest.mark.parametrize('flags, direction', [(os.O_RDONLY, 'read'), (os.O_RDWR, 'read-write')])
def test_direction_is_that_of_the_open(serve, use, flags, direction):
    broker = serve()
    use(broker.target / 'file', flags=flags | os.O_DIRECT)
    assert broker.said('exporter udmabuf, ([a-z-]+);') == [direction]


def test_mount_without_tokens(serve, use):
    broker = serve('tokens=deny')
    with fails(EPERM):
        use(broker.target / 'file')
    assert broker.said('refused: "/file" .*: mounted with tokens=deny')
    assert (broker.target / 'file').read_bytes() == random_bytes(SIZE)


def test_server_in_a_pid_namespace_of_its_own_tells_why_it_refuses_those_outside(serve, use):
    broker = serve(starter=['unshare', '--pid', '--fork'])
    with fails(EACCES):
        use(broker.target / 'file')
    assert broker.said('refused: "/file" .* pid 0 .*: its process is in a PID namespace that the server does not see .start the server in')
    guest.unmount(broker.target, lazy=True)     # ends the server with its last file; by a signal unshare(1) would not


def test_limit_of_bytes(serve, use):
    broker = serve(f'max_bytes={SIZE + 64 * KIB}')
    first, _fd, _buffer = use(broker.target / 'file')
    with fails(EDQUOT):
        use(broker.target / 'file', 128 * KIB)
    use(broker.target / 'file', 64 * KIB)
    first.unregister(0)
    wait_until(lambda: broker.said('closed'))
    use(broker.target / 'file')
    assert len(broker.said('granted')) == 3 and len(broker.said('refused: .*: more than max_bytes')) == 1


def test_tokens_of_a_killed_program_are_given_back(serve):
    broker = serve(f'max_bytes={SIZE}')
    for _ in range(3):
        child = os.fork()
        if not child:
            ring = Ring(flags=0)
            ring.register_dmabuf(0, Udmabuf(SIZE), os.open(broker.target / 'file', DIRECT))
            os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        ended = len(broker.said('granted'))
        wait_until(lambda: len(broker.said('closed')) == ended)
    assert len(broker.said('granted')) == 3


def test_token_of_a_forked_ring_counts_once_and_until_the_last_has_let_it_go(serve, use):
    broker = serve()
    ring, fd, buffer = use(broker.target / 'file')
    wait, go = os.pipe()
    child = fork()
    if not child:
        os.close(go)
        os.read(wait, 1)
        os._exit(0 if ring.read_fixed(fd, 0, SIZE, 0) == SIZE else 1)
    os.close(wait)
    assert broker.status()['all'] == {'tokens': 1, 'bytes': SIZE}
    ring.close()
    buffer.close()
    assert still(lambda: broker.status()['all'], 0.5) == {'tokens': 1, 'bytes': SIZE}
    os.close(go)
    end_of(child)
    wait_until(lambda: broker.status()['all'] == {'tokens': 0, 'bytes': 0})
    # It says so after it has taken it from its books.
    wait_until(lambda: broker.said(r'closed: .* (\d+) bytes read') == [str(SIZE)])


def test_token_of_a_ring_that_was_handed_on_stays_its_makers(serve, use):
    """The kernel passes rings through no socket, but a process may take one from another."""
    broker = serve()
    ring, _fd, buffer = use(broker.target / 'file', uid=1000)
    wait, go = os.pipe()
    parent = os.pidfd_open(os.getpid())
    taken, tell = os.pipe()
    child = fork()
    if not child:
        os.close(go)
        ring_fd = take_descriptor(parent, ring.fd)
        os.closerange(3, min(wait, tell, ring_fd))   # the inherited ring
        os.write(tell, b'x')
        os.read(wait, 1)
        os._exit(0)
    os.close(wait)
    os.close(tell)
    assert os.read(taken, 1) == b'x'
    ring.close()
    buffer.close()
    expected = [{'uid': 1000, 'tokens': 1, 'bytes': SIZE}]
    assert still(lambda: broker.status()['users'], 0.5) == expected
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    wait_until(lambda: broker.status()['all'] == {'tokens': 0, 'bytes': 0} and broker.status()['users'] == [])
    for fd in (go, taken, parent):
        os.close(fd)


def take_descriptor(pidfd, number):
    """pidfd_getfd(2)"""
    fd = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, number, 0)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


def still(look, seconds):
    """What it is after that time, if it has not changed."""
    first = look()
    time.sleep(seconds)
    assert look() == first
    return first


@contextlib.contextmanager
def requests_of(target):
    """What becomes of requests to the server of a mount: [(event, opcode)] so far, in this order."""
    instance = guest.TRACING / 'instances/requests'
    instance.mkdir()
    (instance / 'trace_clock').write_text('counter')   # the same on all processors
    for event in ('send', 'end'):
        directory = instance / f'events/fuse/fuse_request_{event}'
        (directory / 'filter').write_text(f'connection == {os.minor(os.stat(target).st_dev)}')
        (directory / 'enable').write_text('1')

    def look():
        opcodes, seen = {}, []
        for event, number, opcode in re.findall(r'fuse_request_(\w+): connection \d+ req (\d+)(?: opcode (\d+))?', (instance / 'trace').read_text()):
            if event == 'send':
                opcodes[number] = int(opcode)
            if number in opcodes:
                seen.append((event, opcodes[number]))
        return seen

    try:
        yield look
    finally:
        instance.rmdir()


@pytest.mark.parametrize('by_uring', [False, True], ids=['read', 'by io_uring'])
def test_end_of_a_token_is_answered_before_that_of_its_file_is_sent(serve, by_uring, request):
    """Queues keep no order between them."""
    request.addfinalizer(lambda: guest.offer_io_uring(request.config.getoption('--requests') == 'io_uring'))
    guest.offer_io_uring(by_uring)
    broker = serve('tokens=allow,log=info')
    wait_until(lambda: bool(broker.said('requests come by io_uring')) == by_uring)
    with Ring(flags=0) as ring, Udmabuf(64 * KIB) as buffer:
        fd = os.open(broker.target / 'file', DIRECT)
        ring.register_dmabuf(0, buffer, fd)
        os.close(fd)
        with requests_of(broker.target) as seen:
            broker.process.send_signal(signal.SIGSTOP)
            ring.unregister(0)
            wait_until(lambda: ('send', TOKEN_RELEASE) in seen())
            time.sleep(0.5)   # whoever did not wait for the answer would send the end of the file by now
            broker.process.send_signal(signal.SIGCONT)
            wait_until(lambda: ('end', RELEASE) in seen())
            assert [what for what in seen() if what[1] in (TOKEN_RELEASE, RELEASE)] == [
                ('send', TOKEN_RELEASE), ('end', TOKEN_RELEASE), ('send', RELEASE), ('end', RELEASE)]


def test_program_killed_while_it_waits_for_the_answer(serve, use):
    """The request is answered after its file is closed: refused, or granted and given back; the server goes on."""
    broker = serve()
    for _ in range(3):
        fd = os.open(broker.target / 'file', DIRECT)
        broker.process.send_signal(signal.SIGSTOP)
        child = os.fork()
        if not child:
            ring = Ring(flags=0)
            ring.register_dmabuf(0, Udmabuf(SIZE), fd)
        wait_until(lambda: Path(f'/proc/{child}/syscall').read_text().startswith(IO_URING_REGISTER))
        time.sleep(0.1)   # it has registered its table of buffers before
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(fd)
        broker.process.send_signal(signal.SIGCONT)
        wait_until(lambda: len(broker.said('granted')) == len(broker.said('closed|not used|withdrawn')))
    use(broker.target / 'file')
    assert broker.said(r'this user has (\d+) tokens')[-1] == '1'


def test_many_programs_at_the_same_time(serve):
    broker = serve()
    children = []
    for _ in range(4):
        children.append(os.fork())
        if not children[-1]:
            try:
                fd, ring = os.open(broker.target / 'file', DIRECT), Ring(flags=0)
                for i in range(20):
                    ring.register_dmabuf(i % 8, Udmabuf(4096 * (i + 1)), fd)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    wait_until(lambda: len(broker.said('closed')) == 80)
    broker.end()
    assert len(broker.said('granted')) == 80 and not broker.said('ended with the mount')
