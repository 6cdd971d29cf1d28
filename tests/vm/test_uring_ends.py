"""Cancelled, closed, replaced, handed to others: requests end once, and nothing of them stays."""

import ctypes
import os
import signal
import socket
import struct
import traceback
from errno import EALREADY, EBADF, ECANCELED, EINTR, EINVAL, ENOENT

import pytest

from fuse_server import fork
from token_fixtures import *  # noqa: F403
from token_words import BUFFER_SIZE, expect, fails, on_disk, opened, read_and_compare, wait_for
from uring import (
    ASYNC_CANCEL, CANCEL_ALL, CANCEL_FD, IOPOLL, IOSQE_ASYNC, IOSQE_IO_LINK, LINK_TIMEOUT, READ_FIXED, SINGLE_ISSUER, Ring,
    Timespec,
)  # fmt: skip
from uring_words import DEPTH, SIZE, Transfer, both_ways, buffer_is_free, every_ring

CANCELLED = (-ECANCELED, -EINTR)
PIDFD_GETFD = 438
raw_and_fuse = pytest.mark.parametrize("target", ["raw", "fuse"], indirect=True)


# Cancellation


@both_ways
@every_ring
def test_cancelled_requests_end_once(target, moving, flags, opcode):
    """While the exporter delays the map, so that some wait for it, and others for those."""
    with Ring(2 * DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(opcode, target, moving)
        moving.delay_map(300)
        moving.move()
        numbers = transfer.start(ring)
        ring.cancel_all(target.fd)
        transfer.finish_some(ring, numbers, *CANCELLED)
        moving.delay_map(0)
        assert ring.read_fixed(target.fd, 0, SIZE, target.base) == SIZE
        ring.unregister(0)
        buffer_is_free(moving, ring)


@both_ways
@raw_and_fuse
def test_cancellation_by_a_request(target, moving, opcode):
    with Ring(2 * DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(opcode, target, moving)
        for _ in range(3):
            numbers = transfer.start(ring, flags=IOSQE_ASYNC)
            cancel = ring.prepare(ASYNC_CANCEL, target.fd, op_flags=CANCEL_ALL | CANCEL_FD)
            ring.submit()
            results = ring.wait_all(DEPTH + 1)
            found = results.pop(cancel)
            assert found >= 0 or found in (-ENOENT, -EALREADY)
            assert set(results.values()) <= {SIZE, *CANCELLED}
            transfer.check([numbers[number] for number, result in results.items() if result == SIZE])
        assert ring.nop() == 0


@raw_and_fuse
def test_a_request_with_a_time_limit(target, moving):
    """The limit passes while the exporter delays the map: the request fails, or succeeds late, but ends."""
    with Ring() as ring:
        ring.register_dmabuf(0, moving, target.fd)
        moving.delay_map(500)
        moving.move()
        moving.fill()
        limit = Timespec(0, 50_000_000)
        read = ring.prepare(READ_FIXED, target.fd, 0, SIZE, target.base, flags=IOSQE_IO_LINK)
        ring.prepare(LINK_TIMEOUT, addr=ctypes.addressof(limit), length=1)
        ring.submit()
        result = ring.wait_all(2)[read]
        assert result in (SIZE, *CANCELLED)
        moving.delay_map(0)
        read_and_compare(ring, target, moving, (0, SIZE, 0))


# The ring, the slot


@both_ways
@every_ring
def test_ring_closed_with_requests_in_flight(target, moving, flags, opcode):
    ring = Ring(DEPTH, flags)
    ring.register_dmabuf(0, moving, target.fd)
    transfer = Transfer(opcode, target, moving)
    transfer.start(ring)
    ring.close()
    os.close(target.fds.pop())
    wait_for(lambda: moving.stats.detaches == 1)
    transfer.check([])
    buffer_is_free(moving)


@every_ring
def test_ring_closed_while_the_map_is_delayed(target, moving, flags):
    ring = Ring(DEPTH, flags)
    ring.register_dmabuf(0, moving, target.fd)
    moving.delay_map(300)
    moving.move()
    Transfer(READ_FIXED, target, moving).start(ring)
    ring.close()
    buffer_is_free(moving)


@both_ways
@every_ring
def test_slot_replaced_with_requests_in_flight(target, moving, udmabuf, flags, opcode):
    """What was submitted belongs to the old buffer, what follows to the new one."""
    with Ring(2 * DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        first = Transfer(opcode, target, moving)
        numbers = first.start(ring)
        wait_for(lambda: not ring.unsubmitted())
        ring.register_dmabuf(0, udmabuf, target.fd)
        first.finish(ring, numbers)
        target.content = on_disk(target, BUFFER_SIZE)
        second = Transfer(opcode, target, udmabuf)
        second.finish(ring, second.start(ring))
        buffer_is_free(moving, ring)


@both_ways
@every_ring
def test_buffers_unregistered_with_requests_in_flight(target, moving, flags, opcode):
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(opcode, target, moving)
        numbers = transfer.start(ring)
        wait_for(lambda: not ring.unsubmitted())
        ring.unregister_all()
        transfer.finish(ring, numbers)
        buffer_is_free(moving, ring)


# Other processes


def send_ring(channel, ring, *files):
    channel.send(struct.pack("=3i", os.getpid(), ring.fd, *files) + ring.params)


def receive_ring(channel):
    """By pidfd_getfd(): the kernel does not pass rings through sockets."""
    message = channel.recv(4096)
    pid, *numbers = struct.unpack_from("=3i", message)
    pidfd = os.pidfd_open(pid)
    libc = ctypes.CDLL(None, use_errno=True)
    ring, file = (libc.syscall(PIDFD_GETFD, pidfd, number, 0) for number in numbers)
    assert ring >= 0 and file >= 0, os.strerror(ctypes.get_errno())
    return Ring.received(ring, message[12:]), file


def start_child(function):
    """Forks before there is any ring; the child gets one end of a socket. Returns (pid, our end)."""
    ours, theirs = socket.socketpair()
    pid = fork()
    if pid:
        theirs.close()
        return pid, ours
    status = 1
    try:
        ours.close()
        function(theirs)
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def ended_well(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_ring_does_not_go_through_sockets(ring):
    ours, theirs = socket.socketpair()
    with ours, theirs, fails(EINVAL):
        socket.send_fds(ours, [b"x"], [ring.fd])


@raw_and_fuse
def test_a_ring_passed_to_another_process(target, moving):
    """It may use the token with the same open file, and with no other."""

    def use(channel):
        ring, fd = receive_ring(channel)
        assert ring.read_fixed(fd, 0, SIZE, target.base) == SIZE
        assert ring.write_fixed(fd, 0, SIZE, target.base + SIZE) == SIZE
        with opened(target.path) as again, fails(EBADF):
            ring.read_fixed(again, 0, SIZE, target.base)

    pid, channel = start_child(use)
    with channel, Ring(flags=0) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        moving.fill()
        send_ring(channel, ring, target.fd)
        ended_well(pid)
        expect(moving[:SIZE], target.content[:SIZE])
        expect(on_disk(target, SIZE, SIZE), target.content[:SIZE])
        ring.unregister(0)
        buffer_is_free(moving, ring)


@raw_and_fuse
def test_a_ring_that_its_maker_has_closed(target, moving):
    """Who has received it keeps the token; when that one is killed in the middle, all is free."""

    def use(channel):
        ring, fd = receive_ring(channel)
        channel.send(b"x")
        channel.recv(1)
        assert ring.read_fixed(fd, 0, SIZE, target.base) == SIZE
        for i in range(DEPTH):
            ring.prepare(READ_FIXED, fd, i * SIZE, SIZE, target.base + i * SIZE)
        ring.submit()
        channel.send(b"x")
        signal.pause()

    pid, channel = start_child(use)
    with channel:
        ring = Ring(flags=0)
        ring.register_dmabuf(0, moving, target.fd)
        send_ring(channel, ring, target.fd)
        assert channel.recv(1) == b"x"
        ring.close()
        os.close(target.fds.pop())
        channel.send(b"x")
        told = channel.recv(1)
        assert moving.stats.detaches == 0
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert told == b"x"
    buffer_is_free(moving)


def test_a_ring_of_one_submitter_is_of_no_use_to_others(file, moving):
    def use(channel):
        ring, fd = receive_ring(channel)
        with pytest.raises(OSError):
            ring.read_fixed(fd, 0, SIZE, 0, timeout=1)

    pid, channel = start_child(use)
    with channel, Ring(flags=SINGLE_ISSUER) as ring:
        ring.register_dmabuf(0, moving, file.fd)
        send_ring(channel, ring, file.fd)
        ended_well(pid)


@pytest.mark.parametrize("flags, target", [(0, "raw"), (IOPOLL, "raw"), (0, "fuse")], indirect=["target"])
def test_fork_with_requests_in_flight(target, moving, flags):
    """The child that has a copy of everything changes nothing of it, and its end neither."""
    with Ring(DEPTH, flags, inherited=True) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for _ in range(3):
            transfer = Transfer(READ_FIXED, target, moving)
            numbers = transfer.start(ring)
            pid = fork()
            if not pid:
                os._exit(0)
            ended_well(pid)
            transfer.finish(ring, numbers)
        ring.unregister(0)
        buffer_is_free(moving, ring)


@raw_and_fuse
def test_the_child_of_a_fork_uses_the_ring(target, moving):
    with Ring(DEPTH, 0, inherited=True) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        moving.fill()
        pid = fork()
        if not pid:
            os._exit(ring.read_fixed(target.fd, 0, SIZE, target.base) != SIZE)
        ended_well(pid)
        expect(moving[:SIZE], target.content[:SIZE])
        ring.unregister(0)
        buffer_is_free(moving, ring)
