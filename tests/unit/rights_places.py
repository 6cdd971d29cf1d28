"""Where rights are tested, and who tries: ext4 and mounts of it, files there, and callers of many kinds.

Most tests run on plain ext4 and on mounts of it, with the same expectations. They change the source where the mount does not see the change.
"""
import contextlib
import ctypes
import os
import re
import shutil
import stat
import struct
from types import SimpleNamespace

import pytest

from ext4 import new_ext4
from places import end_of
from privileges import LIBC, acting_as, check, permitted, start_in_user_namespace
from server import Server

USER, OTHER, GROUP, OTHER_GROUP = 1000, 1001, 2000, 3000
CONTAINER = 100000, '0 100000 65536'   # the first uid and gid of a user namespace, and its map
ACCESS, CAPABILITY = 'system.posix_acl_access', 'security.capability'
NET_RAW, NET_RAW_MASK = bytes.fromhex('0100000200200000000000000000000000000000'), 1 << 13
REMEMBERED = 1.5   # seconds: cache=auto remembers for one, and a busy machine needs some time to look
KEPT = bytes(range(256)) * 16


# Places


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    with new_ext4(tmp_path_factory, 64 << 20, reserved=0) as directory:
        yield directory


@pytest.fixture(scope='module')
def mounted(program, tmp_path_factory):
    """mounted(directory, options) is the server that mounts it: one for all tests that want the same."""
    servers = {}

    def mount(directory, options='log=info'):
        if (directory, options) not in servers:
            target = tmp_path_factory.mktemp('target')
            target.chmod(0o755)
            servers[directory, options] = Server(program, directory, target, target.with_suffix('.log'), options)
            assert servers[directory, options].process.poll() is None, servers[directory, options].said()
        return servers[directory, options]
    yield mount
    for server in servers.values():
        server.end()


OPTIONS = {'ext4': None, 'mount': 'log=info', 'mount that remembers nothing': 'log=info,cache=none',
           'mount that remembers for a day': 'log=info,cache=always', 'mount with suid and dev': 'log=info,suid,dev'}


@pytest.fixture(params=list(OPTIONS)[:2])
def place(request, source, mounted):
    """An empty directory, open to all users: .path, and .source behind it. A test cannot tell where."""
    name = re.sub(r'\W+', '-', request.node.name)[:200]
    make_directory(source / name)
    options = OPTIONS[request.param]
    yield SimpleNamespace(path=(mounted(source, options).target if options else source) / name, source=source / name)
    shutil.rmtree(source / name)


each = pytest.mark.parametrize
also_where_nothing_is_remembered = each('place', list(OPTIONS)[:3], indirect=True)
on_mount = each('place', ['mount'], indirect=True)
on_mounts = each('place', [name for name in OPTIONS if name != 'ext4'], indirect=True)
where_programs_are = each('place', ['ext4', 'mount with suid and dev'], indirect=True)


# Files


def make_file(path, content=b'content', uid=0, gid=None, mode=0o666):
    path.write_bytes(content)
    return give(path, uid, gid, mode)


def make_directory(path, uid=0, gid=None, mode=0o777):
    path.mkdir()
    return give(path, uid, gid, mode)


def give(path, uid, gid, mode):
    os.chown(path, uid, uid if gid is None else gid)
    path.chmod(mode)
    return path


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def status_of(path):
    """What is lost if somebody changes it."""
    status = os.stat(path)
    return status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_nlink, status.st_mtime_ns, os.listxattr(path)


def acl_for(uid, permissions, mask=7):
    """The value of an ACL with that user beside owner and group."""
    nobody = 0xffffffff
    return struct.pack('<I' + 5 * 'HHI', 2, 1, 7, nobody, 2, permissions, uid, 4, 5, nobody, 16, mask, nobody, 32, 0, nobody)


@contextlib.contextmanager
def opening(path, flags=os.O_RDWR):
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def is_refused(function, *arguments):
    try:
        function(*arguments)
    except PermissionError:
        return True
    return False


def write_to(path):
    with opening(path, os.O_WRONLY) as fd:
        os.write(fd, b'lost')


def make_unnamed(directory):
    os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY))


def punch(fd):
    PUNCH_HOLE_AND_KEEP_SIZE = 3
    check(LIBC.fallocate(fd, PUNCH_HOLE_AND_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(4096)))


# Callers


def as_user(function):
    with acting_as(USER, [GROUP]):
        function()


def as_root_without_capabilities(function):
    with acting_as(0, [GROUP]):
        function()


def as_root_of_container(function):
    end_of(start_in_user_namespace(CONTAINER[1], function))


def run_as(uid, groups=(), capabilities=()):
    def run(function):
        with acting_as(uid, groups, capabilities):
            function()
    return run


def run_as_root_without(capability):
    def run(function):
        with acting_as(0, capabilities=permitted() - {capability}):
            function()
    return run


def run_as_root(function):
    function()


def namespace(ids):
    return lambda function: end_of(start_in_user_namespace(ids, function))
