"""More files than descriptors, big directories, and handles of files: what the server knows of a file while nobody uses it."""
import ctypes
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from places import server_of, sh, wait_until

HELPER = '/sbin/mount.fuse-dmabuf'
LIBC = ctypes.CDLL(None, use_errno=True)
DESCRIPTORS, MANY = 120, 300


@pytest.fixture
def limited(ext4, tmp_path):
    """A mount whose server may have few descriptors, with many files in its source: .path, .source, .pid."""
    target = tmp_path / 'target'
    target.mkdir()
    for i in range(MANY):
        (ext4 / f'{i}').write_text(f'{i}')
    words = ['setpriv', '--bounding-set=-sys_resource', '--inh-caps=-sys_resource', 'prlimit', f'--nofile={DESCRIPTORS}:{DESCRIPTORS}']
    with subprocess.Popen([*words, HELPER, ext4, target, '-f', '-o', 'log=warning'], text=True, stderr=subprocess.PIPE) as server:
        wait_until(lambda: os.path.ismount(target))
        yield SimpleNamespace(path=target, source=ext4, pid=server_of(target))
        server.terminate()
        assert server.stderr.read() == ''


def descriptors_of(pid):
    return len(os.listdir(f'/proc/{pid}/fd'))


def forget_everything():
    Path('/proc/sys/vm/drop_caches').write_text('2', encoding='ascii')


def handle_of(path):
    handle = ctypes.create_string_buffer((120).to_bytes(4, 'little'), 128)
    if LIBC.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(ctypes.c_int()), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return handle.raw


def open_handle(mountpoint, handle):
    mount_fd = os.open(mountpoint, os.O_RDONLY)
    fd = LIBC.open_by_handle_at(mount_fd, handle, os.O_RDONLY)
    os.close(mount_fd)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd


# More files than descriptors

def test_more_files_are_known_than_the_server_has_descriptors(limited):
    held = [os.open(limited.path / f'{i}', os.O_PATH) for i in range(MANY)]
    assert descriptors_of(limited.pid) < DESCRIPTORS * 3 // 4
    for i, fd in enumerate(held):
        assert os.fstat(fd).st_ino == os.stat(limited.source / f'{i}').st_ino
        assert Path(f'/proc/self/fd/{fd}').read_text() == f'{i}'
        os.close(fd)


def test_they_can_be_changed_moved_and_removed(limited):
    for i in range(MANY):
        os.stat(limited.path / f'{i}')
    (limited.path / 'below').mkdir()
    for i in range(0, MANY, 3):
        (limited.path / f'{i}').chmod(0o600)
        os.rename(limited.path / f'{i}', limited.path / f'below/{i}')
        os.unlink(limited.path / f'{i + 1}')
    assert sorted(os.listdir(limited.path / 'below'), key=int) == [f'{i}' for i in range(0, MANY, 3)]
    assert {(limited.path / f'below/{i}').stat().st_mode & 0o777 for i in range(0, MANY, 3)} == {0o600}


def test_open_file_that_lost_its_name_stays_whole(limited):
    with open(limited.path / '0', 'r+', encoding='ascii') as file:
        os.unlink(limited.path / '0')
        for i in range(1, MANY):
            os.stat(limited.path / f'{i}')
        os.fchmod(file.fileno(), 0o640)
        assert os.fstat(file.fileno()).st_mode & 0o777 == 0o640 and os.fstat(file.fileno()).st_nlink == 0
        assert file.read() == '0'


def test_file_replaced_in_the_source_is_not_taken_for_the_old_one(limited):
    held = [os.open(limited.path / f'{i}', os.O_PATH) for i in range(MANY)]
    os.unlink(limited.source / '0')
    for i in range(20):
        (limited.source / f'new-{i}').write_text('new')
    assert {(limited.path / f'new-{i}').read_text() for i in range(20)} == {'new'}
    with pytest.raises(OSError, match='Stale'):
        Path(f'/proc/self/fd/{held[0]}').read_text()
    for fd in held:
        os.close(fd)


def test_working_directory_outlasts_the_descriptor(limited):
    deep = limited.path / 'a/b/c'
    deep.mkdir(parents=True)
    assert sh(deep, f'for i in $(seq 0 {MANY - 1}); do test -e {limited.path}/$i; done; echo x >file; pwd; cat ../c/file') == f'{deep}\nx\n'


# Big directories

def test_directory_of_many_entries_is_listed_completely(mount):
    expected = {f'file-with-a-rather-long-name-{i:05}' for i in range(1000)}
    for name in expected:
        (mount.source / name).touch()
    for _ in range(2):    # plain; then with the nodes of the files
        names = os.listdir(mount.path)
        assert len(names) == len(expected) and set(names) == expected
        assert all(entry.stat().st_size == 0 for entry in os.scandir(mount.path))


def test_reading_the_names_of_a_directory_opens_no_file(mount):
    for i in range(300):
        (mount.source / f'{i}').touch()
    before = descriptors_of(server_of(mount.path))
    assert len(os.listdir(mount.path)) == 300
    assert descriptors_of(server_of(mount.path)) < before + 20


def test_names_that_are_looked_at_come_with_their_nodes(mount, trace):
    for i in range(300):
        (mount.source / f'{i}').touch()
    os.stat(mount.path / '0')
    with trace('fuse:fuse_request_send', key='opcode') as requests:
        assert len([entry.stat() for entry in os.scandir(mount.path)]) == 300
    assert requests.hits < 100


# Handles of files on the mount

def test_handle_lasts_when_the_kernel_forgets_the_file(mount):
    (mount.path / 'file').write_text('x')
    handle = handle_of(mount.path / 'file')
    forget_everything()
    assert handle_of(mount.path / 'file') == handle
    with open(open_handle(mount.path, handle), encoding='ascii') as file:
        assert file.read() == 'x'


def test_handle_of_a_removed_file_is_stale(mount):
    (mount.path / 'file').write_text('x')
    handle = handle_of(mount.path / 'file')
    (mount.path / 'file').unlink()
    forget_everything()
    for i in range(20):
        (mount.path / f'{i}').write_text('another')
    with pytest.raises(OSError, match='Stale'):
        os.close(open_handle(mount.path, handle))
