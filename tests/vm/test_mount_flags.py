"""Flags that change after a file was opened (F_SETFL), and flags of single calls (RWF_*): on the mount they do what they do to the file below."""
import contextlib
import fcntl
import hashlib
import itertools
import mmap
import os
import random
import subprocess
from types import SimpleNamespace

import pytest

from places import (  # noqa: F401  (fixtures)
    Calls, Requests, aligned, cache_of, io, kind, no_time_to_note, outcome, pair, set_flags, spot, twins,
)  # fmt: skip
from privileges import acting_as
from token_words import make_file, opened, random_bytes
from uring import Ring

BLOCK, SIZE = 4096, 8 * 4096
DATA = random_bytes(SIZE)

HIPRI, DSYNC, SYNC, NOWAIT, APPEND, NOAPPEND, ATOMIC, DONTCACHE, NOSIGNAL = KNOWN = [1 << bit for bit in range(9)]
NAMES = dict(zip(KNOWN, ['HIPRI', 'DSYNC', 'SYNC', 'NOWAIT', 'APPEND', 'NOAPPEND', 'ATOMIC', 'DONTCACHE', 'NOSIGNAL']))
UNKNOWN = [1 << bit for bit in (9, 31)]
COMBINED = [
    APPEND | NOAPPEND, APPEND | DSYNC, APPEND | NOWAIT, APPEND | ATOMIC, NOAPPEND | SYNC, NOAPPEND | NOWAIT, NOWAIT | DONTCACHE, NOWAIT | HIPRI,
    DONTCACHE | APPEND, DONTCACHE | UNKNOWN[0], ATOMIC | NOSIGNAL,
]  # fmt: skip


def names(flags):
    return ' | '.join(NAMES.get(1 << bit, hex(1 << bit)) for bit in range(32) if flags >> bit & 1) or 'no flag'


def new_file(place, name='file'):
    """Known bytes, on disk and not cached by the mount: its path, and the source below."""
    make_file(place.source / name, DATA)
    return SimpleNamespace(path=place.path / name, source=place.source / name)


@pytest.fixture
def file(spot):
    return new_file(spot)


# O_DIRECT

def test_o_direct_cleared_allows_any_size(file, io):
    with opened(file.path, os.O_RDWR | os.O_DIRECT) as fd:
        assert io.write(fd, aligned(b'a' * BLOCK), SIZE) == BLOCK
        set_flags(fd, off=os.O_DIRECT)
        assert io.write(fd, bytearray(b'tail'), SIZE + BLOCK) == 4
        assert os.fstat(fd).st_size == SIZE + BLOCK + 4
        memory = bytearray(9)
        assert io.read(fd, memory, SIZE + BLOCK - 1) == 5 and memory[:5] == b'atail'
    assert file.source.read_bytes() == DATA + b'a' * BLOCK + b'tail'


def test_o_direct_set_wants_alignment(file, io):
    with opened(file.path, os.O_RDWR) as fd:
        assert io.read(fd, bytearray(100), 1) == 100
        set_flags(fd, on=os.O_DIRECT)
        assert outcome(io.read, fd, bytearray(100), 1) == outcome(io.write, fd, bytearray(100), 1) == 'EINVAL'
        set_flags(fd, off=os.O_DIRECT)
        assert io.write(fd, bytearray(b'x' * 100), 1) == 100
    assert file.source.read_bytes() == DATA[:1] + b'x' * 100 + DATA[101:]


def test_o_direct_set_and_cleared_goes_past_the_cache_and_through_it(file, io):
    """Each sees what the other has written."""
    memory, written = aligned(BLOCK), 0
    with opened(file.path, os.O_RDWR) as fd:
        for round in range(4):
            set_flags(fd, on=os.O_DIRECT) if round % 2 else set_flags(fd, off=os.O_DIRECT)
            assert io.read(fd, memory, 0) == BLOCK and memory == (bytes([written]) * BLOCK if written else DATA[:BLOCK])
            written = round + 1
            assert io.write(fd, aligned(bytes([written]) * BLOCK), 0) == BLOCK


def test_o_direct_set_leaves_the_cache_empty(file, io):
    with opened(file.path, os.O_RDWR) as fd, opened(file.source, os.O_RDONLY) as below:
        set_flags(fd, on=os.O_DIRECT)
        os.posix_fadvise(below, 0, 0, os.POSIX_FADV_DONTNEED)
        assert io.read(fd, aligned(BLOCK), 0) == io.write(fd, aligned(BLOCK), BLOCK) == BLOCK
        assert cache_of(file.source).cached == 0
        set_flags(fd, off=os.O_DIRECT)
        assert io.read(fd, aligned(BLOCK), 0) == BLOCK and cache_of(file.source).cached > 0


def test_dd_writes_its_last_partial_block(spot):
    (spot.source / 'from').write_bytes(DATA + b'end')
    subprocess.run(['dd', f'if={spot.path}/from', f'of={spot.path}/to', 'bs=8K', 'oflag=direct'], check=True, stderr=subprocess.DEVNULL)
    assert (spot.source / 'to').read_bytes() == DATA + b'end'


# O_APPEND

def test_o_append_cleared_writes_in_place(file, io):
    with opened(file.path, os.O_RDWR | os.O_APPEND) as fd:
        set_flags(fd, off=os.O_APPEND)
        assert io.write(fd, bytearray(b'here'), -1) == 4 and os.lseek(fd, 0, os.SEEK_CUR) == 4
        assert io.write(fd, bytearray(b'there'), BLOCK) == 5
        assert os.fstat(fd).st_size == SIZE
    assert file.source.read_bytes() == b'here' + DATA[4:BLOCK] + b'there' + DATA[BLOCK + 5:]


def test_o_append_set_writes_at_the_end(file, io):
    """Wherever that is by now, and whatever the offset."""
    with opened(file.path, os.O_RDWR) as fd:
        set_flags(fd, on=os.O_APPEND)
        assert io.write(fd, bytearray(b'one'), -1) == 3 and os.lseek(fd, 0, os.SEEK_CUR) == SIZE + 3
        with open(file.source, 'ab') as behind:
            behind.write(b'two')
        assert io.write(fd, bytearray(b'three'), -1) == 5 and os.lseek(fd, 0, os.SEEK_CUR) == SIZE + 11
        assert io.write(fd, bytearray(b'four'), 0) == 4
        assert os.fstat(fd).st_size == SIZE + 15
        set_flags(fd, off=os.O_APPEND)
        assert io.write(fd, bytearray(b'first'), 0) == 5
    assert file.source.read_bytes() == b'first' + DATA[5:] + b'onetwothreefour'


def splice(source, fd, count, to):
    reader, writer = os.pipe()
    try:
        return os.splice(reader, fd, os.splice(source, writer, count, offset_src=0), offset_dst=to)
    finally:
        os.close(reader)
        os.close(writer)


def sendfile(source, fd, count, to):
    os.lseek(fd, to, os.SEEK_SET)
    return os.sendfile(fd, source, 0, count)


def copy_file_range(source, fd, count, to):
    return os.copy_file_range(source, fd, count, 0, to)


@pytest.mark.parametrize('copy, refusal', [(splice, 'EINVAL'), (sendfile, 'EINVAL'), (copy_file_range, 'EBADF')], ids=['splice', 'sendfile', 'copy_file_range'])
def test_o_append_excludes_copies_in_the_kernel(file, spot, copy, refusal):
    make_file(spot.source / 'from', b'copied')
    with opened(spot.path / 'from', os.O_RDONLY) as source, opened(file.path, os.O_RDWR | os.O_APPEND) as fd:
        assert outcome(copy, source, fd, 6, 100) == refusal
        set_flags(fd, off=os.O_APPEND)
        assert copy(source, fd, 6, 100) == 6
        set_flags(fd, on=os.O_APPEND)
        assert outcome(copy, source, fd, 6, 200) == refusal
        assert os.fstat(fd).st_size == SIZE
    assert file.source.read_bytes() == DATA[:100] + b'copied' + DATA[106:]


# O_NOATIME

def read_spliced(fd):
    reader, writer = os.pipe()
    assert os.splice(fd, writer, 100, offset_src=0) == 100
    os.close(reader)
    os.close(writer)


def read_by_ring(fd):
    with Ring() as ring:
        assert Requests(ring).read(fd, aligned(BLOCK), 0) == BLOCK


def read_mapped(fd):
    with mmap.mmap(fd, BLOCK, prot=mmap.PROT_READ) as memory:
        assert memory[0] == DATA[0]


READS = {'read': lambda fd: Calls().read(fd, aligned(BLOCK), 0), 'ring': read_by_ring, 'splice': read_spliced, 'mapping': read_mapped}


def test_o_noatime_cleared_and_set(file):
    for how, direct in [*((how, 0) for how in READS), ('read', os.O_DIRECT), ('ring', os.O_DIRECT)]:
        with opened(file.path, os.O_RDONLY | os.O_NOATIME | direct) as fd:
            for noatime in (True, False, True):
                set_flags(fd, off=os.O_NOATIME, on=os.O_NOATIME if noatime else 0)
                os.utime(file.source, (1, 1))
                READS[how](fd)
                assert (os.stat(file.source).st_atime == 1) == noatime, f'{how}{direct and ", direct"}, O_NOATIME is {noatime}'


def test_o_noatime_is_for_the_owner(file):
    with opened(file.path, os.O_RDONLY) as fd, acting_as(1000):
        assert outcome(set_flags, fd, os.O_NOATIME) == 'EPERM'


# Flags that do nothing

def test_o_nonblock_changes_nothing(file, io):
    with opened(file.path, os.O_RDWR) as fd:
        set_flags(fd, on=os.O_NONBLOCK)
        memory = aligned(SIZE)
        assert io.read(fd, memory, 0) == SIZE and memory == DATA
        assert io.write(fd, aligned(b'n' * SIZE), SIZE) == SIZE
        assert os.fstat(fd).st_size == 2 * SIZE
        with contextlib.suppress(BlockingIOError):
            os.read(fd, SIZE)
    assert file.source.read_bytes() == DATA + b'n' * SIZE


def test_no_flag_of_syncing_is_set_later(file):
    with opened(file.path, os.O_RDWR) as fd:
        set_flags(fd, on=os.O_SYNC | os.O_DSYNC)
        assert not fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_SYNC | os.O_DSYNC)


@pytest.mark.parametrize('direct', [0, os.O_DIRECT], ids=['buffered', 'direct'])
def test_writes_are_synced_that_shall_be(file, trace, direct):
    """The device is told to flush what it caches, or to write through its cache."""
    many = SIZE // BLOCK
    with trace('block:block_rq_issue', key='dev', where='rwbs ~ "*F*"') as seen, Ring() as ring:
        def flushes(flags=0, opened_with=0, later=0, io=Calls()):
            with opened(file.path, os.O_WRONLY | direct | opened_with) as fd:
                set_flags(fd, on=later)
                os.fsync(fd)
                before = seen.update().hits
                for block in range(0, SIZE, BLOCK):
                    assert io.write(fd, aligned(BLOCK), block, flags) == BLOCK
                return seen.update().hits - before
        assert flushes() < many and flushes(later=os.O_SYNC) < many
        assert flushes(DSYNC) >= many and flushes(SYNC) >= many and flushes(DSYNC, io=Requests(ring)) >= many
        assert flushes(opened_with=os.O_DSYNC) >= many


# Flags of a call

OPENED = {'buffered': 0, 'append': os.O_APPEND, 'direct': os.O_DIRECT, 'direct append': os.O_DIRECT | os.O_APPEND}


def request(io, fd, source, writes, flags, byte):
    """A request at position BLOCK, what comes of it, and how that leaves all. By io_uring with an offset: not each that is done later moves the position."""
    call, memory = (io.write, aligned(bytes([byte]) * BLOCK)) if writes else (io.read, aligned(BLOCK))
    if flags & NOWAIT:   # the block is written, or cached
        outcome(call, fd, memory, BLOCK, NOAPPEND if writes else 0)
    os.lseek(fd, BLOCK, os.SEEK_SET)
    for _ in range(5):   # who has written a moment ago may still hold a lock
        result = outcome(call, fd, memory, -1 if isinstance(io, Calls) else BLOCK, flags)
        if result != 'EAGAIN':
            break
    position, size = os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_size
    content = source.read_bytes()
    if size > SIZE:
        os.ftruncate(fd, SIZE)
    return result, position, size, hashlib.md5(content).hexdigest(), hashlib.md5(memory).hexdigest()


@pytest.mark.parametrize('io, opened_with', [*(('calls', name) for name in OPENED), ('ring', 'append'), ('ring', 'direct')], indirect=['io'])
def test_flags_of_a_call_do_the_same_on_the_mount(twins, io, no_time_to_note, opened_with):
    files, flags = [new_file(twin) for twin in twins], os.O_RDWR | OPENED[opened_with]
    wrong = []
    with opened(files[0].path, flags) as below, opened(files[1].path, flags) as mounted:
        for byte, (flags, writes) in enumerate(itertools.product([0, *KNOWN, *UNKNOWN, *COMBINED], [False, True])):
            found = [request(io, fd, file.source, writes, flags, byte) for fd, file in zip((below, mounted), files)]
            if found[0] != found[1]:
                wrong.append(f'{"write" if writes else "read"} with {names(flags)}: {found[0][:3]} below, {found[1][:3]} on the mount')
                for file in files:
                    make_file(file.source, DATA)
    assert not wrong, '\n'.join(wrong)


# All of it at random

CHANGEABLE = [os.O_APPEND, os.O_DIRECT, os.O_NOATIME, os.O_NONBLOCK]
SIZES = [1, 100, 511, 512, 1000, BLOCK, 5000, 2 * BLOCK]


class Twin:
    """Two descriptors of one file and one of another, and the ways to use them. Each step returns all that can be compared."""

    def __init__(self, place, ring):
        self.files = [new_file(place), new_file(place, 'other')]
        one, other = (file.path for file in self.files)
        self.fds = [os.open(one, os.O_RDWR), os.open(one, os.O_RDWR | os.O_APPEND | os.O_DIRECT), os.open(other, os.O_RDWR)]
        self.ways = Calls(), Requests(ring)

    def do(self, step, *arguments):
        result = outcome(getattr(self, step), *arguments)
        return result, [(os.lseek(fd, 0, os.SEEK_CUR), os.fstat(fd).st_size, fcntl.fcntl(fd, fcntl.F_GETFL)) for fd in self.fds]

    def content(self):
        return [hashlib.md5(file.source.read_bytes()).hexdigest() for file in self.files]

    def set(self, which, flags):
        return set_flags(self.fds[which], on=flags, off=sum(CHANGEABLE))

    def read(self, which, way, size, offset, flags):
        memory = aligned(size)
        count = self.ways[way].read(self.fds[which], memory, offset, flags)
        return count, hashlib.md5(memory).hexdigest()

    def write(self, which, way, size, offset, flags, seed):
        return self.ways[way].write(self.fds[which], aligned(random_bytes(size, seed)), offset, flags)

    def seek(self, which, offset):
        return os.lseek(self.fds[which], offset, os.SEEK_SET)

    def truncate(self, which, size):
        return os.ftruncate(self.fds[which], size)

    def sync(self, which):
        return os.fsync(self.fds[which])

    def splice_in(self, which, size, offset, seed):
        reader, writer = os.pipe()
        try:
            os.write(writer, random_bytes(size, seed))
            return os.splice(reader, self.fds[which], size, offset_dst=offset)
        finally:
            os.close(reader)
            os.close(writer)

    def splice_out(self, which, size, offset):
        reader, writer = os.pipe()
        try:
            count = os.splice(self.fds[which], writer, size, offset_src=offset)
            return count, os.read(reader, count) if count else b''
        finally:
            os.close(reader)
            os.close(writer)

    def copy(self, source, which, size, start, to):
        """With O_DIRECT the file systems below want alignment; by the server there is nothing to align."""
        if any(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT for fd in (self.fds[source], self.fds[which])):
            return None
        return os.copy_file_range(self.fds[source], self.fds[which], size, start, to)

    def send(self, source, which, size, start):
        return os.sendfile(self.fds[which], self.fds[source], start, size)

    def close(self):
        for fd in self.fds:
            os.close(fd)


def any_step(chance):
    which, size, offset = chance.randrange(3), chance.choice(SIZES), chance.choice([0, 1, 512, BLOCK, 3 * BLOCK + 7, SIZE - 512])
    way, seed = chance.randrange(2), chance.randrange(1000)
    here = offset if way else chance.choice([offset, -1])   # io_uring moves the position when it likes
    flags = chance.choice([0, 0, 0, DSYNC, SYNC, APPEND, NOAPPEND, NOAPPEND | DSYNC, DONTCACHE, ATOMIC, NOSIGNAL])
    return chance.choices([
        ('set', which, sum(flag for flag in CHANGEABLE if chance.random() < 0.3)),
        ('read', which, way, size, here, flags),
        ('write', which, way, size, here, flags, seed),
        ('seek', which, offset),
        ('truncate', which, chance.choice([0, 1000, SIZE, SIZE + 10])),
        ('sync', which),
        ('splice_in', which, size, None if here < 0 else here, seed),
        ('splice_out', which, size, None if here < 0 else here),
        ('copy', chance.randrange(3), which, size, offset, chance.choice([0, 100, 2 * BLOCK])),
        ('send', chance.randrange(3), which, size, offset),
    ], [8, 6, 10, 2, 1, 1, 3, 3, 3, 2])[0]


@pytest.mark.parametrize('seed', range(2))
def test_random_steps_do_the_same_on_the_mount(twins, seed):
    chance, done = random.Random(seed), []
    with Ring() as ring, contextlib.closing(Twin(twins[0], ring)) as below, contextlib.closing(Twin(twins[1], ring)) as mounted:
        for number in range(200):
            done.append(any_step(chance))
            wanted, found = below.do(*done[-1]), mounted.do(*done[-1])
            assert found == wanted, f'step {number}, after {done[-6:]}'
            if number % 10 == 9:
                assert mounted.content() == below.content(), f'the files differ after {done[-10:]}'
