"""The mount gives nobody what the file below would not: rights are those of now, whatever is remembered.

Most tests run on plain ext4 and on mounts of it, with the same expectations. They change the source where the mount does not see the change.
"""
import contextlib
import ctypes
import fcntl
import mmap
import os
import re
import shutil
import stat
import struct
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import test_reserve
import uring
from ext4 import new_ext4
from places import end_of, fails, sh, start_as
from privileges import (CHOWN, DAC_OVERRIDE, FOWNER, FSETID, LIBC, MKNOD, SETFCAP, SYS_ADMIN, acting_as, acting_as_root, check, permitted,
                        start_in_user_namespace)
from server import Server, wait_until
from test_mount_files import EXCHANGE, rename
from test_server import frozen
from test_share import FEW, files, limited, opened  # noqa: F401  (fixture)

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


# 1. Owners of yesterday


def as_user(function):
    with acting_as(USER, [GROUP]):
        function()


def as_root_without_capabilities(function):
    with acting_as(0, [GROUP]):
        function()


def as_root_of_container(function):
    end_of(start_in_user_namespace(CONTAINER[1], function))


CALLERS = {'user': (USER, as_user), 'root without capabilities': (0, as_root_without_capabilities),
           'root of a container': (CONTAINER[0] + 1, as_root_of_container)}


@pytest.fixture(params=CALLERS)
def caller(request):
    """Who has an owner's rights to the files of .uid, and no others: .run(function)."""
    uid, run = CALLERS[request.param]
    return SimpleNamespace(uid=uid, run=run)


OWNERS_CHANGES = {
    'mode': lambda file: os.chmod(file, 0o4755), 'ACL': lambda file: os.setxattr(file, ACCESS, acl_for(5, 7)), 'times': lambda file: os.utime(file, ns=(1, 2)),
    'touch': os.utime, 'group': lambda file: os.chown(file, -1, GROUP), 'attribute': lambda file: os.setxattr(file, 'user.a', b'1')}


@also_where_nothing_is_remembered
@each('change', OWNERS_CHANGES)
@each('by', ['descriptor', 'name'])
def test_owner_of_yesterday_has_no_owners_right(place, caller, change, by):
    file = make_file(place.source / 'file', uid=caller.uid, mode=0o700)
    with opening(place.path / 'file') as fd:
        os.fstat(fd)
        os.chown(file, OTHER, OTHER)
        before = status_of(file)

        def try_change():
            assert is_refused(OWNERS_CHANGES[change], fd if by == 'descriptor' else place.path / 'file')
        caller.run(try_change)
    assert status_of(file) == before


@each('change', OWNERS_CHANGES)
def test_owner_of_today_has_an_owners_right(place, caller, change):
    make_file(place.source / 'file', uid=caller.uid, mode=0o700)
    caller.run(lambda: OWNERS_CHANGES[change](place.path / 'file'))


def test_new_owner_has_an_owners_right_soon(place):
    file = make_file(place.source / 'file', uid=OTHER, mode=0o700)
    os.stat(place.path / 'file')
    os.chown(file, USER, USER)
    with acting_as(USER):
        wait_until(lambda: not is_refused(os.chmod, place.path / 'file', 0o755), REMEMBERED)


@on_mount
def test_owner_of_yesterday_has_no_owners_right_at_any_time_later(place):
    """By a descriptor that stays open, also when what was remembered is forgotten."""
    file = make_file(place.source / 'file', uid=USER, mode=0o700)
    with acting_as(USER), opening(place.path / 'file') as fd:
        os.fstat(fd)
        with acting_as_root():
            os.chown(file, 0, 0)
            before = status_of(file)
        deadline = time.monotonic() + 1.1
        while time.monotonic() < deadline:
            assert is_refused(os.chmod, fd, 0o4755) and is_refused(os.utime, fd) and is_refused(os.setxattr, fd, ACCESS, acl_for(USER, 7))
            time.sleep(0.05)
    assert status_of(file) == before


@where_programs_are
def test_user_does_not_become_root_by_a_descriptor(place):
    program = make_file(place.source / 'id', Path('/usr/bin/id').read_bytes(), uid=USER, mode=0o755)
    with acting_as(USER), opening(place.path / 'id', os.O_RDONLY) as fd:
        os.fstat(fd)
        with acting_as_root():
            os.chown(program, 0, 0)
        assert is_refused(os.chmod, fd, 0o4755)
    assert sh(place.path, './id -u', uid=USER) == f'{USER}\n'


@each('by', ['descriptor', 'name'])
def test_set_group_id_needs_the_group_that_the_file_has_now(place, by):
    file = make_file(place.source / 'file', uid=USER, gid=GROUP, mode=0o755)
    with acting_as(USER, [GROUP]), opening(place.path / 'file') as fd:
        os.fstat(fd)
        with acting_as_root():
            os.chown(file, -1, OTHER_GROUP)
        os.chmod(fd if by == 'descriptor' else place.path / 'file', 0o2755)
    assert mode_of(file) == 0o755


@each('by', ['descriptor', 'name'])
def test_acl_keeps_set_group_id_only_of_the_group_that_the_file_has_now(place, by):
    file = make_file(place.source / 'file', uid=USER, gid=GROUP, mode=0o2755)
    with acting_as(USER, [GROUP]), opening(place.path / 'file') as fd:
        os.fstat(fd)
        with acting_as_root():
            give(file, USER, OTHER_GROUP, 0o2755)
        os.setxattr(fd if by == 'descriptor' else place.path / 'file', ACCESS, acl_for(5, 7))
    assert not mode_of(file) & stat.S_ISGID


@each('owner, may_chmod', [((USER, CONTAINER[0]), False), ((CONTAINER[0] + 1, GROUP), True), ((0, 0), False)], ids=['owner', 'group', 'both'])
def test_root_of_a_container_has_no_privilege_where_an_id_is_not_of_it(place, owner, may_chmod):
    """What needs an owner's rights asks only for the owner."""
    file = make_file(place.source / 'file', uid=CONTAINER[0] + 1, mode=0o700)
    with opening(place.path / 'file') as fd:
        os.fstat(fd)
        os.chown(file, *owner)
        before = status_of(file)

        def try_changes():
            assert is_refused(os.chown, fd, 5, 5) and is_refused(os.open, place.path / 'file', os.O_WRONLY) and is_refused(os.truncate, place.path / 'file', 0)
            assert is_refused(os.setxattr, fd, 'user.a', b'1') and is_refused(os.setxattr, fd, 'trusted.a', b'1')
            assert is_refused(os.chmod, fd, 0o700) is is_refused(os.chmod, place.path / 'file', 0o700) is not may_chmod
        as_root_of_container(try_changes)
    assert status_of(file) == before


def test_root_of_a_container_changes_no_directory_that_is_not_of_it(place):
    directory = make_directory(place.source / 'directory', uid=CONTAINER[0], mode=0o700)
    (directory / 'file').touch()
    os.stat(place.path / 'directory/file')
    os.chown(directory, USER, -1)

    def try_changes():
        assert is_refused(os.mkdir, place.path / 'directory/new') and is_refused(os.unlink, place.path / 'directory/file')
    as_root_of_container(try_changes)
    assert os.listdir(directory) == ['file']


# 2. Set-ID bits and capabilities of files that are written


def punch(fd):
    PUNCH_HOLE_AND_KEEP_SIZE = 3
    check(LIBC.fallocate(fd, PUNCH_HOLE_AND_KEEP_SIZE, ctypes.c_long(0), ctypes.c_long(4096)))


def write_directly(path):
    with opening(path, os.O_WRONLY | os.O_DIRECT) as fd:
        os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)


def send(fd, path):
    with opening(path.with_name('from'), os.O_RDONLY) as other:
        assert os.sendfile(fd, other, 0, 4) == 4


def copy(fd, path):
    with opening(path.with_name('from'), os.O_RDONLY) as other:
        assert os.copy_file_range(other, fd, 4) == 4


# The kernel writes to the file below. The server does the rest.
WRITES = {'write': lambda fd, path: os.write(fd, b'other'), 'write of vectors': lambda fd, path: os.pwritev(fd, [b'a', b'b'], 1),
          'direct write': lambda fd, path: write_directly(path), 'sendfile': send}
OTHER_CHANGES = {'ftruncate': lambda fd, path: os.ftruncate(fd, 1), 'truncate': lambda fd, path: os.truncate(path, 1),
                 'truncating open': lambda fd, path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
                 'allocate': lambda fd, path: os.posix_fallocate(fd, 0, 20000), 'punch': lambda fd, path: punch(fd), 'copy_file_range': copy}
CHANGES = WRITES | OTHER_CHANGES


@each('change', CHANGES)
@each('mode', [0o4773, 0o2777, 0o2767, 0o6767], ids=oct)
def test_change_by_a_stranger_takes_set_id_bits_that_the_file_got_meanwhile(place, change, mode):
    make_file(place.source / 'from')
    file = make_file(place.source / 'file', uid=USER, gid=GROUP, mode=mode & 0o777)
    with acting_as(OTHER), opening(place.path / 'file', os.O_WRONLY) as fd:
        os.fstat(fd)
        with acting_as_root():
            file.chmod(mode)
        CHANGES[change](fd, place.path / 'file')
        assert mode_of(place.path / 'file') == stat.S_IMODE(os.fstat(fd).st_mode) == mode_of(file) == mode & 0o777


@each('change', CHANGES)
@each('uid', [OTHER, 0], ids=['stranger', 'root'])
def test_change_takes_capabilities_that_the_file_got_meanwhile(place, change, uid):
    make_file(place.source / 'from')
    file = make_file(place.source / 'file')
    with acting_as(uid, capabilities=() if uid else permitted()), opening(place.path / 'file') as fd:
        os.write(fd, b'the kernel may remember that there are none')
        with acting_as_root():
            os.setxattr(file, CAPABILITY, NET_RAW)
        CHANGES[change](fd, place.path / 'file')
    assert not os.listxattr(file)


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


# Of a file that belongs to root of a container: mode, what may be left of it, and who changes the file.
KEEPERS = {
    'root': (0o6767, 0o6767, run_as_root), 'root without CAP_FSETID': (0o6767, 0o767, run_as_root_without(FSETID)),
    'holder of CAP_FSETID': (0o6767, 0o6767, run_as(OTHER, (), [FSETID])), 'root of a container': (0o6767, 0o2767, as_root_of_container),
    'member': (0o2767, 0o2767, run_as(OTHER, [CONTAINER[0]])), 'member, set-user-ID': (0o6767, 0o2767, run_as(OTHER, [CONTAINER[0]])),
    'member, group execution': (0o2777, 0o777, run_as(OTHER, [CONTAINER[0]]))}


@each('change', OTHER_CHANGES)
@each('who', KEEPERS)
def test_change_keeps_the_set_id_bits_that_ext4_keeps(place, change, who):
    make_file(place.source / 'from')
    before, after, run = KEEPERS[who]
    make_file(place.source / 'file', uid=CONTAINER[0], mode=before)
    with opening(place.path / 'file') as fd:
        run(lambda: OTHER_CHANGES[change](fd, place.path / 'file'))
    assert mode_of(place.source / 'file') == mode_of(place.path / 'file') == after


@on_mount
@each('change', WRITES)
@each('who', ['root', 'member'])
def test_write_takes_set_id_bits_whoever_writes(place, change, who):
    """Other than on ext4: the files below are opened as nobody."""
    make_file(place.source / 'from')
    make_file(place.source / 'file', uid=CONTAINER[0], mode=0o6767)
    with opening(place.path / 'file') as fd:
        KEEPERS[who][2](lambda: WRITES[change](fd, place.path / 'file'))
    assert mode_of(place.source / 'file') == mode_of(place.path / 'file') == 0o767


@on_mounts
@each('mode', [0o4755, 0o2755, 0o2745], ids=oct)
def test_mode_of_a_set_id_file_is_not_remembered(place, mode):
    file = make_file(place.source / 'file', mode=mode)
    for _ in range(2):
        assert mode_of(place.path / 'file') == mode
    file.chmod(0o700)
    assert mode_of(place.path / 'file') == 0o700


# 3. Execution


def make_program(place, name, **of):
    return make_file(place.source / name, Path('/usr/bin', name).read_bytes(), **of)


def overwrite(program):
    """In the source, as a user."""
    with acting_as(USER), opening(program, os.O_WRONLY) as fd:
        os.write(fd, Path('/usr/bin', program.name).read_bytes())


@where_programs_are
def test_program_that_was_given_away_and_overwritten_runs_as_its_user(place):
    program = make_program(place, 'id', mode=0o4755)
    assert sh(place.path, './id -u', uid=USER) == '0\n'
    os.chown(program, USER, USER)
    overwrite(program)
    assert sh(place.path, './id -u', uid=USER) == f'{USER}\n'


@where_programs_are
@each('mode, field', [(0o4777, 'u'), (0o2777, 'g')], ids=['set-user-ID', 'set-group-ID'])
def test_program_that_was_overwritten_runs_as_its_user(place, mode, field):
    program = make_program(place, 'id', mode=mode)
    assert sh(place.path, f'./id -{field}', uid=USER) == '0\n'
    overwrite(program)
    assert sh(place.path, f'./id -{field}', uid=USER) == f'{USER}\n'


@where_programs_are
def test_bit_and_owner_that_a_program_never_had_together_count_for_nothing(place):
    program = make_program(place, 'id', uid=USER, mode=0o755)
    assert sh(place.path, './id -u', uid=OTHER) == f'{OTHER}\n'
    program.chmod(0o4755)
    os.chown(program, 0, 0)   # takes the bit
    assert sh(place.path, './id -u', uid=OTHER) == f'{OTHER}\n'
    program.chmod(0o4755)
    assert sh(place.path, './id -u', uid=OTHER) in ('0\n', f'{OTHER}\n')   # the bit may be seen later
    give(program, USER, USER, 0o4755)
    assert sh(place.path, './id -u', uid=OTHER) in (f'{USER}\n', f'{OTHER}\n')


@where_programs_are
def test_program_that_was_overwritten_has_no_capabilities(place):
    program = make_program(place, 'cat', mode=0o777)
    os.setxattr(program, CAPABILITY, NET_RAW)
    show = './cat /proc/self/status | grep ^CapPrm'
    assert int(sh(place.path, show, uid=USER).split()[1], 16) == NET_RAW_MASK
    overwrite(program)
    assert int(sh(place.path, show, uid=USER).split()[1], 16) == 0


@on_mount
def test_mount_has_neither_set_id_programs_nor_devices_unless_asked(place):
    make_program(place, 'id', mode=0o4755)
    os.mknod(place.source / 'null', stat.S_IFCHR, os.makedev(1, 3))
    assert sh(place.path, './id -u', uid=USER) == f'{USER}\n'
    assert is_refused(os.open, place.path / 'null', os.O_RDONLY)


@where_programs_are
def test_mount_has_set_id_programs_and_devices_if_asked(place):
    make_program(place, 'id', mode=0o4755)
    os.mknod(place.source / 'null', stat.S_IFCHR, os.makedev(1, 3))
    assert sh(place.path, './id -u', uid=USER) == '0\n'
    assert (place.path / 'null').read_bytes() == b''


# 4. Sticky directories


NAME_CHANGES = {'unlink': os.unlink, 'rename': lambda path: os.rename(path, path.with_name('stolen')),
                'replace': lambda path: os.replace(path.with_name('own'), path), 'exchange': lambda path: rename(path.parent, 'own', path.name, EXCHANGE)}


def lose_file(directory):
    os.chown(directory / 'name', OTHER, OTHER)


def lose_name(directory):
    os.replace(make_file(directory / 'new', uid=OTHER), directory / 'name')


def lose_directory(directory):
    lose_file(directory)
    os.chown(directory, 0, 0)


@also_where_nothing_is_remembered
@each('change', NAME_CHANGES)
@each('lose', [lose_file, lose_name, lose_directory])
def test_sticky_bit_protects_what_is_somebody_elses_by_now(place, change, lose):
    directory = make_directory(place.source / 'sticky', uid=USER if lose is lose_directory else 0, mode=0o1777)
    for name in ('name', 'own'):
        make_file(directory / name, uid=USER)
        os.stat(place.path / 'sticky' / name)
    lose(directory)
    with acting_as(USER):
        assert is_refused(NAME_CHANGES[change], place.path / 'sticky/name')
    assert sorted(os.listdir(directory)) == ['name', 'own'] and (directory / 'name').stat().st_uid == OTHER


@each('change', [os.rmdir, NAME_CHANGES['rename']], ids=['remove', 'rename'])
def test_sticky_bit_protects_directories_that_are_somebody_elses_by_now(place, change):
    directory = make_directory(place.source / 'sticky', mode=0o1777)
    make_directory(directory / 'name', uid=USER)
    os.stat(place.path / 'sticky/name')
    lose_file(directory)
    with acting_as(USER):
        assert is_refused(change, place.path / 'sticky/name')
    assert os.listdir(directory) == ['name']


def remove_for(seconds, path):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            os.unlink(path)


@also_where_nothing_is_remembered
def test_sticky_bit_protects_names_whose_owner_changes_all_the_time(place):
    """The name is the user's, and then somebody else's, who must still find it."""
    directory = make_directory(place.source / 'sticky', mode=0o1777)
    lost = 0
    remover = start_as(USER, lambda: remove_for(0.3, place.path / 'sticky/name'))
    while not os.waitid(os.P_PID, remover, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        os.replace(make_file(directory / 'new', uid=USER), directory / 'name')
        os.replace(make_file(directory / 'new', uid=OTHER), directory / 'name')
        time.sleep(0.0005)
        lost += not (directory / 'name').exists()
    end_of(remover)
    assert not lost


# 5. Append-only files


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


# 6. Space that is root's. Quotas have no place here: tests/vm/test_mount_rights.py.


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


# 7. What one user can take


def test_member_of_all_groups_has_the_rights_of_each(place):
    groups = range(100_000, 165_536)
    make_directory(place.source / 'shared', gid=groups[-1], mode=0o2770)
    make_file(place.source / 'file', gid=groups[-2], mode=0o660)
    with acting_as(USER, groups), opening(place.path / 'file') as fd:
        os.mkdir(place.path / 'shared/new')
        os.ftruncate(fd, 0)
    assert (place.source / 'shared/new').stat().st_gid == groups[-1]


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


# 8. The smaller ones


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


def namespace(ids):
    return lambda function: end_of(start_in_user_namespace(ids, function))


LISTERS = {'root': (True, run_as_root), 'user': (False, as_user), 'user with CAP_SYS_ADMIN': (True, run_as(USER, (), [SYS_ADMIN])),
           'root without CAP_SYS_ADMIN': (False, run_as_root_without(SYS_ADMIN)),
           'root of a container': (False, as_root_of_container), 'root of a container with the ids of the system': (False, namespace('0 0 4294967295'))}


@each('who', LISTERS)
def test_names_of_trusted_attributes_are_seen_only_by_who_may_read_them(place, who):
    file = make_file(place.source / 'file')
    os.setxattr(file, 'trusted.a', b'1')
    os.setxattr(file, 'user.a', b'1')
    is_seen, run = LISTERS[who]

    def look():
        assert set(os.listxattr(place.path / 'file')) == ({'trusted.a', 'user.a'} if is_seen else {'user.a'})
    run(look)


# Who sets an ACL, and whether set-group-ID stays.
ACL_SETTERS = {
    'owner': (False, run_as(USER)), 'owner in the group': (True, run_as(USER, [GROUP])), 'owner with CAP_FSETID': (True, run_as(USER, (), [FSETID])),
    'root': (True, run_as_root), 'root without CAP_FSETID': (False, run_as_root_without(FSETID)),
    'root of a container with owner and group': (True, namespace('0 0 65536')), 'root of a container with the owner': (None, namespace('0 0 1500'))}


@each('who', ACL_SETTERS)
def test_set_group_id_stays_with_an_acl_if_its_setter_may_set_it(place, who):
    stays, run = ACL_SETTERS[who]
    # Root of a container that has no group of the file has no privilege over it: only the owner is left.
    file = make_file(place.source / 'file', uid=USER if stays is not None else 0, gid=GROUP, mode=0o2755)
    run(lambda: os.setxattr(place.path / 'file', ACCESS, acl_for(5, 7)))
    assert bool(mode_of(file) & stat.S_ISGID) is bool(stays)


# What is remembered, and which rights it gives


def withdraw_acl(path):
    os.removexattr(path, ACCESS)
    path.chmod(0o700)


WITHDRAWALS = {'mode': (lambda path: path.chmod(0o777), lambda path: path.chmod(0o700)),
               'owner': (lambda path: give(path, USER, 0, 0o700), lambda path: os.chown(path, OTHER, 0)),
               'group': (lambda path: give(path, 0, GROUP, 0o770), lambda path: os.chown(path, 0, OTHER_GROUP)),
               'ACL': (lambda path: os.setxattr(path, ACCESS, acl_for(USER, 7)), withdraw_acl),
               'entry of an ACL': (lambda path: os.setxattr(path, ACCESS, acl_for(USER, 7)), lambda path: os.setxattr(path, ACCESS, acl_for(OTHER, 7))),
               'mask of an ACL': (lambda path: os.setxattr(path, ACCESS, acl_for(USER, 7)), lambda path: os.setxattr(path, ACCESS, acl_for(USER, 7, mask=0)))}

# What asks for the right to write: of a name, and of a descriptor that is open on the file.
OPENS = {
    'write': lambda path, fd: os.open(path, os.O_WRONLY), 'both': lambda path, fd: os.open(path, os.O_RDWR),
    'append': lambda path, fd: os.open(path, os.O_WRONLY | os.O_APPEND), 'create': lambda path, fd: os.open(path, os.O_WRONLY | os.O_CREAT),
    'truncating': lambda path, fd: os.open(path, os.O_WRONLY | os.O_TRUNC), 'read and truncate': lambda path, fd: os.open(path, os.O_RDONLY | os.O_TRUNC),
    'truncate': lambda path, fd: os.truncate(path, 0), 'descriptor again': lambda path, fd: os.open(f'/proc/self/fd/{fd}', os.O_RDWR),
    'attribute': lambda path, fd: os.setxattr(path, 'user.a', b'1'), 'attribute of a descriptor': lambda path, fd: os.setxattr(fd, 'user.a', b'1'),
    'times': lambda path, fd: os.utime(path)}


@each('way', OPENS)
@each('withdrawal', WITHDRAWALS)
def test_right_to_write_that_was_withdrawn_is_refused_at_once(place, way, withdrawal):
    grant, withdraw = WITHDRAWALS[withdrawal]
    file = make_file(place.source / 'file', mode=0o600)
    grant(file)
    with acting_as(USER, [GROUP]), opening(place.path / 'file') as fd:
        os.fstat(fd)
        with acting_as_root():
            withdraw(file)
            before = status_of(file)
        assert is_refused(OPENS[way], place.path / 'file', fd)
    assert status_of(file) == before


def test_reading_without_changing_times_is_refused_to_owners_of_yesterday(place):
    file = make_file(place.source / 'file', uid=USER, mode=0o644)
    with acting_as(USER):
        os.close(os.open(place.path / 'file', os.O_RDONLY | os.O_NOATIME))
        with acting_as_root():
            os.chown(file, OTHER, OTHER)
        assert is_refused(os.open, place.path / 'file', os.O_RDONLY | os.O_NOATIME)


def test_hard_link_to_what_is_somebody_elses_by_now_is_refused(place):
    if Path('/proc/sys/fs/protected_hardlinks').read_text() == '0\n':
        pytest.skip('fs.protected_hardlinks is 0: everybody may link to all files')
    file = make_file(place.source / 'file', uid=USER, mode=0o600)
    os.stat(place.path / 'file')
    os.chown(file, OTHER, OTHER)
    with acting_as(USER):
        assert is_refused(os.link, place.path / 'file', place.path / 'linked')


def read(path):
    with opening(path, os.O_RDONLY) as fd:
        return os.pread(fd, 100, 0)


def check_that_right_to_look_ends(place, names, make, look):
    """A user has looked at what make() makes, and loses the right to it in each of these ways."""
    for i, name in enumerate(names):
        make(place.source / f'{i}')
        WITHDRAWALS[name][0](place.source / f'{i}')
    with acting_as(USER, [GROUP]):
        for i in range(len(names)):
            look(place.path / f'{i}')
        with acting_as_root():
            for i, name in enumerate(names):
                WITHDRAWALS[name][1](place.source / f'{i}')
        left = [place.path / f'{i}' for i in range(len(names))]

        def all_are_refused():
            left[:] = [path for path in left if not is_refused(look, path)]
            return not left
        wait_until(all_are_refused, REMEMBERED)


@each('names', [[name for name in WITHDRAWALS if 'ACL' not in name], [name for name in WITHDRAWALS if 'ACL' in name]], ids=['owner, group, mode', 'ACL'])
def test_right_to_read_a_file_ends_with_what_was_remembered(place, names):
    check_that_right_to_look_ends(place, names, lambda path: make_file(path, mode=0o600), read)


def test_right_to_read_attributes_ends_with_what_was_remembered(place):
    def make(path):
        os.setxattr(make_file(path, mode=0o600), 'user.a', b'1')
    check_that_right_to_look_ends(place, WITHDRAWALS, make, lambda path: os.getxattr(path, 'user.a'))


@each('look', [lambda path: read(path / 'file'), os.listdir], ids=['file', 'names'])
def test_right_to_look_into_a_directory_ends_with_what_was_remembered(place, look):
    check_that_right_to_look_ends(place, WITHDRAWALS, lambda path: make_file(make_directory(path, mode=0o700) / 'file'), look)


def make_unnamed(directory):
    os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY))


DIRECTORY_CHANGES = {
    'mkdir': lambda path: os.mkdir(path / 'new'), 'create': lambda path: os.close(os.open(path / 'new', os.O_CREAT | os.O_WRONLY)), 'unnamed': make_unnamed,
    'symlink': lambda path: os.symlink('x', path / 'new'), 'mkfifo': lambda path: os.mkfifo(path / 'new'),
    'link': lambda path: os.link(path / 'file', path / 'new'), 'unlink': lambda path: os.unlink(path / 'file'), 'rmdir': lambda path: os.rmdir(path / 'sub'),
    'rename': lambda path: os.rename(path / 'file', path / 'new'), 'move in': lambda path: os.rename(path.with_name('outside'), path / 'new'),
    'move out': lambda path: os.rename(path / 'file', path.with_name('new'))}


@each('change', DIRECTORY_CHANGES)
@each('withdrawal', WITHDRAWALS)
def test_right_to_change_a_directory_that_was_withdrawn_is_refused_at_once(place, change, withdrawal):
    grant, withdraw = WITHDRAWALS[withdrawal]
    directory = make_directory(place.source / 'directory', mode=0o700)
    grant(directory)
    for path in (directory / 'file', place.source / 'outside'):
        make_file(path, uid=USER)
    make_directory(directory / 'sub', uid=USER)
    with acting_as(USER, [GROUP]):
        for name in ('file', 'sub'):
            os.stat(place.path / 'directory' / name)
        os.stat(place.path / 'outside')
        with acting_as_root():
            withdraw(directory)
        assert is_refused(DIRECTORY_CHANGES[change], place.path / 'directory')
    assert sorted(os.listdir(directory)) == ['file', 'sub'] and sorted(os.listdir(place.source)) == ['directory', 'outside']


def try_all(path):
    """What changes something, refused or not."""
    for change in (lambda: write_to(path), lambda: os.truncate(path, 0), lambda: os.chmod(path, 0o777), lambda: os.utime(path),
                   lambda: os.setxattr(path, 'user.a', b'1'), lambda: os.setxattr(path, ACCESS, acl_for(USER, 7)), lambda: os.chown(path, -1, GROUP)):
        with contextlib.suppress(OSError):
            change()


def write_to(path):
    with opening(path, os.O_WRONLY) as fd:
        os.write(fd, b'lost')


def test_remembered_name_gives_no_right_to_the_file_that_has_it_now(place):
    make_file(place.source / 'name', uid=USER)
    with acting_as(USER, [GROUP]):
        os.stat(place.path / 'name')
        with acting_as_root():
            os.replace(make_file(place.source / 'new', uid=OTHER, mode=0o600), place.source / 'name')
            before = status_of(place.source / 'name')
        try_all(place.path / 'name')
        wait_until(lambda: os.stat(place.path / 'name').st_uid == OTHER, REMEMBERED)
        try_all(place.path / 'name')
        assert is_refused(os.open, place.path / 'name', os.O_RDONLY)
    assert status_of(place.source / 'name') == before


def test_remembered_name_gives_no_right_to_the_directory_that_has_it_now(place):
    make_directory(place.source / 'name', uid=USER)
    with acting_as(USER):
        os.stat(place.path / 'name')
        with acting_as_root():
            make_file(make_directory(place.source / 'new', mode=0o700) / 'file')
            os.rename(place.source / 'name', place.source / 'old')
            os.rename(place.source / 'new', place.source / 'name')
        for change in DIRECTORY_CHANGES.values():
            with contextlib.suppress(OSError):
                change(place.path / 'name')
        wait_until(lambda: is_refused(os.listdir, place.path / 'name'), REMEMBERED)
    assert os.listdir(place.source / 'name') == ['file']


def test_open_descriptor_gives_what_it_was_opened_for_and_no_more(place):
    file = make_file(place.source / 'file', KEPT)
    with acting_as(USER), opening(place.path / 'file') as fd, opening(place.path / 'file', os.O_RDONLY) as reader:
        with acting_as_root():
            file.chmod(0o600)
        assert os.pread(fd, 4, 0) == os.pread(reader, 4, 0) == KEPT[:4]
        os.pwrite(fd, b'new', 0)
        os.posix_fallocate(fd, 0, 10000)
        os.ftruncate(fd, 3)
        for function, *arguments in ([os.chmod, 0o666], [os.utime], [os.setxattr, 'user.a', b'1'], [os.chown, -1, USER]):
            assert is_refused(function, fd, *arguments) and is_refused(function, reader, *arguments), function
        assert is_refused(os.open, f'/proc/self/fd/{reader}', os.O_WRONLY)
    assert file.read_bytes() == b'new'


# Who asks


def test_groups_that_were_dropped_are_gone_at_once(place):
    file = make_file(place.source / 'file', uid=USER, gid=GROUP, mode=0o2755)
    make_directory(place.source / 'shared', gid=GROUP, mode=0o770)
    with acting_as(USER, [GROUP]), opening(place.path / 'file') as fd:
        os.setxattr(fd, ACCESS, acl_for(5, 7))
        os.mkdir(place.path / 'shared/one')
        assert mode_of(file) & stat.S_ISGID
        with acting_as(USER):
            assert is_refused(os.mkdir, place.path / 'shared/two')
            os.setxattr(fd, ACCESS, acl_for(5, 6))
            assert not mode_of(file) & stat.S_ISGID


PRIVILEGED = {
    'CAP_FOWNER, mode': (FOWNER, lambda fd, path: os.chmod(fd, 0o777)), 'CAP_FOWNER, times': (FOWNER, lambda fd, path: os.utime(fd, (1, 2))),
    'CAP_FOWNER, ACL': (FOWNER, lambda fd, path: os.setxattr(fd, ACCESS, acl_for(5, 7))), 'CAP_CHOWN': (CHOWN, lambda fd, path: os.chown(fd, OTHER, OTHER)),
    'CAP_DAC_OVERRIDE': (DAC_OVERRIDE, lambda fd, path: os.close(os.open(path, os.O_WRONLY))),
    'CAP_DAC_OVERRIDE, directory': (DAC_OVERRIDE, lambda fd, path: make_unnamed(path.parent)),
    'CAP_SYS_ADMIN': (SYS_ADMIN, lambda fd, path: os.setxattr(fd, 'trusted.a', b'1')),
    'CAP_SETFCAP': (SETFCAP, lambda fd, path: os.setxattr(fd, CAPABILITY, NET_RAW)),
    'CAP_MKNOD': (MKNOD, lambda fd, path: make_device(path.with_name('device')))}


def make_device(path):
    os.mknod(path, stat.S_IFCHR, os.makedev(1, 3))
    os.unlink(path)


@each('what', PRIVILEGED)
def test_capability_that_was_dropped_is_gone_at_once(place, what):
    """And used again when it is there again: a thread of the server, too, must take up what it laid down."""
    capability, use = PRIVILEGED[what]
    make_directory(place.source / 'directory', uid=USER, mode=0o700)
    make_file(place.source / 'directory/file', uid=USER, mode=0o600)
    path = place.path / 'directory/file'
    with opening(path) as fd:
        use(fd, path)
        with acting_as(0, capabilities=permitted() - {capability}):
            assert is_refused(use, fd, path)
        use(fd, path)


def test_set_group_id_stays_only_with_the_capability_that_the_caller_has_now(place):
    file = make_file(place.source / 'file', gid=GROUP, mode=0o2755)
    with opening(place.path / 'file') as fd:
        for capabilities in (permitted(), permitted() - {FSETID}, permitted()):
            with acting_as(0, capabilities=capabilities):
                os.chmod(fd, 0o2755)
            assert bool(mode_of(file) & stat.S_ISGID) is (FSETID in capabilities)


@pytest.fixture(scope='module')
def unseeing(source, program, tmp_path_factory):
    """A mount whose server is in a PID namespace of its own, where the callers have no number."""
    script, target = tmp_path_factory.mktemp('script') / 'start', tmp_path_factory.mktemp('target')
    script.write_text(f'#!/bin/sh\nexec unshare --pid --fork {program} "$@"\n')
    script.chmod(0o755)
    target.chmod(0o755)
    server = Server(script, source, target, target.with_suffix('.log'), 'log=info')
    assert server.process.poll() is None, server.said()
    yield target
    subprocess.run(['umount', target], check=True)   # ends the server, which a signal to unshare(1) would not
    server.end()


@pytest.fixture
def unseen(request, source, unseeing):
    """A directory there: .path, .source."""
    make_directory(source / request.node.name)
    yield SimpleNamespace(path=unseeing / request.node.name, source=source / request.node.name)
    shutil.rmtree(source / request.node.name)


def test_caller_whom_the_server_does_not_see_has_its_ids(unseen):
    with acting_as(USER, [GROUP]):
        os.mkdir(unseen.path / 'own')
        os.chmod(unseen.path / 'own', 0o700)
        write_to(make_empty(unseen.path / 'own/file'))
    make_empty(unseen.path / 'roots').chmod(0o600)
    assert [(unseen.source / name).stat().st_uid for name in ('own', 'own/file', 'roots')] == [USER, USER, 0]


def make_empty(path):
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    return path


def test_caller_whom_the_server_does_not_see_has_no_groups(unseen):
    make_directory(unseen.source / 'shared', gid=GROUP, mode=0o770)
    make_file(unseen.source / 'file', gid=GROUP, mode=0o660)
    with acting_as(USER, [GROUP]):
        assert is_refused(os.mkdir, unseen.path / 'shared/new') and is_refused(os.open, unseen.path / 'file', os.O_WRONLY)


def test_caller_whom_the_server_does_not_see_has_no_capabilities(unseen):
    file = make_file(unseen.source / 'file', uid=USER, mode=0o600)
    os.setxattr(file, 'trusted.a', b'1')
    before = status_of(file)
    for function, *arguments in ([os.chmod, 0o777], [os.chown, 0, 0], [os.truncate, 0]):
        assert is_refused(function, unseen.path / 'file', *arguments), function
    assert os.listxattr(unseen.path / 'file') == []
    assert status_of(file) == before


def register_personality(ring):
    """The credentials of now, which requests of the ring may use later."""
    IO_URING_REGISTER, PERSONALITY = 427, 9
    return check(LIBC.syscall(IO_URING_REGISTER, ring.fd, PERSONALITY, None, 0))


def set_attribute(ring, fd, personality):
    FSETXATTR = 41
    name, value = ctypes.create_string_buffer(b'user.a'), ctypes.create_string_buffer(b'1')
    ring.run(FSETXATTR, fd, ctypes.addressof(name), 1, ctypes.addressof(value), personality=personality)


# In processes of their own: the kernel's workers of io_uring keep for a while the credentials of who first needed them.


def test_privileges_of_a_process_do_not_count_for_who_it_acts_as(place):
    """/proc tells of root, and the request is a user's."""
    file = make_file(place.source / 'file')

    def act():
        with uring.Ring(slots=0) as ring, opening(place.path / 'file') as fd:
            with acting_as(USER):
                personality = register_personality(ring)
            set_attribute(ring, fd, personality)
            file.chmod(0o600)
            os.removexattr(file, 'user.a')
            assert is_refused(set_attribute, ring, fd, personality)
    end_of(start_as(0, act))
    assert not os.listxattr(file)


@on_mount
def test_caller_who_acts_as_somebody_else_has_no_capabilities(place):
    """/proc tells of a user, and the request is root's. Other than on ext4: the server cannot know what the caller may."""
    make_file(place.source / 'file', uid=OTHER, mode=0o600)
    make_file(place.source / 'roots', mode=0o600)

    def act():
        with uring.Ring(slots=0) as ring, opening(place.path / 'file') as fd, opening(place.path / 'roots') as roots:
            personality = register_personality(ring)
            with acting_as(USER):
                set_attribute(ring, roots, personality)
                assert is_refused(set_attribute, ring, fd, personality)
    end_of(start_as(0, act))
    assert not os.listxattr(place.source / 'file')


# The server's threads


ATTACKS = ['renice -n 5 -p {}', 'taskset -pc 0 {}', 'chrt -i -p 0 {}', 'ionice -c 3 -p {}', 'kill -s 0 {}', 'prlimit -p {} --nofile=10', 'ls /proc/{}/fd/',
           'cat /proc/{}/environ', 'timeout 5 strace -o /dev/null -p {}']


def waiting_threads(server):
    return [thread for thread, state in server.threads('State').items() if state.startswith('D')]


def test_thread_that_carries_a_users_id_is_not_that_users(small, mounted):
    server = mounted(small)
    with frozen(small):
        child = start_as(USER, lambda: os.mkdir(server.target / 'waits'))
        wait_until(lambda: waiting_threads(server))
        thread, = waiting_threads(server)
        assert server.threads('Uid')[thread].split()[3] == f'{USER}'
        for attack in ATTACKS:
            fails('/', attack.format(thread), uid=USER)
    end_of(child)
    os.rmdir(server.target / 'waits')
