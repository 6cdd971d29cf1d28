"""Stores to mapped memory move the times of a file, and the mount shows that at once."""
import ctypes
import itertools
import mmap
import os
import signal
from types import SimpleNamespace

import pytest

from fuse_server import fork
from places import LIBC, address, kind, pair, spot  # noqa: F401  (fixtures)
from privileges import check
from token_words import make_file, opened

BLOCK, SIZE = 4096, 2 * 4096
LONG_AGO = (1, 1)
LIBC.mmap.restype = ctypes.c_void_p
GETATTR = 'opcode == 3'


@pytest.fixture
def file(spot):
    """Of long ago, known to the mount as such: .path, .source."""
    make_file(spot.source / 'file', bytes(SIZE))
    file = SimpleNamespace(path=spot.path / 'file', source=spot.source / 'file')
    os.utime(file.path, LONG_AGO)
    return file


def mapping(file, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE, mode=os.O_RDWR):
    """The descriptor of a mapping does not last: mmap() has its own, which is closed with it."""
    with opened(file.path, mode) as fd:
        return mmap.mmap(fd, SIZE, flags=flags, prot=prot, trackfd=False)


def store(memory):
    """And write it, at the latest by which the times have to have moved."""
    memory[100] = memory[100] % 255 + 1
    memory.flush(0, BLOCK)


def expect_times_to_move(file, stores):
    """As the file below has them."""
    before = os.stat(file.path)
    stores()
    after, real = os.stat(file.path), os.stat(file.source)
    assert after.st_mtime_ns > before.st_mtime_ns and after.st_ctime_ns > before.st_ctime_ns
    assert (after.st_mtime_ns, after.st_ctime_ns) == (real.st_mtime_ns, real.st_ctime_ns)


def test_a_store_shows_at_once(file):
    """Each that follows, too; the file is open."""
    with opened(file.path, os.O_RDWR) as fd, mmap.mmap(fd, SIZE) as memory:
        for _ in range(3):
            expect_times_to_move(file, lambda: store(memory))
            os.utime(file.path, LONG_AGO)


def test_a_store_shows_after_the_file_was_closed(file):
    with mapping(file) as memory:
        expect_times_to_move(file, lambda: store(memory))


def test_a_store_shows_while_one_of_two_mappings_is_left(file):
    with mapping(file) as memory:
        with mapping(file) as other:
            expect_times_to_move(file, lambda: store(other))
            os.utime(file.path, LONG_AGO)
        expect_times_to_move(file, lambda: store(memory))


def test_a_store_shows_while_a_part_is_left_of_a_mapping(file):
    with mapping(file) as memory:
        check(LIBC.munmap(ctypes.c_void_p(address(memory) + BLOCK), BLOCK))
        expect_times_to_move(file, lambda: store(memory))


@pytest.fixture
def read_only(file):
    """The address of a mapping of a file that could be written to, but by nobody yet."""
    with opened(file.path, os.O_RDWR) as fd:
        place = LIBC.mmap(None, SIZE, mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0))
    yield place
    check(LIBC.munmap(ctypes.c_void_p(place), SIZE))


def test_a_store_shows_through_a_mapping_that_became_writable(file, read_only):
    SYNC = 4
    os.stat(file.path)
    check(LIBC.mprotect(ctypes.c_void_p(read_only), SIZE, mmap.PROT_READ | mmap.PROT_WRITE))

    def store_there():
        ctypes.memset(read_only + 100, 1, 1)
        check(LIBC.msync(ctypes.c_void_p(read_only), SIZE, SYNC))
    expect_times_to_move(file, store_there)


@pytest.fixture
def told():
    """Two pipes, for a child to be told something and to answer."""
    pipes = os.pipe(), os.pipe()
    yield pipes
    for fd in itertools.chain(*pipes):
        os.close(fd)


def test_a_store_of_a_child_shows(file, told):
    """Through a mapping that it inherited, and its parent has no more."""
    (order, say), (answer, tell) = told
    memory = mapping(file)
    child = fork()
    if not child:
        os.read(order, 1)
        store(memory)
        os.write(tell, b'x')
        signal.pause()
    memory.close()
    try:
        expect_times_to_move(file, lambda: os.write(say, b'x') and os.read(answer, 1))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_store_shows_by_every_name_and_descriptor(file, spot):
    os.link(file.path, spot.path / 'other')
    with mapping(file) as memory, opened(file.path, os.O_RDONLY) as fd:
        expect_times_to_move(SimpleNamespace(path=spot.path / 'other', source=file.source), lambda: store(memory))
        assert os.fstat(fd).st_mtime_ns == os.stat(file.source).st_mtime_ns


# What that costs

on_mounts = pytest.mark.parametrize('spot', ['mount'], indirect=True)
LOOKS = 20


def questions(file, trace):
    """How often the server is asked for the attributes of a file that somebody looks at LOOKS times."""
    os.stat(file.path)
    with trace('fuse:fuse_request_send', key='opcode', where=GETATTR) as requests:
        for _ in range(LOOKS):
            os.stat(file.path)
    return requests.hits


# A second may go by meanwhile, and directories are asked about, too.
FEW = LOOKS // 4


@on_mounts
def test_each_look_asks_while_somebody_can_store(file, trace):
    with mapping(file):
        assert abs(questions(file, trace) - LOOKS) < FEW
    assert questions(file, trace) < FEW


@on_mounts
def test_attributes_are_remembered_again_after_the_last_mapping(file, trace):
    with mapping(file):
        with mapping(file) as other:
            store(other)
        assert abs(questions(file, trace) - LOOKS) < FEW
    assert os.stat(file.path).st_mtime_ns == os.stat(file.source).st_mtime_ns
    assert questions(file, trace) < FEW


@on_mounts
@pytest.mark.parametrize('options', [
    {'flags': mmap.MAP_PRIVATE}, {'prot': mmap.PROT_READ, 'mode': os.O_RDONLY}, {'flags': mmap.MAP_PRIVATE, 'mode': os.O_RDONLY},
], ids=['private', 'read-only', 'private of a read-only file'])
def test_mappings_that_change_no_file_cost_nothing(file, trace, options):
    with mapping(file, **options) as memory:
        assert memory[100] == 0
        if options.get('flags') == mmap.MAP_PRIVATE:
            memory[100] = 1
        assert questions(file, trace) < FEW


@on_mounts
def test_files_that_are_not_mapped_cost_nothing(file, spot, trace):
    make_file(spot.source / 'other', b'')
    with mapping(file):
        assert questions(SimpleNamespace(path=spot.path / 'other'), trace) < FEW
