"""File data passes by the server."""
import mmap
import os
import subprocess

import pytest

import guest
from places import mount, open_files_of, served, server_of, sh  # noqa: F401  (fixtures)

# <linux/fuse.h>
READ, WRITE = 15, 16
DATA = 'opcode == 15 || opcode == 16'


def copy(source, target, *options):
    subprocess.run(['dd', f'if={source}', f'of={target}', 'bs=128K', *options], check=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def file(mount):
    (mount.source / 'file').write_bytes(os.urandom(4 << 20))
    return mount.path / 'file'


def test_reads_do_not_reach_the_server(file, trace):
    with trace('fuse:fuse_request_send', key='opcode', where=DATA) as requests:
        copy(file, '/dev/null')
        copy(file, '/dev/null', 'iflag=direct')
    assert requests.hits == 0


def test_writes_do_not_reach_the_server(file, trace):
    with trace('fuse:fuse_request_send', key='opcode', where=DATA) as requests:
        for flags in ([], ['oflag=direct'], ['oflag=append']):
            copy('/dev/zero', file, 'count=8', 'conv=notrunc', *flags)
    assert requests.hits == 0


def test_mapped_pages_do_not_reach_the_server(file, mount, trace):
    with trace('fuse:fuse_request_send', key='opcode', where=DATA) as requests, open(file, 'r+b') as opened:
        memory = mmap.mmap(opened.fileno(), 0)
        assert memory[:] == (mount.source / 'file').read_bytes()
        memory[:4] = b'data'
        memory.flush()
        memory.close()
    assert requests.hits == 0


def test_opens_in_all_modes_share_one_file(file, mount):
    """Each open keeps its own flags, O_DIRECT too, on the one backing file that an inode may have."""
    plain = (mount.source / 'file').read_bytes()
    flags = [os.O_RDONLY, os.O_RDWR | os.O_DIRECT, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_DIRECT, os.O_RDWR]
    opened = [os.open(file, f) for f in flags]
    os.write(opened[2], b'appended')
    buffer = mmap.mmap(-1, 4096)
    for fd in opened[:2] + opened[3:]:
        assert os.preadv(fd, [buffer], 4096) == 4096
        assert buffer[:] == plain[4096:8192]
    for fd in opened:
        os.close(fd)
    assert (mount.source / 'file').read_bytes() == plain + b'appended'


def test_server_keeps_no_file_open_for_nobody(file, served):
    server = server_of(served.path)
    name = '/' + str(file.relative_to(served.path))

    def open_files():
        return [link for link in open_files_of(server) if link == name]
    for _ in range(20):
        with open(file, 'rb') as one, open(file, 'rb') as other:
            assert one.read(10) == other.read(10)
    with open(file, 'r+b') as writer:
        assert len(open_files()) >= 2   # the node and the open
        os.fsync(writer.fileno())
    with open(file, 'rb') as reader:
        assert len(open_files()) == 1   # whoever only reads needs none
        os.fsync(reader.fileno())
        assert len(open_files()) == 2   # except for this
    sh('/', 'echo 2 >/proc/sys/vm/drop_caches')
    assert len(open_files()) <= 1


@pytest.fixture
def stacked(mount, tmp_path):
    """The source is a mount of this server already: too deep a stack for passthrough."""
    target = guest.mount_server(mount.path, tmp_path / 'stacked')
    yield target
    guest.unmount(target)


def test_without_passthrough_data_goes_through_the_server(stacked, mount, trace):
    data = os.urandom(3 << 20)
    with trace('fuse:fuse_request_send', key='opcode', where=DATA) as requests:
        (stacked / 'file').write_bytes(data)
        assert (stacked / 'file').read_bytes() == data
    assert requests.by_key[READ] > 0 and requests.by_key[WRITE] > 0
    assert (mount.source / 'file').read_bytes() == data


def test_without_passthrough_every_kind_of_open_works(stacked, mount):
    (stacked / 'file').write_bytes(b'x' * 8192)
    fd = os.open(stacked / 'file', os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 4096)
    assert os.preadv(fd, [buffer], 4096) == 4096 and buffer[:] == b'x' * 4096
    buffer[:] = b'y' * 4096
    assert os.pwritev(fd, [buffer], 0) == 4096
    os.close(fd)
    with open(stacked / 'file', 'ab') as file:
        file.write(b'end')
    with open(stacked / 'file', 'r+b') as file:
        memory = mmap.mmap(file.fileno(), 8192)
        memory[4096:4098] = b'mm'
        memory.close()
    assert (mount.source / 'file').read_bytes() == b'y' * 4096 + b'mm' + b'x' * 4094 + b'end'


def test_without_passthrough_mapped_pages_of_an_appending_open_stay_in_their_place(stacked, mount):
    (stacked / 'file').write_bytes(b'x' * 8192)
    fd = os.open(stacked / 'file', os.O_RDWR | os.O_APPEND)
    memory = mmap.mmap(fd, 8192)
    memory[0:4] = b'here'
    memory.flush()
    os.write(fd, b'end')
    memory.close()
    os.close(fd)
    assert (mount.source / 'file').read_bytes() == b'here' + b'x' * 8188 + b'end'
