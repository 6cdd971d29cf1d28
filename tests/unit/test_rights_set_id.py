"""Set-ID bits and capabilities of files: what takes them, whose rights a program has, and who may set them."""
import mmap
import os
import stat
from pathlib import Path

from places import sh
from privileges import FSETID, acting_as, acting_as_root, permitted
from rights_places import (ACCESS, CAPABILITY, CONTAINER, GROUP, NET_RAW, NET_RAW_MASK, OTHER, OTHER_GROUP, USER, acl_for,  # noqa: F401  (fixtures)
                           as_root_of_container, each, give, is_refused, make_file, mode_of, mounted, namespace, on_mount, on_mounts, opening,
                           place, punch, run_as, run_as_root, run_as_root_without, source, where_programs_are)


# Set-ID bits and capabilities of files that are written


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


# Execution


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


# Who may set set-group-ID


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
