"""What moves without a token, of real files: what the page cache has, direct I/O for the rest, and who is told what the page cache has."""
import ctypes
import mmap
import os
import random
from pathlib import Path as File

import pytest

from children import in_child
from ext4 import new_ext4, on_mount, on_mount_without_passthrough  # noqa: F401
from library import COPY_THREADS_NONE, WHOLE_BLOCKS, Path, Reason

KIB, MIB = 1 << 10, 1 << 20
SIZE = 8 * MIB
LIBC = ctypes.CDLL(None, use_errno=True)
CONTENT = random.Random(3).randbytes(SIZE)

pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork')


@pytest.fixture(scope='module')
def ext4(tmp_path_factory):
    """Its page cache is as that of a disk: on tmpfs nothing could be dropped."""
    with new_ext4(tmp_path_factory, 96 * MIB, 0) as directory:
        yield directory


@pytest.fixture(params=['ext4', 'on_mount', 'on_mount_without_passthrough'])
def place(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def path(ext4):
    """A file of 8 MiB that is not in the page cache."""
    file = ext4 / 'file'
    file.write_bytes(CONTENT)
    os.sync()
    forget(file)
    yield file
    file.unlink()


def forget(file):
    with open(file, 'rb') as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def remember(file, begin, length):
    """Reads the range, and only that, into the page cache."""
    with open(file, 'rb', buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        assert len(os.pread(opened.fileno(), length, begin)) == length


def cached_bytes(file):
    """By mincore(2), as root."""
    with open(file, 'r+b') as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        pages = ctypes.create_string_buffer(len(mapped) // mmap.PAGESIZE)
        begin = ctypes.c_char.from_buffer(mapped)
        address = ctypes.c_void_p(ctypes.addressof(begin))
        assert LIBC.mincore(address, ctypes.c_size_t(len(mapped)), pages) == 0
        del begin
        return sum(byte & 1 for byte in pages.raw) * mmap.PAGESIZE


def read(library, path, **options):
    """Reads all of it, which has to be right: the counters."""
    with library.file(bytes(path)) as file, library.allocate('memory', SIZE) as buffer, library.queue(**options) as queue:
        assert queue.read([(file, 0, buffer, 0, SIZE)], WHOLE_BLOCKS) == SIZE
        assert buffer.read(0, SIZE) == CONTENT
        return queue.counters


def as_user(function, user):
    """Runs it in a process of its own, of that user."""
    def run():
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        assert LIBC.prctl(4, 1) == 0   # PR_SET_DUMPABLE, which setuid(2) resets: /proc/self stays the process's own
        function()
    in_child(run)


@pytest.mark.parametrize('threads', [0, 3, COPY_THREADS_NONE])
def test_what_is_cached_is_copied_and_the_rest_is_read_directly(library, path, threads):
    for begin, length in ((2 * MIB, MIB), (5 * MIB, 192 * KIB)):
        remember(path, begin, length)
    before = cached_bytes(path)
    counters = read(library, path, copy_threads=threads)
    assert (counters.bytes_cached, counters.bytes_copied) == (MIB + 192 * KIB,) * 2
    assert counters.bytes_direct_io == SIZE - counters.bytes_cached
    assert cached_bytes(path) == before   # asking and reading have brought nothing else


def test_nothing_is_read_again_that_is_cached(library, path):
    remember(path, 0, SIZE)
    counters = read(library, path)
    assert (counters.bytes_cached, counters.requests) == (SIZE, 0)


def test_what_was_just_written_is_read(library, path):
    """Dirty pages are newer than the disk."""
    with open(path, 'r+b') as file:
        file.seek(3 * MIB)
        file.write(b'new' * MIB)
        file.flush()
        with library.file(bytes(path)) as opened, library.allocate('memory', SIZE) as buffer, library.queue() as queue:
            assert queue.read([(opened, 0, buffer, 0, SIZE)]) == SIZE
            assert buffer.read(0, SIZE) == CONTENT[:3 * MIB] + b'new' * MIB + CONTENT[6 * MIB:]


def test_passthrough_finds_what_the_backing_file_has(library, path, on_mount):
    """The pages are not those of the FUSE file."""
    remember(path, 2 * MIB, 2 * MIB)
    counters = read(library, on_mount / path.name)
    assert (counters.bytes_cached, counters.bytes_direct_io) == (2 * MIB, SIZE - 2 * MIB)


@pytest.mark.parametrize('state', ['cold', 'warm'])
@pytest.mark.parametrize('user', [0, 65534])
def test_bytes_are_right_everywhere_and_for_everybody(library, path, place, user, state):
    file = place / path.name
    if state == 'warm':
        remember(path, 0, SIZE)

    def run():
        counters = read(library, file)
        assert counters.bytes_copied + counters.bytes_direct_io == SIZE
    as_user(run, user)


def test_other_users_do_not_believe_that_all_is_cached(library, path, on_mount):
    """mincore(2) tells them so, and cachestat(2) nothing: they ask for two pages of each request, which are then there."""
    for file in (path, on_mount / path.name):
        before = cached_bytes(path)

        def run(file=file):
            assert read(library, file).bytes_cached == 0
        as_user(run, 65534)
        assert cached_bytes(path) - before <= 2 * 4 * mmap.PAGESIZE


def test_other_users_take_what_is_cached_if_all_is(library, path):
    remember(path, 0, SIZE)

    def run():
        assert read(library, path).bytes_cached == SIZE
    as_user(run, 65534)


@pytest.mark.parametrize('length', [1, 511, 4096, 4097, 3 * MIB + 5, 6 * MIB])
@pytest.mark.parametrize('begin', [0, 1, 4095, 4096, MIB + 512])
def test_odd_ranges_move_both_ways(library, path, begin, length):
    remember(path, 0, 2 * MIB)
    with library.file(bytes(path), os.O_RDWR) as file, library.allocate('memory', SIZE) as buffer, library.queue() as queue:
        buffer.fill()
        assert queue.read([(file, begin, buffer, begin, length)]) == length
        assert buffer.read(0, SIZE) == b'\xee' * begin + CONTENT[begin:begin + length] + b'\xee' * (SIZE - begin - length)
        buffer.fill(0x55)
        assert queue.write([(file, begin, buffer, begin, length)]) == length
        assert path.read_bytes() == CONTENT[:begin] + b'\x55' * length + CONTENT[begin + length:]


def test_path_says_direct_io_and_why_there_is_no_token(library, path):
    with library.file(bytes(path)) as file, library.allocate('memory', SIZE) as buffer, library.queue() as queue:
        result = queue.check((file, 0, buffer, 0, SIZE))
        assert (result.path, result.reason) == (Path.DIRECT_IO, Reason.NO_DMABUF)
        assert result.text.decode() == 'the buffer is ordinary memory, not a dma-buf'
        assert queue.check((file, 0, buffer, 3, 4096)).path == Path.BOUNCE
    with library.file(bytes(path)) as file, library.allocate('memory', SIZE) as buffer, library.queue(Path.BOUNCE) as queue:
        assert queue.check((file, 0, buffer, 0, SIZE)).path == Path.BOUNCE


def test_threads_end_with_the_queue(library, path):
    def copiers():
        return sum(task.read_text() == 'fdmabuf-copy\n' for task in File('/proc/self/task').glob('*/comm'))
    remember(path, 0, SIZE)
    with library.file(bytes(path)) as file, library.allocate('memory', SIZE) as buffer:
        with library.queue(copy_threads=3, chunk=MIB) as queue:
            assert queue.read([(file, 0, buffer, 0, SIZE)]) == SIZE
            assert 1 <= copiers() <= 3
        assert copiers() == 0


def test_command_bounds_the_threads_and_refuses_nonsense(load, checkpoint):
    model = checkpoint({'a': {'dtype': 'U8', 'shape': [SIZE], 'data_offsets': [0, SIZE]}}, CONTENT)
    for threads in (0, 1, 256):
        loaded = load(model, 'memory', '--verify', '--copy-threads', threads)
        assert (loaded.code, loaded.summary['bytes_cached']) == (0, model.stat().st_size)
    for nonsense in ('257', '-1', 'x', ''):
        loaded = load(model, 'memory', '--copy-threads', nonsense)
        assert loaded.code == 2 and '--copy-threads' in loaded.error
