"""What tests of the mount as a filesystem share: a place on it, and users who do things there."""
import ctypes
import errno
import fcntl
import mmap
import os
import re
import shutil
import signal
import subprocess
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

import guest
from faults import overridden
from uring import Ring

LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope='module')
def served(_ext4_root):
    """One mount for all tests of a file, so that each costs only a directory. Not in tmp_path, where only root may go; programs run as on ext4."""
    source, target = _ext4_root / 'served', Path('/mnt/served')
    source.mkdir()
    guest.mount_server(source, target, 'suid')
    yield SimpleNamespace(path=target, source=source)
    guest.unmount(target)
    target.rmdir()
    guest.run('rm', '-rf', source)


@pytest.fixture
def mount(served, request):
    """An empty directory on the mount, open to all users: .path, and .source behind it."""
    name = re.sub(r'\W+', '-', request.node.name)[:200]
    (served.path / name).mkdir()
    (served.path / name).chmod(0o777)
    yield SimpleNamespace(path=served.path / name, source=served.source / name)
    shutil.rmtree(served.source / name)


class OwnMount:
    """A mount that a test may end, and begin again: .path, .source."""

    def __init__(self, source, path, options=''):
        self.source, self.path = source, path
        self.mount(options)

    def mount(self, options=''):
        guest.mount_server(self.source, self.path, options)

    def kill(self):
        """The server, as a crash does; the mount stays."""
        server = server_of(self.path)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not os.path.exists(f'/proc/{server}'))
        guest.wait_for_end_of_mount(self.path)

    def take_away(self):
        """The mount, as somebody does who wants to mount again while files are open."""
        guest.unmount(self.path, lazy=True)

    def restart(self, options=''):
        self.kill()
        self.take_away()
        self.mount(options)

    def end(self):
        """Whatever the test has left of it."""
        guest.unmount_all(self.path)


@pytest.fixture(params=['ext4', 'mount'])
def place(request, mount):
    """Only a path; such a test cannot tell whether it is on the mount, or on the ext4 behind it."""
    return mount.source if request.param == 'ext4' else mount.path


@pytest.fixture(scope='module', params=['ext4', 'xfs'])
def kind(request):
    """A file system. Its scope brings the tests of each together, which is made once."""
    return request.param


@pytest.fixture(scope='module')
def pair(filesystems, kind):
    """A directory of that file system, and the server's mount of it: .source, .path. On both each read moves the access time, and set-ID bits have effect."""
    root = filesystems.hold(kind) / 'pair'
    source, target = Path('/mnt/pair-source'), Path('/mnt/pair')
    for path in (root, source):
        path.mkdir()
    guest.run('mount', '--bind', '-o', 'strictatime', root, source)
    guest.mount_server(source, target, 'suid')
    yield SimpleNamespace(path=target, source=source)
    for path in (target, source):
        guest.unmount(path)
        path.rmdir()
    guest.run('rm', '-rf', root)


def _new_directory(pair, request, prefix=''):
    """Empty and open to all users, on both sides of the pair; removed in the end."""
    name = prefix + re.sub(r'\W+', '-', request.node.name)[:200]
    path, source = pair.path / name, pair.source / name
    source.mkdir()
    source.chmod(0o777)
    request.addfinalizer(lambda: shutil.rmtree(source))
    return path, source


@pytest.fixture(params=['below', 'mount'])
def spot(request, pair):
    """An empty directory below or on the mount, which both must behave alike: .path where the test works, .source the same below."""
    path, source = _new_directory(pair, request)
    return SimpleNamespace(path=source if request.param == 'below' else path, source=source)


@pytest.fixture
def twins(request, pair):
    """Two empty directories to do the same in, one below and one on the mount: each has .path and .source, as `spot`."""
    below, mounted = _new_directory(pair, request, 'below-'), _new_directory(pair, request, 'mount-')
    return [SimpleNamespace(path=below[1], source=below[1]), SimpleNamespace(path=mounted[0], source=mounted[1])]


class Calls:
    """Reads and writes by system calls. Offset -1 is the file's position."""

    def read(self, fd, memory, offset, flags=0):
        return os.preadv(fd, [memory], offset, _signed(flags))

    def write(self, fd, memory, offset, flags=0):
        return os.pwritev(fd, [memory], offset, _signed(flags))


class Requests:
    """The same by io_uring."""

    READ, WRITE = 22, 23   # IORING_OP_*

    def __init__(self, ring):
        self._ring = ring

    def read(self, fd, memory, offset, flags=0):
        return self._ring.run(self.READ, fd, address(memory), len(memory), offset, op_flags=flags)

    def write(self, fd, memory, offset, flags=0):
        return self._ring.run(self.WRITE, fd, address(memory), len(memory), offset, op_flags=flags)


@pytest.fixture(params=['calls', 'ring'])
def io(request):
    """Reads and writes, either by system calls or by io_uring: io.read(fd, memory, offset, flags), io.write()."""
    if request.param == 'calls':
        yield Calls()
        return
    with Ring() as ring:
        yield Requests(ring)


@pytest.fixture
def no_time_to_note():
    """Once in each tick of the clock a write has to note its time, for which file systems want to wait for their journals. Here they say that they need not."""
    with overridden('kiocb_modified', value=0):
        yield


def _signed(flags):
    return flags - (flags >> 31 << 32)


def address(memory):
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def aligned(data):
    """Memory with these bytes that direct I/O takes; or with so many zeros."""
    size = data if isinstance(data, int) else len(data)
    memory = memoryview(mmap.mmap(-1, size))[:size]
    if size != data:
        memory[:] = data
    return memory


def outcome(call, *arguments):
    """What a call returns, or the name of its error."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]


class CacheStat(ctypes.Structure):
    """Pages of a file by their state, as cachestat(2) counts them."""
    _fields_ = [(name, ctypes.c_uint64) for name in ('cached', 'dirty', 'writeback', 'evicted', 'recently_evicted')]


def cache_of(file, start=0, length=0):
    """What is cached of a file, or of an open one; of a part of it, where a length is given."""
    if not isinstance(file, int):
        with open(file, 'rb') as opened:
            return cache_of(opened.fileno(), start, length)
    place, found = (ctypes.c_uint64 * 2)(start, length), CacheStat()
    if LIBC.syscall(451, file, place, ctypes.byref(found), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def set_flags(fd, on=0, off=0):
    """fcntl(F_SETFL) of all flags that the descriptor has, but for these."""
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~off | on)


def sh(place, script, uid=0, gid=None, groups=(), umask=0o022):
    """Runs a shell script in the place as a user; its output, or CalledProcessError with what it said."""
    return subprocess.run(['sh', '-euc', script], cwd=place, user=uid, group=uid if gid is None else gid, extra_groups=list(groups),
                          umask=umask, check=True, text=True, capture_output=True).stdout


def fails(place, script, **who):
    """The message of a script that must fail."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        sh(place, script, **who)
    return error.value.stderr


def start_as(uid, function, groups=(), umask=0o022):
    """Runs a function as a user in a process of its own, for end_of()."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.umask(umask)
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        function()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def end_of(*children):
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


def server_of(target):
    """The process that serves a mount."""
    for entry in Path('/proc').glob('[0-9]*'):
        try:
            words = (entry / 'cmdline').read_bytes().split(b'\0')
        except OSError:
            continue
        if b'mount.fuse-dmabuf' in words[0] and os.fsencode(target) in words:
            return int(entry.name)
    raise LookupError(f'no server for {target}')


def open_files_of(process):
    """What its descriptors are open on, but for those that it closes meanwhile."""
    links = []
    for descriptor in os.listdir(f'/proc/{process}/fd'):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f'/proc/{process}/fd/{descriptor}'))
    return links


def wait_until(condition, seconds=60, pause=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(pause)
