"""Files, names and attributes: the mount behaves as ext4 does."""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import signal
import socket
import stat
import struct
import subprocess

import pytest

from places import end_of, fails, mount, place, served, sh, start_as, wait_until  # noqa: F401  (fixtures)

LIBC = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2


def rename(directory, old, new, flags):
    fd = os.open(directory, os.O_PATH)
    try:
        if LIBC.renameat2(fd, os.fsencode(old), fd, os.fsencode(new), flags):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def give_name(fd, path):
    """What linkat(2) recommends for an unnamed file."""
    if LIBC.linkat(-100, b'/proc/self/fd/%d' % fd, -100, os.fsencode(path), 0x400):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def error_of(function, *arguments):
    with pytest.raises(OSError) as error:
        function(*arguments)
    return errno.errorcode[error.value.errno]


# Names

def test_rename_replaces(place):
    (place / 'a').write_text('a')
    (place / 'b').write_text('b')
    os.rename(place / 'a', place / 'b')
    assert os.listdir(place) == ['b'] and (place / 'b').read_text() == 'a'


def test_rename_noreplace_refuses_to_replace(place):
    (place / 'a').write_text('a')
    (place / 'b').write_text('b')
    assert error_of(rename, place, 'a', 'b', NOREPLACE) == 'EEXIST'
    rename(place, 'a', 'c', NOREPLACE)
    assert (place / 'c').read_text() == 'a' and (place / 'b').read_text() == 'b'


def test_rename_exchange_swaps_a_file_and_a_directory(place):
    (place / 'file').write_text('data')
    (place / 'directory').mkdir()
    rename(place, 'file', 'directory', EXCHANGE)
    assert (place / 'directory').read_text() == 'data' and (place / 'file').is_dir()


def test_rename_of_a_directory_into_itself_is_refused(place):
    (place / 'a/b').mkdir(parents=True)
    assert error_of(os.rename, place / 'a', place / 'a/b/c') == 'EINVAL'


def test_names_of_255_bytes_and_not_more(place):
    (place / ('n' * 255)).write_text('x')
    assert os.listdir(place) == ['n' * 255]
    assert error_of(os.stat, place / ('n' * 256)) == 'ENAMETOOLONG'


def test_hard_links_are_one_file(place):
    (place / 'one').write_text('1')
    os.link(place / 'one', place / 'two')
    (place / 'two').write_text('2')
    assert (place / 'one').read_text() == '2'
    assert os.path.samefile(place / 'one', place / 'two')
    assert os.stat(place / 'one').st_nlink == 2
    os.unlink(place / 'one')
    assert os.stat(place / 'two').st_nlink == 1


def test_symbolic_links_keep_any_target(place):
    target = 'x' * 1000 + '/../nowhere'
    os.symlink(target, place / 'link')
    assert os.readlink(place / 'link') == target and os.lstat(place / 'link').st_size == len(target)


def test_remove_of_a_directory_that_is_not_empty_is_refused(place):
    (place / 'd/e').mkdir(parents=True)
    assert error_of(os.rmdir, place / 'd') == 'ENOTEMPTY'
    assert error_of(os.unlink, place / 'd') == 'EISDIR'
    os.rmdir(place / 'd/e')
    os.rmdir(place / 'd')
    assert os.listdir(place) == []


def test_special_files(place):
    os.mkfifo(place / 'fifo', 0o600)
    os.mknod(place / 'zero', stat.S_IFCHR | 0o666, os.makedev(1, 5))
    assert stat.S_ISFIFO(os.stat(place / 'fifo').st_mode)
    assert os.stat(place / 'zero').st_rdev == os.makedev(1, 5)
    assert sh(place, 'cat fifo & echo through >fifo; wait') == 'through\n'


def test_large_directory_is_read_completely_while_it_changes(place):
    names = {f'{i:03}' + 'x' * 100 for i in range(700)}   # more than the server reads, and the kernel asks for, at once
    for name in names:
        os.close(os.open(place / name, os.O_CREAT))
    seen = []
    with os.scandir(place) as entries:
        for entry in entries:
            assert entry.is_file(follow_symlinks=False)
            if len(seen) == 100:
                (place / 'late').touch()
                os.unlink(place / entry.name)
            seen.append(entry.name)
    assert len(seen) == len(set(seen)) and names <= set(seen)


def test_directory_offsets_can_be_returned_to(place):
    for i in range(500):   # many times what one READDIR brings, and what ext4 keeps without a hash tree
        os.close(os.open(place / (f'{i:03}' + 'x' * 100), os.O_CREAT))
    LIBC.fdopendir.restype = LIBC.readdir64.restype = ctypes.c_void_p
    LIBC.telldir.restype = ctypes.c_long
    directory = ctypes.c_void_p(LIBC.fdopendir(os.open(place, os.O_RDONLY)))

    def read():
        entry = LIBC.readdir64(directory)
        return ctypes.string_at(entry + 19) if entry else None
    for _ in range(100):
        read()
    there = LIBC.telldir(directory)
    rest = [read() for _ in range(150)]
    LIBC.seekdir(directory, ctypes.c_long(there))
    assert [read() for _ in range(150)] == rest and None not in rest
    LIBC.closedir(directory)


def go_down(names):
    """Where no path is long enough to lead to."""
    for name in names:
        os.mkdir(name)
        os.chdir(name)


def test_tree_deeper_than_a_path_is_long(place):
    names = [str(i % 10) * 255 for i in range(20)]

    def use():
        os.chdir(place)
        go_down(names)
        for name in ('file', 'removed'):
            with open(name, 'w') as file:
                file.write(name)
        os.rename('file', 'renamed')
        os.rename('renamed', '../moved')
        os.unlink('removed')
        assert os.listdir('.') == []
        with open('../moved') as file:
            assert file.read() == 'file'
        os.chdir('..')
        os.rmdir(names[-1])
        assert os.listdir('.') == ['moved']
    end_of(start_as(1000, use))
    assert error_of(os.stat, place.joinpath(*names)) == 'ENAMETOOLONG'
    sh(place, 'rm -r 0*')
    assert os.listdir(place) == []


# Open files

def test_unlinked_file_stays_usable_while_open(place):
    with open(place / 'file', 'w+b') as file:
        os.unlink(place / 'file')
        file.write(b'still here')
        file.flush()
        assert os.pread(file.fileno(), 100, 0) == b'still here'
        assert os.fstat(file.fileno()).st_nlink == 0
        os.ftruncate(file.fileno(), 5)
        os.fchmod(file.fileno(), 0o600)
        assert os.fstat(file.fileno()).st_size == 5
    assert os.listdir(place) == []


def test_rename_under_an_open_file(place):
    (place / 'd').mkdir()
    with open(place / 'file', 'w+b') as file:
        os.rename(place / 'file', place / 'd/other')
        os.rename(place / 'd', place / 'e')
        file.write(b'data')
        file.flush()
        assert (place / 'e/other').read_bytes() == b'data'
        assert os.fstat(file.fileno()).st_size == 4


def test_working_directory_survives_rename(place):
    assert sh(place, 'mkdir a; cd a; mv ../a ../b; echo x >file; cat ../b/file') == 'x\n'


def test_unnamed_file_gets_a_name_later(place):
    fd = os.open(place, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b'unnamed')
    assert os.listdir(place) == []
    give_name(fd, place / 'named')
    os.close(fd)
    assert (place / 'named').read_bytes() == b'unnamed'
    assert stat.S_IMODE(os.stat(place / 'named').st_mode) == 0o640


def test_exclusive_unnamed_file_gets_no_name(place):
    fd = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    assert error_of(give_name, fd, place / 'named') == 'ENOENT'
    os.close(fd)


def test_exclusive_create_refuses_an_existing_file(place):
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(place / 'file', flags))
    assert error_of(os.open, place / 'file', flags) == 'EEXIST'


def test_create_through_a_dangling_link_makes_its_target(place):
    os.symlink('target', place / 'link')
    (place / 'link').write_text('x')
    assert (place / 'target').read_text() == 'x'


def test_appends_of_two_writers_do_not_overwrite(place):
    writers = [os.open(place / 'log', os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2)]
    for i in range(100):
        os.write(writers[i % 2], b'%03d\n' % i)
    assert (place / 'log').read_bytes() == b''.join(b'%03d\n' % i for i in range(100))
    for fd in writers:
        os.close(fd)


def test_truncating_open_empties_the_file(place):
    (place / 'file').write_text('long text')
    with open(place / 'file', 'w') as file:
        assert os.fstat(file.fileno()).st_size == 0
        file.write('new')
    assert (place / 'file').read_text() == 'new'


def test_file_beyond_4_gib(place):
    with open(place / 'file', 'w+b') as file:
        os.pwrite(file.fileno(), b'end', (5 << 30) - 3)
        assert os.fstat(file.fileno()).st_size == 5 << 30
        assert os.pread(file.fileno(), 10, (5 << 30) - 4) == b'\0end'


def test_direct_io(place):
    data = os.urandom(65536)
    (place / 'file').write_bytes(data)
    buffer = mmap.mmap(-1, 65536)
    fd = os.open(place / 'file', os.O_RDWR | os.O_DIRECT)
    assert os.preadv(fd, [buffer], 0) == 65536 and buffer[:] == data
    assert os.pwritev(fd, [memoryview(buffer)[:4096]], 65536) == 4096
    assert error_of(os.preadv, fd, [memoryview(buffer)[:100]], 1) == 'EINVAL'
    os.close(fd)
    assert (place / 'file').read_bytes() == data + data[:4096]


def test_holes_are_found_and_punched(place):
    with open(place / 'file', 'w+b') as file:
        fd = file.fileno()
        os.pwrite(fd, b'x' * 65536, 1 << 20)
        assert os.lseek(fd, 0, os.SEEK_DATA) == 1 << 20
        assert os.lseek(fd, 1 << 20, os.SEEK_HOLE) == (1 << 20) + 65536
        assert error_of(os.lseek, fd, 2 << 20, os.SEEK_DATA) == 'ENXIO'
        subprocess.run(['fallocate', '-p', '-o', str(1 << 20), '-l', '32768', place / 'file'], check=True)
        assert os.pread(fd, 4, 1 << 20) == bytes(4) and os.pread(fd, 4, (1 << 20) + 32768) == b'xxxx'
        os.posix_fallocate(fd, 0, 2 << 20)
        assert os.fstat(fd).st_size == 2 << 20 and os.fstat(fd).st_blocks * 512 >= 2 << 20


def test_copy_file_range(place):
    (place / 'from').write_bytes(b'0123456789')
    with open(place / 'from', 'rb') as source, open(place / 'to', 'w+b') as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 5, 3, 2) == 5
    assert (place / 'to').read_bytes() == b'\0\x0034567'


def test_shared_mapping_is_seen_by_reads_and_by_other_processes(place):
    (place / 'file').write_bytes(bytes(8192))
    with open(place / 'file', 'r+b') as file:
        memory = mmap.mmap(file.fileno(), 8192)
        child = os.fork()
        if not child:
            memory[4096:4101] = b'child'
            os._exit(0)
        os.waitpid(child, 0)
        assert memory[4096:4101] == b'child'
        assert os.pread(file.fileno(), 5, 4096) == b'child'
        os.pwrite(file.fileno(), b'write', 0)
        assert memory[:5] == b'write'
        memory.flush()
        memory.close()
    assert (place / 'file').read_bytes()[4096:4101] == b'child'


def test_mapping_outlives_the_file_descriptor_and_the_name(place):
    (place / 'file').write_bytes(b'mapped' + bytes(4090))
    with open(place / 'file', 'r+b') as file:
        memory = mmap.mmap(file.fileno(), 4096)
    os.unlink(place / 'file')
    assert memory[:6] == b'mapped'
    memory.close()


def test_locks_exclude_another_process(place):
    (place / 'file').touch()
    with open(place / 'file', 'r+') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert subprocess.run(['flock', '-n', place / 'file', 'true'], check=False).returncode == 1
        fcntl.flock(file, fcntl.LOCK_UN)
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 5)
        child = os.fork()
        if not child:
            with open(place / 'file', 'r+') as other:
                fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)
                try:
                    fcntl.lockf(other, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 14)
                except OSError:
                    os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_waiting_for_a_lock_holds_up_nobody_else(place):
    (place / 'file').touch()
    with open(place / 'file') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        waiting = [subprocess.Popen(['flock', place / 'file', 'true']) for _ in range(6)]
        assert sh(place, 'echo x >other; cat other') == 'x\n'
    assert [process.wait(30) for process in waiting] == [0] * 6


def test_fsync_of_files_and_directories(place):
    (place / 'file').write_text('x')
    for path in (place / 'file', place):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.fdatasync(fd)
        os.close(fd)


def test_size_of_the_file_system(mount):
    plain, mounted = os.statvfs(mount.source), os.statvfs(mount.path)
    for field in ('f_bsize', 'f_blocks', 'f_files', 'f_namemax'):
        assert getattr(plain, field) == getattr(mounted, field), field


# Attributes

def test_times_are_kept_to_the_nanosecond(place):
    (place / 'file').touch()
    os.utime(place / 'file', ns=(123_456_789_012_345_678, -1))
    os.symlink('x', place / 'link')
    os.utime(place / 'link', ns=(1, 2), follow_symlinks=False)
    status = os.stat(place / 'file')
    assert (status.st_atime_ns, status.st_mtime_ns) == (123_456_789_012_345_678, -1)
    assert os.lstat(place / 'link').st_mtime_ns == 2


def test_time_of_birth(place):
    os.close(os.open(place / 'file', os.O_CREAT))
    born, changed = sh(place, "stat -c '%w/%y' file").strip().split('/')
    assert born == changed
    sh(place, 'sleep 0.02; echo x >file; mv file moved')
    assert sh(place, 'stat -c %w moved').strip() == born
    assert sh(place, 'stat -c %w .').strip() != '-'


def test_extended_attributes(place):
    (place / 'file').touch()
    os.setxattr(place / 'file', 'user.a', b'1', os.XATTR_CREATE)
    assert error_of(os.setxattr, place / 'file', 'user.a', b'2', os.XATTR_CREATE) == 'EEXIST'
    assert error_of(os.setxattr, place / 'file', 'user.b', b'2', os.XATTR_REPLACE) == 'ENODATA'
    os.setxattr(place / 'file', 'user.empty', b'')
    os.setxattr(place / 'file', 'user.big', b'v' * 3000)
    assert os.getxattr(place / 'file', 'user.big') == b'v' * 3000
    assert os.getxattr(place / 'file', 'user.empty') == b''
    assert set(os.listxattr(place / 'file')) == {'user.a', 'user.empty', 'user.big'}
    os.removexattr(place / 'file', 'user.a')
    assert error_of(os.getxattr, place / 'file', 'user.a') == 'ENODATA'


def test_extended_attributes_of_a_symbolic_link_itself(place):
    os.symlink('nowhere', place / 'link')
    os.setxattr(place / 'link', 'trusted.a', b'1', follow_symlinks=False)
    assert os.getxattr(place / 'link', 'trusted.a', follow_symlinks=False) == b'1'


def test_trusted_attributes_are_hidden_from_users(place):
    (place / 'file').touch()
    (place / 'file').chmod(0o644)
    os.setxattr(place / 'file', 'trusted.secret', b'1')
    os.setxattr(place / 'file', 'user.open', b'1')
    assert sh(place, 'getfattr --absolute-names -m - file | grep =*user', uid=1000).strip() == 'user.open'
    assert 'trusted' not in sh(place, 'getfattr -m - file', uid=1000)


@pytest.fixture
def users_file(place):
    sh(place, 'echo data >file; chmod 640 file', uid=1000)
    return place / 'file'


def test_acl_admits_and_refuses_users(place, users_file):
    fails(place, 'cat file', uid=1001)
    sh(place, 'setfacl -m u:1001:r file', uid=1000)
    assert sh(place, 'cat file', uid=1001) == 'data\n'
    fails(place, 'echo x >>file', uid=1001)
    sh(place, 'setfacl -m m::- file', uid=1000)
    fails(place, 'cat file', uid=1001)


def test_chmod_changes_the_mask_of_an_acl(place, users_file):
    sh(place, 'setfacl -m u:1001:rw file; chmod g-w file', uid=1000)
    assert 'mask::r--' in sh(place, 'getfacl -c file')


def test_default_acl_replaces_the_umask(place):
    (place / 'plain').mkdir(mode=0o777)
    sh(place, 'chmod 777 plain; mkdir inheriting; chmod 777 inheriting; setfacl -d -m u:1234:rwx,g::rwx,o::- inheriting')
    for directory in ('plain', 'inheriting'):
        sh(place / directory, 'mkdir d; touch f; ln -s x l; mkfifo p', uid=1000, umask=0o077)
    assert sh(place / 'plain', 'stat -c %a d f p') == '700\n600\n600\n'
    assert sh(place / 'inheriting', 'stat -c %a d f p') == '770\n660\n660\n'
    assert 'user:1234:rwx' in sh(place / 'inheriting', 'getfacl -cd d')


def test_acl_of_a_stranger_to_the_group_takes_setgid_away(place):
    sh(place, 'touch file; chown 1000:2000 file; chmod 2770 file')
    sh(place, 'setfacl -m u:1001:r file', uid=1000, groups=[2000])
    assert os.stat(place / 'file').st_mode & stat.S_ISGID
    sh(place, 'setfacl -m u:1002:r file', uid=1000)
    assert not os.stat(place / 'file').st_mode & stat.S_ISGID


# Many users

def test_everything_made_belongs_to_its_maker(place):
    def make():
        os.chdir(place)
        os.close(os.open('file', os.O_CREAT))
        os.mkdir('directory')
        os.symlink('x', 'link')
        os.mkfifo('fifo')
        socket.socket(socket.AF_UNIX).bind('socket')
        give_name(os.open('.', os.O_TMPFILE | os.O_RDWR), 'unnamed')
    end_of(start_as(1000, make))
    owners = {name: (os.lstat(place / name).st_uid, os.lstat(place / name).st_gid) for name in os.listdir(place)}
    assert owners == dict.fromkeys(['file', 'directory', 'link', 'fifo', 'socket', 'unnamed'], (1000, 1000))


def test_umask_is_the_makers(place):
    sh(place, 'touch f; mkdir d', uid=1000, umask=0o027)
    sh(place, 'touch g; mkdir e', uid=1000, umask=0)
    assert sh(place, 'stat -c %a f d g e') == '640\n750\n666\n777\n'


def test_makers_at_the_same_time_get_their_own(place):
    def make(uid):
        os.chdir(place)
        for i in range(20):
            os.close(os.open(f'{uid}-{i}', os.O_CREAT, 0o666))
            os.mkdir(f'd{uid}-{i}')
    end_of(*[start_as(uid, lambda uid=uid: make(uid), umask=uid % 8) for uid in (1001, 1002, 1003, 1004)])
    for entry in os.scandir(place):
        uid, status = int(entry.name.lstrip('d').split('-')[0]), entry.stat()
        assert (status.st_uid, status.st_gid) == (uid, uid), entry.name
        assert stat.S_IMODE(status.st_mode) == (0o777 if entry.is_dir() else 0o666) & ~(uid % 8), entry.name
    assert len(os.listdir(place)) == 4 * 40


def test_a_supplementary_group_may_create(place):
    sh(place, 'mkdir shared; chgrp 2000 shared; chmod 770 shared')
    sh(place, 'cd shared; touch f; mkdir d; cd d; touch g; mv g ..', uid=1000, groups=[2000])
    fails(place, 'touch shared/x', uid=1001)


def test_setgid_directory_hands_down_its_group(place):
    sh(place, 'mkdir shared; chgrp 2000 shared; chmod 2777 shared')
    sh(place, 'cd shared; touch f; mkdir d; touch d/g', uid=1000)
    assert sh(place / 'shared', 'stat -c %g:%A f d d/g').split() == ['2000:-rw-r--r--', '2000:drwxr-sr-x', '2000:-rw-r--r--']


def test_setgid_file_needs_membership(place):
    sh(place, 'mkdir shared; chgrp 2000 shared; chmod 2777 shared')

    def make(name):
        os.close(os.open(place / 'shared' / name, os.O_CREAT | os.O_WRONLY, 0o2775))
    end_of(start_as(1000, lambda: make('member'), groups=[2000], umask=0), start_as(1000, lambda: make('stranger'), umask=0))
    assert [stat.S_IMODE(os.stat(place / 'shared' / name).st_mode) for name in ('member', 'stranger')] == [0o2775, 0o775]


def test_sticky_directory_protects_names(place):
    sh(place, 'mkdir t; chmod 1777 t')
    sh(place, 'touch t/mine', uid=1000)
    fails(place, 'rm -f t/mine', uid=1001)
    fails(place, 'mv t/mine t/yours', uid=1001)
    sh(place, 'rm t/mine', uid=1000)


def test_strangers_may_not_change_attributes(place, users_file):
    for command in ('chmod 777 file', 'chown 1001 file', 'touch file', 'truncate -s 0 file', 'setfattr -n user.a -v 1 file', 'setfacl -m u:1001:rw file'):
        fails(place, command, uid=1001)
    fails(place, 'chown 1001 file', uid=1000)
    fails(place, 'chgrp 2000 file', uid=1000)
    sh(place, 'chgrp 2000 file', uid=1000, groups=[2000])


def write_with(*flags):
    def change(path):
        fd = os.open(path, os.O_WRONLY | sum(flags))
        os.write(fd, b'x')
        os.close(fd)
    return change


def allocate(path):
    with open(path, 'r+b') as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)


def copy_into(path):
    with open(path.with_name('from'), 'rb') as source, open(path, 'r+b') as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), 4) == 4


CHANGES = {'write': write_with(), 'append': write_with(os.O_APPEND), 'truncating open': lambda path: os.close(os.open(path, os.O_WRONLY | os.O_TRUNC)),
           'truncate': lambda path: os.truncate(path, 1), 'allocate': allocate, 'copy_file_range': copy_into}


@pytest.mark.parametrize('change', CHANGES)
def test_change_by_another_user_takes_setuid_away(place, change):
    path = place / 'file'
    path.write_text('data')
    (place / 'from').write_text('other data')
    path.chmod(0o6777)
    end_of(start_as(1000, lambda: CHANGES[change](path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o777


@pytest.mark.parametrize('change', ['echo x >>file', 'truncate -s 1 file', 'fallocate -l 10000 file', 'cp from file'])
def test_change_takes_file_capabilities_away(place, change):
    sh(place, 'echo from >from; echo data >file; chmod 777 file; setcap cap_net_raw+ep file; getcap file | grep -q net_raw')
    sh(place, change, uid=1000)
    assert sh(place, 'getcap file') == ''


def test_chown_takes_file_capabilities_away(place):
    sh(place, 'touch file; setcap cap_net_raw+ep file; getcap file | grep -q net_raw; chown 1000 file')
    assert sh(place, 'getcap file') == ''


def test_owner_may_not_give_capabilities_to_a_file(place, users_file):
    assert 'not permitted' in fails(place, 'setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 file', uid=1000)
    sh(place, 'setcap cap_net_raw+ep file')
    sh(place, 'getcap file | grep -q net_raw', uid=1000)
    assert 'not permitted' in fails(place, 'setfattr -x security.capability file', uid=1000)


def test_program_that_was_written_to_does_not_run_as_its_owner(place):
    """Nobody looks at the file between the write and the start: the kernel goes by what it remembers."""
    sh(place, 'cp /usr/bin/id id; chown 0:1000 id; chmod 4770 id')
    assert sh(place, './id -u', uid=1000) == '0\n'
    assert sh(place, 'printf x >>id; ./id -u', uid=1000) == '1000\n'


def test_chown_takes_setuid_away(place):
    sh(place, 'touch file; chmod 6755 file; chown 1000 file')
    assert sh(place, 'stat -c %a file') == '755\n'


def test_file_without_rights_is_opened_only_by_root(place):
    sh(place, 'echo x >file; chmod 0 file', uid=1000)
    fails(place, 'cat file', uid=1000)
    assert sh(place, 'cat file') == 'x\n'


def test_immutable_and_append_only_files_are_respected(mount):
    sh(mount.source, 'echo x >fixed; chattr +i fixed; echo x >log; chattr +a log')
    try:
        fails(mount.path, 'echo y >fixed')
        fails(mount.path, 'rm -f fixed')
        fails(mount.path, 'echo y >log')
        sh(mount.path, 'echo y >>log')
    finally:
        sh(mount.source, 'chattr -i fixed; chattr -a log')
    assert (mount.path / 'log').read_text() == 'x\ny\n'


# The source directory changes underneath

def test_changes_in_the_source_become_visible(mount):
    assert not (mount.path / 'new').exists()
    (mount.source / 'new').write_text('one')
    assert (mount.path / 'new').read_text() == 'one'
    (mount.source / 'new').write_text('longer')
    wait_until(lambda: (mount.path / 'new').stat().st_size == 6)
    assert (mount.path / 'new').read_text() == 'longer'
    os.rename(mount.source / 'new', mount.source / 'moved')
    wait_until(lambda: not (mount.path / 'new').exists())
    assert (mount.path / 'moved').read_text() == 'longer'


def test_file_that_appears_during_creation_is_opened_with_the_callers_rights(mount):
    """A name that the kernel believes to be free: the server must not open another user's file for the one who creates."""
    def appear_and_vanish():
        os.chdir(mount.source)
        while True:
            with contextlib.suppress(FileExistsError):   # the other one's, to whom it must not be told
                fd = os.open('secret', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
                os.write(fd, b'secret')
                os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink('secret')

    def create():
        os.chdir(mount.path)
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.unlink('secret')   # so that the kernel believes it, too
            with contextlib.suppress(OSError):
                fd = os.open('secret', os.O_CREAT | os.O_RDWR, 0o600)
                owner, data = os.fstat(fd).st_uid, os.pread(fd, 6, 0)
                os.close(fd)
                if owner != 1000 or data:
                    os._exit(2)
    owner = start_as(0, appear_and_vanish)
    try:
        end_of(start_as(1000, create))
    finally:
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)


def test_other_file_systems_below_the_source_are_not_entered(mount):
    (mount.source / 'below').mkdir()
    (mount.source / 'below/under').touch()
    subprocess.run(['mount', '-t', 'tmpfs', 'tmpfs', mount.source / 'below'], check=True)
    try:
        (mount.source / 'below/on').touch()
        assert os.listdir(mount.path / 'below') == ['under']
    finally:
        subprocess.run(['umount', mount.source / 'below'], check=True)


def test_ioctl_that_is_not_known_is_refused(mount):
    (mount.path / 'file').touch()
    with open(mount.path / 'file') as file:
        assert error_of(fcntl.ioctl, file, 0x5413, struct.pack('HHHH', 0, 0, 0, 0)) == 'ENOTTY'
