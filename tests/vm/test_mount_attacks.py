"""The attacks that made a user root, on the kernel with the patches: tests/unit/test_rights_*.py has all of them, on that of the machine."""
import mmap
import os
import stat

import pytest

from places import end_of, fails, mount, served, sh, start_as  # noqa: F401  (fixtures)

USER, OTHER = 1000, 1001


@pytest.fixture
def program(mount):
    """A program of a user's own, in the source and on the mount."""
    sh(mount.path, 'cp /usr/bin/id id', uid=USER)
    return mount.source / 'id', mount.path / 'id'


def test_owner_of_yesterday_does_not_become_root_by_a_descriptor(mount, program):
    source, path = program
    reader, writer = os.pipe()
    told, tell = os.pipe()

    def attack():
        fd = os.open(path, os.O_RDWR)
        os.fstat(fd)
        os.write(tell, b'x')
        os.read(reader, 1)
        for change in (lambda: os.fchmod(fd, 0o4755), lambda: os.utime(fd), lambda: os.setxattr(fd, 'user.a', b'1'), lambda: os.chmod(path, 0o4755)):
            with pytest.raises(PermissionError):
                change()
    child = start_as(USER, attack)
    os.read(told, 1)
    os.chown(source, 0, 0)
    source.chmod(0o700)
    os.write(writer, b'x')
    end_of(child)
    for fd in (reader, writer, told, tell):
        os.close(fd)
    assert stat.S_IMODE(source.stat().st_mode) == 0o700 and source.stat().st_uid == 0
    assert sh(mount.path, './id -u || true', uid=USER) != '0\n'   # for a moment it may still be run


@pytest.mark.parametrize('mode', [0o4777, 0o2777, 0o2767])
@pytest.mark.parametrize('direct', [0, os.O_DIRECT], ids=['buffered', 'direct'])
def test_set_id_bits_that_the_file_got_meanwhile_go_with_a_write(mount, program, mode, direct):
    source, path = program
    source.chmod(0o777)
    os.chown(source, 0, 0)
    fd = os.open(path, os.O_RDWR | direct)
    os.fstat(fd)
    source.chmod(mode)
    end_of(start_as(USER, lambda: os.pwritev(fd, [mmap.mmap(-1, 4096)], 0)))
    os.close(fd)
    assert stat.S_IMODE(source.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == mode & 0o777


def test_program_that_was_overwritten_in_the_source_runs_as_its_user(mount, program):
    source, path = program
    os.chown(path, 0, USER)
    path.chmod(0o4775)
    assert sh(mount.path, './id -u', uid=USER) == '0\n'
    assert sh(mount.path, f'printf x >>{source}; ./id -u', uid=USER) == f'{USER}\n'


def test_sticky_bit_protects_what_is_somebody_elses_by_now(mount, program):
    source, path = program
    mount.source.chmod(0o1777)
    os.stat(path)
    os.chown(source, OTHER, OTHER)
    fails(mount.path, 'rm -f id', uid=USER)
    fails(mount.path, 'mv id other', uid=USER)
    assert source.exists()


def test_append_only_file_is_not_overwritten_by_a_mapping(mount):
    sh(mount.source, 'echo kept >log; chmod 666 log; chattr +a log')
    try:
        def attack():
            fd = os.open(mount.path / 'log', os.O_RDWR | os.O_APPEND)
            try:
                pages = mmap.mmap(fd, 5)
                pages[:4] = b'lost'
                pages.flush()
            except OSError:
                pass
        end_of(start_as(USER, attack))
        assert (mount.source / 'log').read_text() == 'kept\n'
    finally:
        sh(mount.source, 'chattr -a log')
