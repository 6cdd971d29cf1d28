"""Requests on tokens do what requests do on any other buffer, on every kind of ring."""

import ctypes
import os
import re
from errno import ECANCELED, EFAULT, EOPNOTSUPP

import pytest

from dmabuf import Udmabuf
from token_fixtures import *  # noqa: F403
from token_words import BUFFER_SIZE, KIB, attachments, expect, expect_untouched, fails, on_disk, wait_for
from uring import (
    IOPOLL, IOSQE_ASYNC, IOSQE_IO_DRAIN, IOSQE_IO_LINK, READ_FIXED, SQPOLL, WRITE_FIXED, Ring,
)  # fmt: skip
from uring_words import DEFERRED, DEPTH, SIZE, Transfer, both_ways, every_ring


@both_ways
@every_ring
def test_many_requests_at_once(target, moving, flags, opcode):
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for sqe_flags in (0, IOSQE_ASYNC, IOSQE_IO_LINK, IOSQE_IO_DRAIN):
            transfer = Transfer(opcode, target, moving)
            transfer.finish(ring, transfer.start(ring, flags=sqe_flags))
            target.content = on_disk(target, BUFFER_SIZE)
        assert ring.nop() == 0


@every_ring
def test_a_chain_runs_in_its_order(target, moving, flags):
    """Read, write elsewhere, read that back: each link sees what the one before did."""
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        moving.fill()
        for i in range(10):
            start, to = target.base + i * SIZE, target.base + (100 + i) * SIZE
            ring.prepare(READ_FIXED, target.fd, 0, SIZE, start, flags=IOSQE_IO_LINK)
            ring.prepare(WRITE_FIXED, target.fd, 0, SIZE, to, flags=IOSQE_IO_LINK)
            ring.prepare(READ_FIXED, target.fd, SIZE, SIZE, to)
            ring.submit()
            assert set(ring.wait_all(3).values()) == {SIZE}
            expect(moving[SIZE : 2 * SIZE], target.content[i * SIZE : (i + 1) * SIZE], f"chain {i}")


@every_ring
def test_a_chain_ends_with_its_first_failure(target, moving, flags):
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        moving.fill()
        first = ring.prepare(READ_FIXED, target.fd, BUFFER_SIZE, SIZE, target.base, flags=IOSQE_IO_LINK)
        second = ring.prepare(READ_FIXED, target.fd, 0, SIZE, target.base, flags=IOSQE_IO_LINK)
        third = ring.prepare(WRITE_FIXED, target.fd, 0, SIZE, target.base)
        ring.submit()
        assert ring.wait_all(3) == {first: -EFAULT, second: -ECANCELED, third: -ECANCELED}
        expect_untouched(moving)
    expect(on_disk(target, SIZE), target.content[:SIZE])


@every_ring
def test_a_drained_request_comes_after_all_others(target, moving, flags):
    """It writes what they read."""
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for _ in range(5):
            moving.fill()
            for i in range(16):
                ring.prepare(READ_FIXED, target.fd, i * SIZE, SIZE, target.base + i * SIZE)
            ring.prepare(WRITE_FIXED, target.fd, 0, 16 * SIZE, target.base + 128 * SIZE, flags=IOSQE_IO_DRAIN)
            ring.submit()
            assert sorted(ring.wait_all(17).values()) == [SIZE] * 16 + [16 * SIZE]
            expect(on_disk(target, 16 * SIZE, 128 * SIZE), target.content[: 16 * SIZE])


@both_ways
@pytest.mark.parametrize("target", ["fuse"], indirect=True)
@pytest.mark.parametrize("flags", [IOPOLL, IOPOLL | DEFERRED, IOPOLL | SQPOLL], ids=["iopoll", "iopoll-defer-taskrun", "iopoll-sqpoll"])
def test_a_fuse_file_cannot_be_polled(target, udmabuf, flags, opcode):
    with Ring(DEPTH, flags) as ring:
        ring.register_dmabuf(0, udmabuf, target.fd)
        with fails(EOPNOTSUPP):
            ring.run(opcode, target.fd, 0, SIZE, 0)
        expect_untouched(udmabuf)


@pytest.mark.parametrize("target", ["raw", "ext4"], indirect=True)
def test_polled_and_interrupted_commands_in_one_ring(target, udmabuf):
    """Those on ordinary buffers are polled, those on tokens are not."""
    with Ring(DEPTH, IOPOLL) as ring, Udmabuf(DEPTH * SIZE) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory.map))
        ring.register_memory(1, address, memory.size)
        ring.register_dmabuf(0, udmabuf, target.fd)
        for i in range(DEPTH):
            to, start = i * SIZE, target.base + i * SIZE
            ring.prepare(READ_FIXED, target.fd, address + to if i % 2 else to, SIZE, start, slot=i % 2)
        ring.submit()
        assert set(ring.wait_all(DEPTH).values()) == {SIZE}
        for i in range(DEPTH):
            where = slice(i * SIZE, (i + 1) * SIZE)
            expect((memory if i % 2 else udmabuf)[where], target.content[where], f"request {i}")
        ring.unregister(1)


def test_fdinfo_shows_the_slots(ring, file, udmabuf):
    with Udmabuf(64 * KIB) as memory:
        ring.register_memory(1, ctypes.addressof(ctypes.c_char.from_buffer(memory.map)), memory.size)
        ring.register_dmabuf(0, udmabuf, file.fd)
        ring.register_dmabuf(5, udmabuf, file.fd)
        with open(f"/proc/self/fdinfo/{ring.fd}") as info:
            slots = dict(re.findall(r"^ *(\d+): dmabuf/(\d+)$", info.read(), re.MULTILINE))
        assert slots == {"0": str(BUFFER_SIZE), "5": str(BUFFER_SIZE)}
        ring.unregister(1)


@pytest.mark.parametrize("target", ["raw", "fuse"], indirect=True)
def test_a_clone_of_the_buffers_is_refused(target, udmabuf):
    """It would be a token without the rules of its ring; an ordinary buffer beside it does not help."""
    with Ring() as ring, Ring(slots=0) as other:
        ring.register_dmabuf(3, udmabuf, target.fd)
        with fails(EOPNOTSUPP):
            other.clone_buffers_from(ring)
        assert attachments() == 1
        assert ring.read_fixed(target.fd, 0, SIZE, target.base, slot=3) == SIZE
        ring.unregister(3)
        wait_for(lambda: not attachments(), ring)
        other.clone_buffers_from(ring)
        with fails(EFAULT):
            other.read_fixed(target.fd, 0, SIZE, target.base, slot=3)


def test_the_ring_of_a_task_that_never_waits(target, moving):
    """A busy reader looks at the completion queue only: on a ring without DEFER_TASKRUN results come by themselves."""
    with Ring(DEPTH, SQPOLL) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(READ_FIXED, target, moving)
        numbers = transfer.start(ring)
        wait_for(lambda: ring.ready() == DEPTH)
        transfer.finish(ring, numbers)


def test_requests_of_a_descriptor_that_is_closed_meanwhile(target, moving):
    with Ring(DEPTH, IOPOLL if target.base else 0) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        transfer = Transfer(READ_FIXED, target, moving)
        numbers = transfer.start(ring)
        os.close(target.fds.pop())
        transfer.finish(ring, numbers)
