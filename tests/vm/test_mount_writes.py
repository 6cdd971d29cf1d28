"""Writing: the server is not asked, writers do not wait for each other, and what a write takes from the mode of a file is what it takes below."""
import contextlib
import itertools
import mmap
import os
import stat
import struct
import threading
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from dmabuf import Udmabuf
from faults import overridden
from places import Calls, Requests, aligned, address, io, kind, no_time_to_note, outcome, pair, spot, wait_until  # noqa: F401  (fixtures)
from privileges import FSETID, acting_as, permitted
from token_words import let_go, make_file, opened, random_bytes
from uring import IOSQE_ASYNC, Ring

BLOCK, SIZE = 4096, 64 * 4096
DATA = random_bytes(SIZE)
PUNTED = 'io_uring:io_uring_queue_async_work'
MODES = {'buffered': 0, 'direct': os.O_DIRECT}
with_modes = pytest.mark.parametrize('direct', MODES.values(), ids=MODES)


@pytest.fixture
def file(spot):
    """Whose blocks are all written: .path, .source."""
    make_file(spot.source / 'file', DATA)
    return SimpleNamespace(path=spot.path / 'file', source=spot.source / 'file')


# Requests to the server

on_mounts = pytest.mark.parametrize('spot', ['mount'], indirect=True)


@on_mounts
@with_modes
def test_writes_do_not_ask_the_server(file, trace, direct):
    memory = aligned(b'w' * BLOCK)
    with opened(file.path, os.O_WRONLY | direct) as fd, trace('fuse:fuse_request_send', key='opcode') as requests:
        for number in range(1000 if direct else 10000):
            os.pwritev(fd, [memory], number * BLOCK % SIZE)
    assert requests.by_key == {}
    assert file.source.read_bytes() == b'w' * SIZE


@on_mounts
@with_modes
def test_writes_by_io_uring_do_not_ask_the_server(file, trace, direct):
    memory = aligned(b'r' * BLOCK)
    with opened(file.path, os.O_WRONLY | direct) as fd, Ring() as ring, trace('fuse:fuse_request_send', key='opcode') as requests:
        for _ in range(0, 1000 if direct else 10000, 64):
            for place in range(0, SIZE, BLOCK):
                ring.prepare(Requests.WRITE, fd, address(memory), BLOCK, place)
            ring.submit()
            assert set(ring.wait_all(64).values()) == {BLOCK}
    assert requests.by_key == {}
    assert file.source.read_bytes() == b'r' * SIZE


@on_mounts
def test_writes_from_dma_bufs_do_not_ask_the_server(file, trace):
    with opened(file.path) as fd, Udmabuf(SIZE) as buffer:
        buffer[:] = random_bytes(SIZE, seed=2)
        with Ring() as ring:
            ring.register_dmabuf(0, buffer, fd)
            with trace('fuse:fuse_request_send', key='opcode') as requests:
                for number in range(1000):
                    place = number * BLOCK % SIZE
                    assert ring.write_fixed(fd, place, BLOCK, place) == BLOCK
        let_go()
    assert requests.by_key == {}
    assert file.source.read_bytes() == random_bytes(SIZE, seed=2)


# Waiting

def test_a_direct_overwrite_need_not_wait(file, io, no_time_to_note):
    with opened(file.path, os.O_WRONLY | os.O_DIRECT) as fd:
        os.pwritev(fd, [aligned(SIZE)], 0)   # which the cache forgets
        assert io.write(fd, aligned(b'n' * BLOCK), BLOCK, os.RWF_NOWAIT) == BLOCK
    assert file.source.read_bytes() == bytes(BLOCK) + b'n' * BLOCK + bytes(SIZE - 2 * BLOCK)


def test_direct_overwrites_need_no_worker(file, trace, no_time_to_note):
    memory = aligned(b'n' * BLOCK)
    with opened(file.path, os.O_WRONLY | os.O_DIRECT) as fd, Ring(128) as ring:
        os.pwritev(fd, [aligned(SIZE)], 0)
        for place in range(0, 2 * SIZE, BLOCK):
            ring.prepare(Requests.WRITE, fd, address(memory), BLOCK, place % SIZE)
        with trace(PUNTED) as punted:
            ring.submit()
            assert set(ring.wait_all(128).values()) == {BLOCK}
    assert punted.hits == 0


def in_thread(function, processor):
    """A thread on a processor of its own."""
    def run():
        os.sched_setaffinity(0, {processor})
        function()
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_direct_overwrite_does_not_wait_for_another(file):
    with opened(file.path, os.O_WRONLY | os.O_DIRECT) as fd:
        os.pwritev(fd, [aligned(b'0' * BLOCK)], 0)
        # The first to get there has the locks of a writer, and keeps them.
        with overridden('iomap_dio_rw', count=1, delay_ms=20000) as held:
            first = in_thread(lambda: os.pwritev(fd, [aligned(b'1' * BLOCK)], 0), 0)
            wait_until(held.hits)
            second = in_thread(lambda: os.pwritev(fd, [aligned(b'2' * BLOCK)], BLOCK), 1)
            second.join(timeout=5)
            waits, goes_on = second.is_alive(), first.is_alive()
            held.let_go()
            first.join()
            second.join()
    assert goes_on and not waits
    assert file.source.read_bytes() == b'1' * BLOCK + b'2' * BLOCK + DATA[2 * BLOCK:]


# Sizes and times

@with_modes
def test_a_write_beyond_the_end_shows_its_size_at_once(file, io, direct):
    memory = aligned(b'e' * BLOCK)
    with opened(file.path, os.O_WRONLY | direct) as fd:
        for size in range(SIZE, SIZE + 10 * BLOCK, BLOCK):
            assert os.stat(file.path).st_size == size
            assert io.write(fd, memory, size) == BLOCK
    assert os.stat(file.path).st_size == SIZE + 10 * BLOCK


@with_modes
def test_many_writes_beyond_the_end_at_once(file, direct):
    memory = aligned(b'e' * BLOCK)
    with opened(file.path, os.O_WRONLY | direct) as fd, Ring() as ring:
        for place in range(SIZE, 2 * SIZE, BLOCK):
            ring.prepare(Requests.WRITE, fd, address(memory), BLOCK, place)
        ring.submit()
        for _ in range(64):
            os.stat(file.path)
            assert ring.wait().res == BLOCK
        assert os.stat(file.path).st_size == 2 * SIZE
    assert file.source.read_bytes() == DATA + b'e' * SIZE


@with_modes
def test_a_write_shows_its_time_at_once(file, io, direct):
    with opened(file.path, os.O_WRONLY | direct) as fd:
        os.utime(file.path, (1, 1))
        assert os.stat(file.path).st_mtime == 1
        assert io.write(fd, aligned(BLOCK), 0) == BLOCK
        shown, real = os.stat(file.path), os.stat(file.source)
    assert shown.st_mtime_ns == real.st_mtime_ns > 1e9 and shown.st_ctime_ns == real.st_ctime_ns


# Set-ID bits and capabilities of programs

OWNER, GROUP, OTHER = 1000, 2000, 3000
SET_ID = [0o4755, 0o2755, 0o6755, 0o2666]
CAPABILITY = 'security.capability'


class Writer(NamedTuple):
    user: int
    groups: tuple = ()
    capabilities: frozenset = frozenset()

    def leaves(self, mode):
        """What is left of a mode when this one has written."""
        if FSETID in self.capabilities:
            return mode
        if mode & stat.S_IXGRP or GROUP not in self.groups:
            mode &= ~stat.S_ISGID
        return mode & ~stat.S_ISUID


WRITERS = {
    'root': Writer(0, (), frozenset(permitted())), 'root without CAP_FSETID': Writer(0, (), frozenset(permitted() - {FSETID})), 'owner': Writer(OWNER),
    'owner in the group': Writer(OWNER, (GROUP,)), 'other in the group': Writer(OTHER, (GROUP,)), 'other': Writer(OTHER),
    'holder of CAP_FSETID': Writer(OTHER, (), frozenset([FSETID])),
}  # fmt: skip


def spliced(fd):
    reader, writer = os.pipe()
    os.write(writer, b's' * BLOCK)
    assert os.splice(reader, fd, BLOCK, offset_dst=0) == BLOCK
    os.close(reader)
    os.close(writer)


def by_ring(fd, flags=0):
    with Ring() as ring:
        assert ring.run(Requests.WRITE, fd, address(MEMORY), BLOCK, 0, flags=flags) == BLOCK


def stored(fd):
    with mmap.mmap(fd, BLOCK) as memory:
        memory[0] = 1


MEMORY = aligned(b'x' * BLOCK)
WRITES = {
    'buffered': (0, lambda fd: os.pwritev(fd, [MEMORY], 0)), 'direct': (os.O_DIRECT, lambda fd: os.pwritev(fd, [MEMORY], 0)),
    'splice': (0, spliced), 'ring': (0, by_ring), 'ring, direct': (os.O_DIRECT, by_ring), 'worker of a ring': (0, lambda fd: by_ring(fd, IOSQE_ASYNC)),
}  # fmt: skip


@pytest.fixture
def program(spot):
    """program(mode): a new one, opened for reading and writing with these flags, and its attributes remembered: .fd, .path, .source. Of OWNER, in GROUP."""
    descriptors, number = contextlib.ExitStack(), itertools.count()

    def make(mode, flags=0, capability=b''):
        name = f'program-{next(number)}'
        source, path = spot.source / name, spot.path / name
        source.write_bytes(bytes(BLOCK))
        os.chown(source, OWNER, GROUP)
        os.chmod(source, mode)
        if capability:
            os.setxattr(source, CAPABILITY, capability)
        fd = descriptors.enter_context(opened(path, os.O_RDWR | flags))
        assert stat.S_IMODE(os.stat(path).st_mode) == mode
        return SimpleNamespace(fd=fd, path=path, source=source)

    with descriptors:
        yield make


def modes_of(program):
    """As it is, and as the mount shows it."""
    return [stat.S_IMODE(os.stat(path).st_mode) for path in (program.source, program.path)]


def written_by(program, writer, write, flags=0, capability=b''):
    """[(a mode, a program that had it and that this one has written to, what that call returned)]"""
    programs = [(mode, program(mode, flags, capability)) for mode in SET_ID]
    with acting_as(*writer):
        return [(mode, written, write(written.fd)) for mode, written in programs]


@pytest.mark.parametrize('how', WRITES)
def test_a_write_takes_set_id_bits(program, how):
    """Except for a writer with CAP_FSETID; and in the group of the file a bit that only marks it."""
    flags, write = WRITES[how]
    wrong = []
    for name, writer in WRITERS.items():
        for mode, written, _ in written_by(program, writer, write, flags):
            found, left = modes_of(written), writer.leaves(mode)
            if found != [left] * 2:
                wrong.append(f'{name} writes to {mode:o}: it is {found[0]:o}, shown as {found[1]:o}, instead of {left:o}')
    assert not wrong, '\n'.join(wrong)


@with_modes
def test_a_write_that_must_not_wait_is_not_done_or_takes_set_id_bits(program, direct):
    wrong = []
    for name, writer in WRITERS.items():
        for mode, written, result in written_by(program, writer, lambda fd: outcome(Calls().write, fd, MEMORY, 0, os.RWF_NOWAIT), direct):
            assert result in (BLOCK, 'EAGAIN', 'ENOTSUP')
            found, left = modes_of(written), writer.leaves(mode) if result == BLOCK else mode
            if found != [left] * 2:
                wrong.append(f'{name} writes to {mode:o}, {result}: it is {found[0]:o}, shown as {found[1]:o}, instead of {left:o}')
    assert not wrong, '\n'.join(wrong)


def test_a_store_to_a_mapping_takes_no_set_id_bits(program):
    for writer in WRITERS.values():
        for mode, written, _ in written_by(program, writer, stored, capability=capability()):
            assert modes_of(written) == [mode] * 2 and has_capability(written) == [True] * 2


def capability():
    """CAP_NET_RAW, effective."""
    return struct.pack('=5I', 0x02000001, 1 << 13, 0, 0, 0)


def has_capability(program):
    return [CAPABILITY in os.listxattr(path) for path in (program.source, program.path)]


@pytest.mark.parametrize('how', WRITES)
def test_a_write_takes_capabilities_of_a_program(program, how):
    """Whoever writes."""
    flags, write = WRITES[how]
    for name in ('root', 'owner', 'other'):
        written = program(0o755, flags, capability())
        with acting_as(*WRITERS[name]):
            write(written.fd)
        assert has_capability(written) == [False] * 2, name
        assert modes_of(written) == [0o755] * 2, name


def test_bits_that_are_given_later_are_taken_again(program):
    """As where the kernel has noted that the file has none."""
    written = program(0o755)
    with acting_as(OWNER):
        os.write(written.fd, b'x')
        for path in (written.path, written.source, written.path):
            os.chmod(path, 0o4755)
            os.write(written.fd, b'x')
            assert modes_of(written) == [0o755] * 2
