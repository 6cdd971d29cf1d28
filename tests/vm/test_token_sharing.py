"""Tokens share what they have in common: those of one buffer, controller and direction have one attachment and one map, however many they are."""

import contextlib
import fcntl
import os
import re
import struct
import threading
import time
from errno import ESTALE
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer
from fuse_server import DMABUF_REVOKE
from test_nvme_life import in_flight, the_next_completion_is_lost
from test_nvme_revoke import device_of
from token_fixtures import *  # noqa: F403
from token_fixtures import TARGETS, closing
from token_words import (
    KIB, MIB, Target, attachments, empty_ring, expect, make_file, opened, random_bytes, read_and_compare, wait_for,
)  # fmt: skip
from uring import READ_FIXED, Ring, dmabuf_descriptor

MANY = 4000
MOST = 16384  # slots of a ring
REVOKE_TOKEN = 1
_CPUS = sorted(os.sched_getaffinity(0))


def register_many(ring, buffer, fd, count, slot=0):
    for first in range(slot, slot + count, 1024):
        part = min(1024, slot + count - first)
        assert ring.update(first, [dmabuf_descriptor(buffer, fd)] * part) == part


@contextlib.contextmanager
def counted_maps(trace):
    with trace("dmabuf_token:dmabuf_map") as made, trace("dmabuf_token:dmabuf_map_invalidate") as taken:
        yield lambda: (made.update().hits, taken.update().hits)


# One attachment, one map


def test_thousands_of_tokens_of_a_buffer(file, moving, trace):
    """In two rings. One of them makes the map, the exporter has one to take away, and the next request makes it again for all."""
    with Ring(slots=MANY // 2) as first, Ring(slots=MANY // 2) as second, counted_maps(trace) as counted:
        for ring in first, second:
            register_many(ring, moving, file.fd, MANY // 2)
        assert (attachments(), moving.stats.attaches, moving.stats.maps) == (1, 1, 1)
        assert counted() == (1, 0)
        for i in range(1, 4):
            for ring, slot in (first, 0), (second, MANY // 2 - 1), (first, 777):
                read_and_compare(ring, file, moving, (0, 64 * KIB, i * 4096), slot)
            assert counted() == (i, i - 1)
            moving.move()
            assert (counted(), moving.stats.maps, moving.stats.unmaps) == ((i, i), i, i)
        with trace("dmabuf_token:dmabuf_token_release", key="maps") as released:
            empty_ring_of_many(first)
            wait_for(lambda: released.update().hits == MANY // 2, first)
            assert moving.stats.detaches == 0
            read_and_compare(second, file, moving, (0, 64 * KIB, 0), 5)
            empty_ring_of_many(second)
            wait_for(lambda: released.update().hits == MANY, second)
        assert released.by_key == {3: MANY // 2, 4: MANY // 2}, "each was there for these"
        wait_for(lambda: not attachments())
        assert (moving.stats.detaches, moving.stats.maps, moving.stats.unmaps, moving.stats.dirty) == (1, 4, 4, 0)


def empty_ring_of_many(ring):
    """Without waiting for the attachment to go: another ring may have it, too."""
    ring.unregister_all()
    ring.run_deferred()


def test_tokens_of_all_files_of_a_controller(request, nvme, ext4, ring, moving):
    """The device, a partition of it, and files, directly and through FUSE: what they share is the memory, not the rights."""
    targets = [closing(request, TARGETS[name](request, nvme, ext4)) for name in ("ext4", "fuse")]
    make_file(ext4 / "other", other := random_bytes(2 * MIB, seed=5))
    targets += [closing(request, Target(ext4 / "other", other)), closing(request, Target(nvme.device, None))]
    for slot, target in enumerate(targets):
        ring.register_dmabuf(slot, moving, target.fd)
    assert (attachments(), moving.stats.attaches, moving.stats.maps) == (1, 1, 1)
    for slot, target in enumerate(targets[:3]):
        read_and_compare(ring, target, moving, (4096, MIB, 8192), slot)
        with pytest.raises(OSError):
            ring.read_fixed(target.fd, 0, 4096, 0, (slot + 1) % 4)
    moving.move()
    for slot, target in enumerate(targets[:3]):
        read_and_compare(ring, target, moving, (4096, MIB, 8192), slot)
    assert (attachments(), moving.stats.maps, moving.stats.unmaps) == (1, 2, 1)
    empty_ring(ring)


def test_another_direction_or_controller_is_another_import(file, moving, ring):
    """A map for reads only must not be written from."""
    with opened(guest.Nvme("spare").device) as other:
        for slot, (fd, wanted) in enumerate([(file.fd, 1), (file.open(os.O_RDONLY | os.O_DIRECT), 2), (file.open(os.O_RDONLY | os.O_DIRECT), 2),
                                             (file.open(os.O_WRONLY | os.O_DIRECT), 3), (other, 4), (other, 4), (file.open(), 4)]):  # fmt: skip
            ring.register_dmabuf(slot, moving, fd)
            assert (attachments(), moving.stats.attaches, moving.stats.maps) == (wanted, wanted, wanted)
        moving.move()
        assert moving.stats.unmaps == 4
        read_and_compare(ring, file, moving, (0, 64 * KIB, 0))
        assert moving.stats.maps == 5, "only what is used is mapped again"
        empty_ring(ring)
    assert moving.stats.detaches == 4


def test_two_buffers_are_two(file, moving, udmabuf, ring):
    with TestBuffer(moving.size) as other:
        for slot, buffer in enumerate([moving, other, udmabuf, moving, other, udmabuf]):
            ring.register_dmabuf(slot, buffer, file.fd)
        assert (attachments(), moving.stats.maps, other.stats.maps) == (3, 1, 1)
        moving.move()
        read_and_compare(ring, file, other, (0, 64 * KIB, 0), 1)
        assert (moving.stats.unmaps, other.stats.unmaps) == (1, 0)
        empty_ring(ring)


def test_the_last_token_takes_the_map_with_it_and_the_next_makes_a_new_one(file, moving, ring):
    for i in range(1, 6):
        ring.register_dmabuf(0, moving, file.fd)
        ring.register_dmabuf(1, moving, file.fd)
        ring.unregister(0)
        read_and_compare(ring, file, moving, (0, 64 * KIB, 0), 1)
        assert (moving.stats.attaches, moving.stats.maps, moving.stats.unmaps) == (i, i, i - 1)
        empty_ring(ring)
        ring.register_sparse(8)
        assert (moving.stats.detaches, moving.stats.unmaps) == (i, i)


def test_tokens_that_come_and_go_in_several_threads(front, moving):
    """While the exporter moves: the first and the last of the buffer meet again and again."""
    front.fd
    stop, failures = threading.Event(), []

    def come_and_go():
        try:
            with Ring(flags=0) as ring:
                while not stop.is_set():
                    ring.register_dmabuf(0, moving, front.fd)
                    assert ring.read_fixed(front.fd, 0, 4096, front.base) == 4096
                    ring.unregister(0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    started = moving.stats.moves
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        moving.move()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures
    wait_for(lambda: not attachments())
    stats = moving.stats
    assert stats.moves > started
    assert (stats.maps, stats.attaches, stats.dirty) == (stats.unmaps, stats.detaches, 0)
    expect(moving[:4096], front.content[:4096])


# Memory


def kernel_memory():
    """What slabs, counters of each CPU, and large allocations take, in bytes."""
    found = dict(re.findall(r"^(\w+): +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return sum(int(found[name]) for name in ("Slab", "Percpu", "VmallocUsed")) * KIB


@pytest.mark.timeout(300)
def test_a_full_ring_for_a_buffer_in_single_pages_has_one_map(file, trace):
    """Of 64 MiB: more than 512 KiB with the lists for the controller, which is 8 GiB for as many tokens."""
    with TestBuffer(64 * MIB) as buffer, Ring(slots=MOST) as ring:
        register_many(ring, buffer, file.fd, 1)
        before = kernel_memory()
        register_many(ring, buffer, file.fd, MOST - 1, slot=1)
        each = (kernel_memory() - before) / (MOST - 1)
        print(f"{each:.0f} bytes for each token")
        assert (buffer.stats.maps, buffer.stats.segments) == (1, 16384)
        # A debug kernel has a record of each allocation beside it.
        assert each < (8 if Path("/sys/kernel/debug/kmemleak").exists() else 2) * KIB
        for slot in 0, 12345, MOST - 1:
            assert ring.read_fixed(file.fd, 64 * MIB - 64 * KIB, 64 * KIB, 0, slot) == 64 * KIB
            expect(buffer[64 * MIB - 64 * KIB :], file.content[: 64 * KIB])
        ring.unregister_all()
        wait_for(lambda: not attachments(), ring)


# Interrupts


@contextlib.contextmanager
def on_cpu(cpu):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def symbol(name):
    return next(int(line.split()[0], 16) for line in Path("/proc/kallsyms").read_text().splitlines() if line.split()[2] == name)


MOVES = 20


@pytest.fixture
def interrupted(ring, file, trace):
    """interrupted(read_on, move_on): {CPU: how often it was interrupted} by MOVES moves on the one, each after a read on the other, or after none."""
    ours = f"func == {symbol('dmabuf_barrier'):#x}"

    def move(read_on, move_on):
        with trace("csd:csd_queue_cpu", key="cpu", where=ours) as calls, on_cpu(move_on):
            for _ in range(MOVES):
                ring.register_dmabuf(0, buffer, file.fd)   # makes the map, for which the read would need a worker, anywhere
                if read_on is not None:
                    with on_cpu(read_on):
                        assert ring.read_fixed(file.fd, 0, 4096, 0) == 4096
                buffer.move()
        return calls.by_key

    with TestBuffer(64 * KIB) as buffer:
        yield move
        assert buffer.stats.dirty == 0
        empty_ring(ring)


two_cpus = pytest.mark.skipif(len(_CPUS) < 2, reason="there is no other CPU")


@two_cpus
def test_a_move_interrupts_no_cpu_that_sent_nothing(interrupted):
    """Nor the one that moves, if that is where commands were sent."""
    mover, other = _CPUS[:2]
    for read_on in None, mover:
        assert interrupted(read_on, mover) == {}


@two_cpus
def test_a_move_interrupts_a_cpu_that_sent_commands(interrupted):
    reader, mover = _CPUS[:2]
    for one, other in (reader, mover), (mover, reader):
        assert interrupted(one, other) == {one: MOVES}


@two_cpus
def test_a_cpu_that_used_an_earlier_map_is_not_interrupted_for_later_ones(interrupted):
    """Even though the allocator may put each of them where the last one was."""
    once, mover = _CPUS[:2]
    assert interrupted(once, mover) == {once: MOVES}
    assert interrupted(mover, mover) == {}


# Revoking one of them


def revoke_token(device, token):
    """How many the ioctl says it has ended."""
    which = bytearray(struct.pack("=QQII", token, 0, REVOKE_TOKEN, 0))
    fcntl.ioctl(device, DMABUF_REVOKE, which)
    return struct.unpack("=QQII", which)[3]


@pytest.fixture
def two_files(fuse, ext4, moving):
    """Files on FUSE, and a ring for each, with a token of the same buffer."""
    targets = []
    with Ring(64) as first, Ring(64) as second:
        for name, ring in ("first", first), ("second", second):
            content = make_file(ext4 / name, random_bytes(MIB, seed=len(name)))
            targets.append(Target(fuse.path(name), content))
            ring.register_dmabuf(0, moving, targets[-1].fd)
        assert moving.stats.attaches == 1
        yield zip(targets, (first, second))
        for target in targets:
            target.close()


def test_revoking_a_token_does_not_wait_for_commands_of_others(nvme, fuse, two_files, moving):
    """One that the device does not complete holds up only the end of its own token."""
    (one, its_ring), (other, others_ring) = two_files
    ids = [token.token for token in fuse.creates()]
    with device_of(fuse) as device:
        with the_next_completion_is_lost(nvme, missed_after_ms=3000):
            number = its_ring.prepare(READ_FIXED, one.fd, 0, 4096, 0)
            its_ring.submit()
            wait_for(lambda: in_flight(nvme) == 1)
            counts = []
            started = time.monotonic()
            counts.append(revoke_token(device, ids[1]))
            assert in_flight(nvme) == 1 and time.monotonic() - started < 2, "it waited for another's command"
            with pytest.raises(OSError) as error:
                others_ring.read_fixed(other.fd, MIB, 4096, 0)
            assert error.value.errno == ESTALE
            thread = threading.Thread(target=lambda: counts.append(revoke_token(device, ids[0])))
            thread.start()
            thread.join(1)
            assert thread.is_alive() and in_flight(nvme) == 1, "its own command was not waited for"
            thread.join(60)
            assert counts == [1, 1]
            assert in_flight(nvme) == 0
        assert its_ring.wait().user_data == number
    assert (moving.stats.maps, moving.stats.unmaps) == (1, 1), "the last one takes the map with it"
    assert moving.stats.dirty == 0


def test_revoking_a_token_while_others_read_without_a_pause(fuse, two_files, moving):
    """They never notice."""
    (one, its_ring), (other, others_ring) = two_files
    ids = [token.token for token in fuse.creates()]
    numbers = {others_ring.prepare(READ_FIXED, other.fd, i * 16 * KIB, 16 * KIB, i * 16 * KIB) for i in range(32)}
    others_ring.submit()
    done = []

    def read_on():
        completion = others_ring.wait()
        numbers.remove(completion.user_data)
        done.append(completion.res)
        i = len(done) % 32
        numbers.add(others_ring.prepare(READ_FIXED, other.fd, i * 16 * KIB, 16 * KIB, i * 16 * KIB))
        others_ring.submit()

    with device_of(fuse) as device:
        for _ in range(100):
            read_on()
        read_and_compare(its_ring, one, moving, (MIB, 64 * KIB, 0))
        result = []
        thread = threading.Thread(target=lambda: result.append(revoke_token(device, ids[0])))
        thread.start()
        busy = len(done)
        while thread.is_alive():
            read_on()
            assert len(done) - busy < 5000, "it waits for a moment without commands"
        thread.join()
    while numbers:
        completion = others_ring.wait()
        numbers.remove(completion.user_data)
        done.append(completion.res)
    assert result == [1]
    assert set(done) == {16 * KIB}
    with pytest.raises(OSError) as error:
        its_ring.read_fixed(one.fd, 0, 4096, 0)
    assert error.value.errno == ESTALE
    expect(moving[: 512 * KIB], other.content[: 512 * KIB])
    assert (moving.stats.maps, moving.stats.unmaps) == (1, 0)


def test_a_token_made_after_all_others_were_revoked(fuse, two_files, moving):
    """While the revoked ones are still registered: it has the attachment of these, and a map of its own."""
    (one, its_ring), _ = two_files
    with device_of(fuse) as device:
        for token in fuse.creates():
            assert revoke_token(device, token.token) == 1
    assert (moving.stats.maps, moving.stats.unmaps, attachments()) == (1, 1, 1)
    its_ring.register_dmabuf(1, moving, one.fd)
    read_and_compare(its_ring, one, moving, (0, 64 * KIB, 0), 1)
    with pytest.raises(OSError) as error:
        its_ring.read_fixed(one.fd, 0, 4096, 0, 0)
    assert error.value.errno == ESTALE
    assert (moving.stats.maps, moving.stats.unmaps, attachments()) == (2, 1, 1)
