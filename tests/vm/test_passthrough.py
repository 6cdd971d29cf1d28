"""A passthrough file is to io_uring and NOWAIT what its backing file is."""
import ctypes
import errno
import mmap
import os
import select
from pathlib import Path

import pytest

import guest
from faults import overridden
from places import mount, served  # noqa: F401  (fixtures)
from uring import Ring

READ, WRITE = 22, 23   # IORING_OP_*
SIZE = 4 << 20
DEPTH = 128   # more than the kernel keeps ready for a CPU
POLL = 'opcode == 40'   # FUSE_POLL
PUNTED = 'io_uring:io_uring_queue_async_work'


@pytest.fixture(params=['ext4', 'mount'])
def place(request, mount):
    """The directory behind the mount, and the mount: both must behave alike."""
    return mount.source if request.param == 'ext4' else mount.path


@pytest.fixture
def file(mount):
    (mount.source / 'file').write_bytes(os.urandom(SIZE))
    drop_cache(mount.source / 'file')
    return mount.path / 'file'


@pytest.fixture
def opened(request):
    """Opens files that are closed in the end, before what they are on is unmounted."""
    for name in {'mount', 'overlay'} & set(request.fixturenames):
        request.getfixturevalue(name)
    descriptors = []

    def open_file(path, flags):
        descriptors.append(os.open(path, flags))
        return descriptors[-1]
    yield open_file
    for fd in descriptors:
        os.close(fd)


@pytest.fixture
def overlay(ext4, tmp_path):
    """An overlay whose layers are on ext4; it shares the kernel's helpers for backing files."""
    for name in ('lower', 'upper', 'work'):
        (ext4 / name).mkdir()
    (ext4 / 'lower' / 'file').write_bytes(os.urandom(SIZE))
    target = tmp_path / 'overlay'
    target.mkdir()
    guest.run('mount', '-t', 'overlay', '-o', f'lowerdir={ext4}/lower,upperdir={ext4}/upper,workdir={ext4}/work', 'overlay', target)
    yield target
    guest.unmount(target)


def drop_cache(path):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    # also what another CPU has not put on a list of pages yet, which fadvise() leaves
    Path('/proc/sys/vm/drop_caches').write_text('1')


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def read_blocks(fd, blocks=DEPTH):
    """So many reads of 4 KiB at once; what they read."""
    memory = mmap.mmap(-1, blocks * 4096)
    with Ring(entries=DEPTH) as ring:
        for block in range(blocks):
            ring.prepare(READ, fd, address(memory) + block * 4096, 4096, block * 4096)
        ring.submit()
        assert set(ring.wait_all(blocks).values()) == {4096}
    return memory[:]


def write_blocks(fd, blocks=DEPTH):
    """So many writes of 4 KiB at once; what they wrote."""
    memory = mmap.mmap(-1, blocks * 4096)
    memory[:] = os.urandom(blocks * 4096)
    with Ring(entries=DEPTH) as ring:
        for block in range(blocks):
            ring.prepare(WRITE, fd, address(memory) + block * 4096, 4096, block * 4096)
        ring.submit()
        assert set(ring.wait_all(blocks).values()) == {4096}
    return memory[:]


def read_nowait(fd, memory):
    """What a read at once gives: a number of bytes, or EAGAIN."""
    try:
        return os.preadv(fd, [memory], 0, os.RWF_NOWAIT)
    except OSError as error:
        assert error.errno == errno.EAGAIN
        return 'EAGAIN'


@pytest.mark.parametrize('flags', [os.O_RDONLY, os.O_RDONLY | os.O_DIRECT], ids=['buffered', 'direct'])
def test_reads_do_not_poll_the_server(file, mount, trace, opened, flags):
    fd = opened(file, flags)
    with trace('fuse:fuse_request_send', key='opcode', where=POLL) as polls:
        data = read_blocks(fd)
    assert polls.hits == 0
    assert data == (mount.source / 'file').read_bytes()[:len(data)]


def test_readiness_does_not_depend_on_the_server(file, trace, opened):
    with trace('fuse:fuse_request_send', key='opcode', where=POLL) as polls:
        poll = select.poll()
        poll.register(opened(file, os.O_RDWR), select.POLLIN | select.POLLOUT)
        assert poll.poll(0)[0][1] == select.POLLIN | select.POLLOUT
    assert polls.hits == 0


def test_no_regular_file_is_waited_for_with_epoll(file, place, opened):
    """As man mount.fuse-dmabuf says."""
    with select.epoll() as epoll, pytest.raises(PermissionError):
        epoll.register(opened(place / file.name, os.O_RDWR), select.EPOLLIN)


def test_direct_reads_need_no_worker(file, place, trace, opened):
    fd = opened(place / 'file', os.O_RDONLY | os.O_DIRECT)
    read_blocks(fd, 1)   # the extents are read by a worker
    with trace(PUNTED) as punted:
        read_blocks(fd)
    assert punted.hits == 0


def test_buffered_reads_that_miss_the_cache_are_completed_by_a_worker(file, mount, opened):
    data = read_blocks(opened(file, os.O_RDONLY))
    assert data == (mount.source / 'file').read_bytes()[:len(data)]


def test_nowait_direct_read(file, place, mount, opened):
    fd, memory = opened(place / 'file', os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
    os.preadv(fd, [memory], 0)
    memory[:] = bytes(4096)
    assert read_nowait(fd, memory) == 4096
    assert memory[:] == (mount.source / 'file').read_bytes()[:4096]


def test_nowait_read_outside_of_the_cache(file, place, mount, opened):
    """It starts to read ahead, so there may be data by the time it looks again."""
    memory = mmap.mmap(-1, 4096)
    if read_nowait(opened(place / 'file', os.O_RDONLY), memory) != 'EAGAIN':
        assert memory[:] == (mount.source / 'file').read_bytes()[:4096]


def test_nowait_read_from_the_cache(file, place, opened):
    fd, memory = opened(place / 'file', os.O_RDONLY), mmap.mmap(-1, 4096)
    os.preadv(fd, [memory], 0)
    assert read_nowait(fd, memory) == 4096


def test_nowait_direct_write(file, place, mount, opened):
    """Of a block that is written, where ext4 need not wait for its journal to note the time of the write."""
    fd, memory = opened(place / 'file', os.O_WRONLY | os.O_DIRECT), mmap.mmap(-1, 4096)
    os.pwritev(fd, [memory], 0)
    memory[:] = b'n' * 4096
    with overridden('kiocb_modified', value=0):
        assert os.pwritev(fd, [memory], 0, os.RWF_NOWAIT) == 4096
    assert (mount.source / 'file').read_bytes()[:4096] == memory[:]


def test_writes_of_a_deep_queue_arrive_and_grow_the_file(mount, opened):
    data = write_blocks(opened(mount.path / 'new', os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    assert os.stat(mount.path / 'new').st_size == len(data)
    assert (mount.source / 'new').read_bytes() == data


def test_overlayfs_reads_and_writes_in_a_deep_queue(overlay, ext4, opened):
    lower = (ext4 / 'lower' / 'file').read_bytes()
    assert read_blocks(opened(overlay / 'file', os.O_RDONLY | os.O_DIRECT)) == lower[:DEPTH * 4096]
    data = write_blocks(opened(overlay / 'file', os.O_WRONLY | os.O_DIRECT))
    assert (ext4 / 'upper' / 'file').read_bytes() == data + lower[len(data):]
    assert (ext4 / 'lower' / 'file').read_bytes() == lower


@pytest.fixture
def given_back(trace):
    """Counts the requests that the kernel has kept for the next ones, and gives back when somebody wants memory: given_back()."""
    [address] = [line.split()[0] for line in Path('/proc/kallsyms').read_text().splitlines() if line.split()[2] == 'backing_aio_scan']

    def want_memory():
        with trace('vmscan:mm_shrink_slab_end', sums=['retval'], where=f'shrink == 0x{address}') as seen:
            Path('/proc/sys/vm/drop_caches').write_text('2')
        return seen.sums['retval']
    return want_memory


def test_kept_requests_are_given_back_when_memory_is_wanted(file, opened, given_back):
    fd = opened(file, os.O_RDONLY | os.O_DIRECT)
    given_back()
    read_blocks(fd)
    assert given_back() > 0
    assert given_back() == 0
    read_blocks(fd)


@pytest.fixture
def second_processor():
    """Where this test runs, and what it may switch off."""
    online = Path('/sys/devices/system/cpu/cpu1/online')
    affinity = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {1})
    yield online
    online.write_text('1')
    os.sched_setaffinity(0, affinity)


def test_a_processor_that_is_switched_off_keeps_no_requests(file, mount, opened, given_back, second_processor):
    """What it had would be out of reach for who wants memory, until it is back."""
    fd = opened(file, os.O_RDONLY | os.O_DIRECT)
    given_back()
    read_blocks(fd)
    os.sched_setaffinity(0, {0})
    second_processor.write_text('0')
    given_back()
    second_processor.write_text('1')
    assert given_back() == 0
    data = read_blocks(fd)
    assert data == (mount.source / 'file').read_bytes()[:len(data)]
