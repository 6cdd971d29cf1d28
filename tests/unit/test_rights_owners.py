"""An owner's rights are those of the owner of now, also in sticky directories: an owner of yesterday has none."""
import contextlib
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from places import end_of, sh, start_as
from privileges import acting_as, acting_as_root
from rights_places import (ACCESS, CONTAINER, GROUP, OTHER, REMEMBERED, USER, acl_for, also_where_nothing_is_remembered,  # noqa: F401  (fixtures)
                           as_root_of_container, as_root_without_capabilities, as_user, each, is_refused, make_directory, make_file, mounted,
                           on_mount, opening, place, source, status_of, where_programs_are)
from server import wait_until
from test_mount_files import EXCHANGE, rename

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


# Sticky directories


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
