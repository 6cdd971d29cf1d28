"""Quotas of users and groups hold on the mount as they do on the file system below. All else about rights: tests/unit/test_rights_*.py."""
import itertools
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import guest
from privileges import FOWNER, SYS_RESOURCE, acting_as, permitted
from test_mount_files import error_of

LIMIT, SPACE = 'bhard=256k', 256 << 10   # small: the machine of these tests is slow
DIRECTORY, TARGET = Path('/mnt/quota'), Path('/mnt/quota-mount')
KINDS = {'ext4': ('mkfs.ext4 -q -F -b 4096 -O quota', 'usrquota,grpquota'), 'xfs': ('mkfs.xfs -q -f -K', 'uquota,gquota')}
# Of no other test: what is removed counts for a while.
IDS = itertools.count(5000)

each = pytest.mark.parametrize
on_ext4 = each('filesystem', ['ext4'], indirect=True)


@pytest.fixture(scope='module', params=KINDS)
def filesystem(request, _ext4_root):
    """A small one with quotas, and the server's mount of it: .kind, .source, .path."""
    make, options = KINDS[request.param]
    image = _ext4_root / 'quota-image'
    image.touch()
    os.truncate(image, 320 << 20)
    guest.run(*make.split(), image)
    DIRECTORY.mkdir(exist_ok=True)
    guest.run('mount', '-o', f'loop,{options}', image, DIRECTORY)
    guest.mount_server(DIRECTORY, TARGET)
    yield SimpleNamespace(kind=request.param, source=DIRECTORY, path=TARGET)
    guest.unmount(TARGET)
    guest.unmount(DIRECTORY)
    image.unlink()


@pytest.fixture(params=['plain', 'mount'])
def place(request, filesystem):
    """An empty directory, open to all users; a test cannot tell where."""
    name = re.sub(r'\W+', '-', request.node.name)
    (filesystem.source / name).mkdir()
    (filesystem.source / name).chmod(0o777)
    yield (filesystem.source if request.param == 'plain' else filesystem.path) / name
    shutil.rmtree(filesystem.source / name)


@pytest.fixture
def limited():
    """limited('-u', LIMIT) is a new user (-g: group) with that limit."""
    def limit(kind, words):
        number = next(IDS)
        guest.run('xfs_quota', '-x', '-f', '-c', f'limit {kind} {words} {number}', DIRECTORY)
        return number
    return limit


def make(path, size=0, uid=0, gid=0, mode=0o644):
    with open(path, 'wb') as file:
        file.write(b'x' * size)
        os.fsync(file.fileno())
    os.chown(path, uid, gid)
    path.chmod(mode)
    return path


def write(fd, path):
    for i in range(2 * SPACE // 65536):
        os.pwrite(fd, b'x' * 65536, i * 65536)
    os.fsync(fd)


def copy(fd, path):
    source = os.open(path.with_name('from'), os.O_RDONLY)
    try:
        for i in range(2):
            assert os.copy_file_range(source, fd, SPACE, 0, i * SPACE) == SPACE
        os.fsync(fd)
    finally:
        os.close(source)


WAYS = {'write': write, 'allocate': lambda fd, path: os.posix_fallocate(fd, 0, 2 * SPACE), 'copy_file_range': copy}


@each('way', WAYS)
@each('kind', ['-u', '-g'], ids=['user', 'group'])
def test_data_of_users_ends_with_the_quota(place, limited, way, kind):
    make(place / 'from', 2 * SPACE)
    number = limited(kind, LIMIT)
    file = make(place / 'file', **{'uid' if kind == '-u' else 'gid': number}, mode=0o666)
    with acting_as(1000):
        fd = os.open(file, os.O_WRONLY)
        assert error_of(WAYS[way], fd, file) == 'EDQUOT'
        os.close(fd)
    assert os.stat(file).st_blocks * 512 <= SPACE


MAKERS = {'mkdir': os.mkdir, 'create': lambda path: os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
          'symlink': lambda path: os.symlink('x', path), 'mkfifo': os.mkfifo,
          'unnamed': lambda path: os.close(os.open(path.parent, os.O_TMPFILE | os.O_WRONLY))}


@each('way', MAKERS)
def test_files_of_users_end_with_the_quota(place, limited, way):
    with acting_as(limited('-u', 'ihard=2')):
        for name in ('a', 'b'):
            os.mkdir(place / name)
        assert error_of(MAKERS[way], place / 'c') == 'EDQUOT'
    assert sorted(os.listdir(place)) == ['a', 'b']


def test_group_whose_quota_is_used_up_takes_no_file(place, limited):
    group = limited('-g', LIMIT)
    file = make(place / 'file', 2 * SPACE, uid=1000)
    with acting_as(1000, [group]):
        assert error_of(os.chown, file, -1, group) == 'EDQUOT'
    assert os.stat(file).st_gid == 0


def test_root_gives_files_to_a_group_whose_quota_is_used_up_only_with_the_capability(place, filesystem, limited):
    capability = {'ext4': SYS_RESOURCE, 'xfs': FOWNER}[filesystem.kind]
    group = limited('-g', LIMIT)
    file = make(place / 'file', 2 * SPACE)
    with acting_as(0, capabilities=permitted() - {capability}):
        assert error_of(os.chown, file, -1, group) == 'EDQUOT'
    os.chown(file, -1, group)
    assert os.stat(file).st_gid == group


def use_up(place, uid):
    """All space that the user may have."""
    file = make(place / 'filler', uid=uid)
    with acting_as(uid):
        fd = os.open(file, os.O_WRONLY)
        size, step = 0, SPACE
        while step >= 4096:
            try:
                os.posix_fallocate(fd, size, step)
                size += step
            except OSError:
                step //= 2
        os.close(fd)
    return file


@on_ext4
def test_root_passes_the_quota_of_a_user_only_with_the_capability(place, limited):
    """By what needs a block and is the user's: an attribute of a file, and what is made in a directory whose group has a quota."""
    file = use_up(place, limited('-u', LIMIT))
    group = limited('-g', 'ihard=1')
    shared = place / 'shared'
    shared.mkdir()
    os.chown(shared, 0, group)
    shared.chmod(0o2777)
    with acting_as(0, capabilities=permitted() - {SYS_RESOURCE}):
        assert error_of(os.setxattr, file, 'user.large', b'x' * 2000) == error_of(os.mkdir, shared / 'new') == 'EDQUOT'
    os.setxattr(file, 'user.large', b'x' * 2000)
    os.mkdir(shared / 'new')


@on_ext4
@each('place', ['mount'], indirect=True)
def test_data_that_root_writes_ends_with_the_quota_of_the_files_owner(place, limited):
    """Other than on ext4: files below are written as nobody."""
    file = use_up(place, limited('-u', LIMIT))
    fd = os.open(file, os.O_WRONLY | os.O_APPEND)
    assert error_of(os.write, fd, b'x' * 65536) == 'EDQUOT'
    os.close(fd)
