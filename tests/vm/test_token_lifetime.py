"""Whoever ends first - ring, slot, file, buffer or process - nothing hangs, and the buffer comes free."""

import os
import signal
import time

import pytest

from dmabuf import TestBuffer
from fuse_server import fork
from token_fixtures import *  # noqa: F403
from token_words import BUFFER_SIZE, KIB, MIB, attachments, expect, read_and_compare, wait_for
from uring import DEFER_TASKRUN, READ_FIXED, SINGLE_ISSUER, SQPOLL, Ring
from uring_words import buffer_is_free

SIZE, DEPTH = 32 * KIB, 64
DEFERRED = SINGLE_ISSUER | DEFER_TASKRUN
MODES = pytest.mark.parametrize(
    "front, flags", [("ext4", 0), ("ext4", DEFERRED), ("ext4", SQPOLL), ("fuse", DEFERRED)], indirect=["front"]
)


def start_reads(ring, front, slot=0):
    """DEPTH reads, each to its own place, where the same bytes of the file belong."""
    numbers = [ring.prepare(READ_FIXED, front.fd, i * SIZE, SIZE, front.base + i * SIZE, slot) for i in range(DEPTH)]
    ring.submit()
    return numbers


@MODES
def test_ring_closed_with_reads_in_flight(front, moving, flags):
    ring = Ring(DEPTH, flags)
    ring.register_dmabuf(0, moving, front.fd)
    start_reads(ring, front)
    ring.close()
    buffer_is_free(moving)


@MODES
def test_ring_closed_while_the_buffer_moves(front, moving, flags):
    ring = Ring(DEPTH, flags)
    ring.register_dmabuf(0, moving, front.fd)
    start_reads(ring, front)
    moving.move(hold_ms=20)
    ring.close()
    moving.move()
    buffer_is_free(moving)


def test_slot_unregistered_with_reads_in_flight(front, moving):
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        numbers = start_reads(ring, front)
        ring.unregister(0)
        assert ring.wait_all(DEPTH) == dict.fromkeys(numbers, SIZE)
        expect(moving[:], front.content)
        wait_for(lambda: moving.stats.detaches == 1, ring)
        buffer_is_free(moving, ring)


def test_slot_replaced_with_reads_in_flight(front, moving, udmabuf):
    """What was submitted goes to the old buffer, what follows to the new one."""
    with Ring(2 * DEPTH) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        numbers = start_reads(ring, front)
        ring.register_dmabuf(0, udmabuf, front.fd)
        numbers += start_reads(ring, front)
        assert ring.wait_all(2 * DEPTH) == dict.fromkeys(numbers, SIZE)
        expect(moving[:], front.content)
        expect(udmabuf[:], front.content)
        buffer_is_free(moving, ring)


def test_all_buffers_unregistered_with_reads_in_flight(front, moving):
    with Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        numbers = start_reads(ring, front)
        ring.unregister_all()
        assert ring.wait_all(DEPTH) == dict.fromkeys(numbers, SIZE)
        buffer_is_free(moving, ring)


def test_buffer_closed_by_the_application(ring, front, moving):
    """The registration keeps it."""
    ring.register_dmabuf(0, moving, front.fd)
    moving.close_fd()
    read_and_compare(ring, front, moving, (0, MIB, 0))
    moving.map.close()
    time.sleep(0.2)
    assert not moving.stats.released
    assert ring.read_fixed(front.fd, 0, MIB, front.base) == MIB
    ring.unregister(0)
    wait_for(lambda: moving.stats.released, ring)


def test_target_closed_by_the_application(ring, front, moving):
    """The registration keeps the file; a duplicate still reaches it."""
    ring.register_dmabuf(0, moving, front.fd)
    again = os.dup(front.fd)
    os.close(front.fds.pop())
    assert ring.read_fixed(again, 0, MIB, front.base) == MIB
    expect(moving[:MIB], front.content[:MIB])
    os.close(again)
    ring.unregister(0)
    buffer_is_free(moving, ring)


def test_target_closed_with_reads_in_flight(ring, front, moving):
    ring.register_dmabuf(0, moving, front.fd)
    numbers = start_reads(ring, front)
    os.close(front.fds.pop())
    assert ring.wait_all(DEPTH) == dict.fromkeys(numbers, SIZE)
    expect(moving[:], front.content)


def killed_child(function):
    """Runs a function in a child, that is killed while it waits afterwards."""
    ready, tell = os.pipe()
    pid = fork()
    if not pid:
        try:
            function()
            os.write(tell, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    started = os.read(ready, 1)
    os.close(ready)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert started, "the child failed"


@MODES
def test_process_killed_with_reads_in_flight(front, flags):
    with TestBuffer(BUFFER_SIZE) as buffer:

        def read():
            ring = Ring(DEPTH, flags)
            ring.register_dmabuf(0, buffer, front.fd)
            start_reads(ring, front)

        killed_child(read)
        wait_for(lambda: buffer.stats.attaches == buffer.stats.detaches == 1)
        buffer_is_free(buffer)


def test_a_registration_outlives_the_child_that_made_it(front, moving):
    """The ring is shared."""
    with Ring(flags=0, inherited=True) as ring:
        ring.register_dmabuf(0, moving, front.fd)
        killed_child(lambda: ring.register_dmabuf(1, moving, front.fd))
        for slot in (0, 1):
            read_and_compare(ring, front, moving, (0, MIB, 0), slot)


def test_rings_that_come_and_go(front, moving):
    for i in range(20):
        with Ring(DEPTH) as ring:
            ring.register_dmabuf(i % 8, moving, front.fd)
            start_reads(ring, front, i % 8)
    wait_for(lambda: not attachments())
    buffer_is_free(moving)
