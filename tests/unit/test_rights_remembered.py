"""The mount gives nobody what the file below would not: rights are those of now, whatever is remembered."""
import contextlib
import os

from privileges import acting_as, acting_as_root
from rights_places import (ACCESS, GROUP, KEPT, OTHER, OTHER_GROUP, REMEMBERED, USER, acl_for, each, give, is_refused,  # noqa: F401  (fixtures)
                           make_directory, make_file, make_unnamed, mounted, opening, place, source, status_of, write_to)
from server import wait_until


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
