"""Rights are those that the caller has now: its groups and capabilities, in containers too, and where the server cannot know who it is."""
import ctypes
import os
import shutil
import stat
import subprocess
from types import SimpleNamespace

import pytest

import uring
from places import end_of, start_as
from privileges import CHOWN, DAC_OVERRIDE, FOWNER, FSETID, LIBC, MKNOD, SETFCAP, SYS_ADMIN, acting_as, check, permitted
from rights_places import (ACCESS, CAPABILITY, CONTAINER, GROUP, NET_RAW, OTHER, USER, acl_for, as_root_of_container, as_user, each,  # noqa: F401  (fixtures)
                           is_refused, make_directory, make_file, make_unnamed, mode_of, mounted, namespace, on_mount, opening, place, run_as,
                           run_as_root, run_as_root_without, source, status_of, write_to)
from server import Server


# Groups and capabilities


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


def test_member_of_all_groups_has_the_rights_of_each(place):
    groups = range(100_000, 165_536)
    make_directory(place.source / 'shared', gid=groups[-1], mode=0o2770)
    make_file(place.source / 'file', gid=groups[-2], mode=0o660)
    with acting_as(USER, groups), opening(place.path / 'file') as fd:
        os.mkdir(place.path / 'shared/new')
        os.ftruncate(fd, 0)
    assert (place.source / 'shared/new').stat().st_gid == groups[-1]


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


# Roots of containers


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


# Callers whom the server does not see


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


# Callers who act as somebody else


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
