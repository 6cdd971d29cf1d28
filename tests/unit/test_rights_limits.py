"""Limits of the file system below are the mount's, too: append-only files, space that is root's, links. And what one user can take, or do to the server."""
import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import subprocess

import pytest

import test_reserve
import uring
from ext4 import new_ext4
from places import end_of, fails, start_as
from privileges import acting_as, acting_as_root, permitted
from rights_places import ACCESS, KEPT, USER, acl_for, each, is_refused, make_file, mode_of, mounted, opening, place, punch, source  # noqa: F401  (fixtures)
from server import wait_until
from test_server import frozen
from test_share import FEW, files, limited, opened  # noqa: F401  (fixture)


# Append-only files


@contextlib.contextmanager
def append_only(path):
    with acting_as_root():
        subprocess.run(['chattr', '+a', path], check=True)
    try:
        yield
    finally:
        with acting_as_root():
            subprocess.run(['chattr', '-a', path], check=True)


@pytest.fixture
def log(place):
    """An append-only file that all may write. What it held is kept."""
    make_file(place.source / 'log', KEPT)
    with append_only(place.source / 'log'):
        yield place.path / 'log'
    assert (place.source / 'log').read_bytes().startswith(KEPT)


def write_to_mapping(path):
    with opening(path, os.O_RDWR | os.O_APPEND) as fd:
        memory = mmap.mmap(fd, len(KEPT))
        memory[:4] = b'lost'
        memory.flush()


def test_append_only_file_is_not_mapped_by_a_writer(log):
    with acting_as(USER), opening(log, os.O_RDWR | os.O_APPEND) as fd, pytest.raises(OSError):
        mmap.mmap(fd, len(KEPT))


def test_mapping_of_an_append_only_file_changes_nothing(log):
    def try_mapping():
        with contextlib.suppress(OSError):
            write_to_mapping(log)
    os.waitpid(start_as(USER, try_mapping), 0)   # a store may also end the program


def write_asynchronously(fd, content, offset):
    WRITE = 23
    data = ctypes.create_string_buffer(content)
    with uring.Ring(slots=0) as ring:
        ring.run(WRITE, fd, ctypes.addressof(data), len(content), offset)


def overwrite_after_clearing(fd, way):
    """Whatever refuses it. The content tells."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    with contextlib.suppress(OSError):
        OVERWRITES[way](fd)


OVERWRITES = {'write': lambda fd: (os.lseek(fd, 0, os.SEEK_SET), os.write(fd, b'lost')), 'write in place': lambda fd: os.pwrite(fd, b'lost', 0),
              'asynchronous write': lambda fd: write_asynchronously(fd, b'lost', 0), 'truncate': lambda fd: os.ftruncate(fd, 0), 'punch': punch,
              'copy_file_range': lambda fd: os.copy_file_range(fd, fd, 4, 4, 0)}


@each('way', OVERWRITES)
@each('flags', [os.O_WRONLY, os.O_RDWR], ids=['for writing', 'for both'])
def test_append_only_file_is_not_overwritten_when_o_append_is_cleared(log, way, flags):
    with acting_as(USER), opening(log, flags | os.O_APPEND) as fd:
        overwrite_after_clearing(fd, way)


@each('way', OVERWRITES)
def test_append_only_file_that_was_open_before_is_not_overwritten(place, way):
    """A mount that had begun with passthrough may refuse to open the file for writing."""
    make_file(place.source / 'log', KEPT)
    with opening(place.path / 'log', os.O_RDONLY), append_only(place.source / 'log'), acting_as(USER), contextlib.suppress(OSError):
        with opening(place.path / 'log', os.O_RDWR | os.O_APPEND) as fd:
            overwrite_after_clearing(fd, way)
    assert (place.source / 'log').read_bytes().startswith(KEPT)


def test_append_only_file_is_opened_for_appending_only(log):
    with acting_as(USER):
        assert is_refused(os.open, log, os.O_WRONLY) and is_refused(os.open, log, os.O_RDWR | os.O_APPEND | os.O_TRUNC) and is_refused(os.truncate, log, 0)


@each('mode', [0o666, 0o4666, 0o2666, 0o6777], ids=oct)
@each('uid', [USER, 0], ids=['user', 'root'])
def test_append_only_file_gets_longer_if_no_set_id_bit_has_to_go(place, mode, uid):
    file = make_file(place.source / 'log', KEPT, mode=mode)
    may = uid == 0 or mode == 0o666
    with append_only(file), acting_as(uid, capabilities=() if uid else permitted()), opening(place.path / 'log', os.O_WRONLY | os.O_APPEND) as fd:
        assert is_refused(os.write, fd, b'more') is not may
    assert mode_of(file) == mode and file.read_bytes() == KEPT + b'more' * may


# Space that is root's. Quotas have no place here: tests/vm/test_quotas.py.


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    with new_ext4(tmp_path_factory, 32 << 20, reserved=test_reserve.RESERVED) as directory:
        directory.chmod(0o777)
        yield directory


def share_blocks(root):
    """Two files have the same attributes, and two the same ACL: ext4 keeps both in one block, until one of them changes."""
    large, long_acl = os.urandom(2000), acl_for(5, 7)
    long_acl = long_acl[:12] + b''.join(struct.pack('<HHI', 2, 7, uid) for uid in range(30)) + long_acl[20:]
    for name in ('one', 'two'):
        (root / name).touch()
        os.setxattr(root / name, 'user.a', large)
        os.setxattr(root / name, 'user.b', large[:1000])
        (root / f'acl-{name}').touch()
        os.setxattr(root / f'acl-{name}', ACCESS, long_acl)


@pytest.fixture(params=['ext4', 'mount'])
def full(request, small, mounted):
    """All that users may have is in use; a test cannot tell where."""
    root = mounted(small).target if request.param == 'mount' else small
    end_of(start_as(USER, lambda: (share_blocks(root), test_reserve.prepare(root))))
    yield root
    subprocess.run(f'rm -r {root}/[a-k]* {root}/one {root}/two', shell=True, check=True)


SPLITS = {'removed attribute': lambda root: os.removexattr(root / 'one', 'user.a'),
          'changed attribute': lambda root: os.setxattr(root / 'one', 'user.b', b'b' * 1000),
          'mode': lambda root: os.chmod(root / 'acl-one', 0o700)}


@each('way', SPLITS)
def test_block_of_attributes_is_not_split_by_a_block_of_the_reserve(full, way):
    def split():
        with pytest.raises(OSError, match='No space left'):
            SPLITS[way](full)
    before = os.statvfs(full).f_bfree
    end_of(start_as(USER, split))
    assert os.statvfs(full).f_bavail == 0 and os.statvfs(full).f_bfree == before


# What one user can take


def test_users_together_leave_room_for_root(limited):
    held = []
    for uid in range(1000, 1040):
        with acting_as(uid):
            held += opened(files(limited), os.O_RDWR)
    others = opened(files(limited), os.O_RDWR, FEW)
    directories = opened(lambda i: limited.target, os.O_DIRECTORY, FEW)
    for fd in [*held, *others, *directories]:
        os.close(fd)
    assert len(others) == len(directories) == FEW
    assert 'descriptors are not enough' not in limited.said()


def test_directory_counts_as_three_files(limited):
    def count(path, flags):
        with acting_as(USER):
            held = opened(path, flags)
        for fd in held:
            os.close(fd)
        return len(held)
    directories = count(lambda i: limited.target, os.O_DIRECTORY)
    assert directories > FEW
    wait_until(lambda: count(files(limited), os.O_RDONLY) > 2.5 * directories, 3)   # the server hears of the end of an open a moment later


# Links


def test_source_whose_links_are_not_followed_has_a_mount_whose_links_are_not_followed(source, mounted, tmp_path):
    (source / 'linked').touch()
    (source / 'link').symlink_to('linked')
    subprocess.run(['mount', '--bind', '-o', 'nosymfollow', source, tmp_path], check=True)
    try:
        target = mounted(tmp_path).target
    finally:
        subprocess.run(['umount', tmp_path], check=True)
    assert (target / 'linked').exists() and os.readlink(target / 'link') == 'linked'
    with pytest.raises(OSError, match='Too many levels'):
        os.stat(target / 'link')


# The server's threads


ATTACKS = ['renice -n 5 -p {}', 'taskset -pc 0 {}', 'chrt -i -p 0 {}', 'ionice -c 3 -p {}', 'kill -s 0 {}', 'prlimit -p {} --nofile=10', 'ls /proc/{}/fd/',
           'cat /proc/{}/environ', 'timeout 5 strace -o /dev/null -p {}']


def threads_of(server, uid):
    """Those that carry that uid at this moment, for file systems."""
    return [thread for thread, ids in server.threads('Uid').items() if ids.split()[3] == f'{uid}']


def test_thread_that_carries_a_users_id_is_not_that_users(small, mounted):
    server = mounted(small)
    with frozen(small):
        child = start_as(USER, lambda: os.mkdir(server.target / 'waits'))
        wait_until(lambda: threads_of(server, USER))
        thread, = threads_of(server, USER)
        for attack in ATTACKS:
            fails('/', attack.format(thread), uid=USER)
        assert threads_of(server, USER) == [thread]
    end_of(child)
    os.rmdir(server.target / 'waits')
