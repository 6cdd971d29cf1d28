"""The test exporter itself: what the token tests rely on, without any importer."""

import errno
import fcntl
import struct
import time

import pytest

from dmabuf import TestBuffer
from token_words import GIB, KIB, MIB, expect, fails, random_bytes


@pytest.mark.parametrize("order", [0, 3, 10])
def test_the_content_survives_moves(order):
    content = random_bytes(MIB)
    with TestBuffer(MIB, order) as buffer:
        buffer[:] = content
        for _ in range(10):
            buffer.move()
            expect(buffer[:], content)
        assert (buffer.stats.moves, buffer.stats.dirty) == (10, 0)


def test_a_pipelined_move_takes_effect_with_its_fence():
    with TestBuffer(MIB) as buffer:
        buffer[:] = content = random_bytes(MIB)
        started = time.monotonic()
        buffer.move(fence_ms=300)
        assert time.monotonic() - started < 0.2
        expect(buffer[:], content)
        assert time.monotonic() - started >= 0.3
        assert buffer.stats.dirty == 0


def test_moves_hold_the_lock():
    with TestBuffer(MIB) as buffer:
        started = time.monotonic()
        buffer.move(hold_ms=200)
        assert time.monotonic() - started >= 0.2


def test_a_buffer_larger_than_its_memory_repeats_it():
    with TestBuffer(5 * GIB, 10, backed=4 * MIB) as buffer:
        buffer[: 64 * KIB] = random_bytes(64 * KIB)
        expect(buffer[4 * GIB : 4 * GIB + 64 * KIB], random_bytes(64 * KIB))


def test_a_revoked_buffer_stays_revoked():
    with TestBuffer(MIB) as buffer:
        buffer.revoke()
        buffer.revoke()
        with fails(errno.ENODEV):
            buffer.move()


def test_a_buffer_is_released_with_its_last_user():
    buffer = TestBuffer(MIB)
    buffer.close_fd()
    buffer.move()
    assert not buffer.stats.released
    buffer.map.close()
    time.sleep(0.1)
    assert buffer.stats.released
    with fails(errno.ENXIO):
        buffer.move()
    buffer.close()


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 100}, {"size": MIB, "chunk_order": 19}, {"size": MIB, "backed": 2 * MIB}], ids=str)
def test_wrong_arguments(wrong):
    with fails(errno.EINVAL):
        TestBuffer(**wrong)


def test_one_buffer_for_each_open_of_the_device():
    with TestBuffer(MIB) as buffer:


        with fails(errno.EBUSY):
            fcntl.ioctl(buffer.control, buffer.CREATE, bytearray(struct.pack("=QQIIiI", MIB, 0, 0, 0, -1, 0)))
