"""Callers: processes with chosen credentials that keep descriptors open and do single operations on request."""
import ctypes
import errno
import fcntl
import mmap
import multiprocessing
import os
import shutil
import signal
import stat
import struct
import traceback
from contextlib import suppress
from dataclasses import dataclass

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW, AT_EMPTY_PATH, AT_STATX_FORCE_SYNC = -100, 0x100, 0x400, 0x1000, 0x2000
SYS_FCHMODAT2 = 452
PR_SET_PDEATHSIG, PR_SET_KEEPCAPS = 1, 8
CAPABILITY_VERSION = 0x20080522
CAPABILITIES = {'chown': 0, 'dac_override': 1, 'dac_read_search': 2, 'fowner': 3, 'fsetid': 4, 'linux_immutable': 9, 'sys_admin': 21, 'sys_resource': 24,
                'mknod': 27, 'setfcap': 31}
FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, IMMUTABLE, APPEND_ONLY = 0x80086601, 0x40086602, 0x10, 0x20
RWF_NOAPPEND = 0x20
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
# A number that no descriptor has; of -1 mmap(2) makes anonymous memory.
NO_DESCRIPTOR = 1 << 20
# Seconds for one operation: some that hang wait for ever.
PATIENCE = 20


@dataclass(frozen=True)
class Caller:
    """Who somebody is. The ids are those outside of `namespace`, which maps (first inside, first outside, how many)."""
    uid: int
    gid: int
    groups: tuple = ()
    capabilities: tuple | None = None   # None: those that come with the uid
    fsuid: int | None = None
    fsgid: int | None = None
    umask: int = 0o022
    namespace: tuple = ()
    changes: bool = False               # is told to become somebody else

    def ids(self, outside):
        """How the caller calls these ids. Those of nobody in the caller's namespace are left out."""
        if not self.namespace:
            return list(outside)
        first, base, count = self.namespace
        return [first + i - base for i in outside if base <= i < base + count]


def holder(capability):
    return Caller(1003, 1003, (2001,), (capability,))


CALLERS = {
    'root': Caller(0, 0),
    'root without capabilities': Caller(0, 0, (), ()),
    'root as alice': Caller(0, 0, (2001,), fsuid=1000, fsgid=1000),
    'alice': Caller(1000, 1000, (2000,)),
    'bob': Caller(1001, 1001, (1000, 2001), umask=0o002),
    'carol': Caller(1002, 2000, (), umask=0),
    'alice as bob': Caller(1000, 1000, (2001,), fsuid=1001, fsgid=2000, umask=0o077),
    'changing': Caller(0, 0, (2000, 2001), changes=True),
    'container of alice': Caller(1000, 1000, (2000,), namespace=(0, 1000, 1)),
    'container root': Caller(100000, 100000, (100002,), namespace=(0, 100000, 10)),
    'container user': Caller(100001, 100001, (100002,), (), namespace=(0, 100000, 10)),
} | {f'holder of {name}': holder(name) for name in CAPABILITIES if name != 'linux_immutable'}


def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def own_capabilities():
    """Those that this process may use, as a mask."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1], 16) for line in file if line.startswith('CapPrm'))


def set_capabilities(effective, permitted):
    header = struct.pack('=Ii', CAPABILITY_VERSION, 0)
    parts = [mask >> shift & 0xffffffff for shift in (0, 32) for mask in (effective, permitted, 0)]
    check(LIBC.capset(header, struct.pack('=6I', *parts)))


def mask_of(names):
    return sum(1 << CAPABILITIES[name] for name in names)


def exists_here(caller):
    """Whether this process can make such a caller: a container may lack capabilities and user namespaces itself."""
    with open('/proc/sys/user/max_user_namespaces') as file:
        if caller.namespace and not int(file.read()):
            return False
    return not mask_of(caller.capabilities or ()) & ~own_capabilities()


class Operations:
    """What a caller can be told to do. A target is a path; ('link', path), which is not followed; ('fd', slot), a descriptor; ('proc', slot), its
    link in /proc; or ('empty', slot), the descriptor with AT_EMPTY_PATH."""

    def __init__(self, caller, root):
        self._caller, self._root, self._slots = caller, root, {}

    def _fd(self, slot):
        return self._slots.get(slot, NO_DESCRIPTOR)

    def _argument(self, target):
        """What functions of os take, and whether they follow links."""
        if isinstance(target, str):
            return target, True
        way, value = target
        if way == 'link':
            return value, False
        return (f'/proc/self/fd/{self._fd(value)}' if way == 'proc' else self._fd(value)), True

    def _at(self, target):
        """What system calls with a directory take."""
        argument, follow = self._argument(target)
        if isinstance(argument, int):
            return argument, b'', AT_EMPTY_PATH
        return AT_FDCWD, argument.encode(), 0 if follow else AT_SYMLINK_NOFOLLOW

    # Descriptors

    def _keep(self, slot, fd):
        self.close(slot)
        self._slots[slot] = fd

    def open(self, slot, path, flags, mode):
        self._keep(slot, os.open(path, flags | os.O_NONBLOCK, mode))

    def close(self, slot):
        if slot in self._slots:
            os.close(self._slots.pop(slot))

    def pread(self, slot, size, offset):
        return os.pread(self._fd(slot), size, offset)

    def write(self, slot, data):
        return os.write(self._fd(slot), data)

    def pwrite(self, slot, data, offset):
        return os.pwrite(self._fd(slot), data, offset)

    def pwrite_noappend(self, slot, data, offset):
        return os.pwritev(self._fd(slot), [data], offset, RWF_NOAPPEND)

    def write_mapped(self, slot, data):
        """Lets the kernel write to the mapping: where that is not possible it says EFAULT, and sends no signal."""
        try:
            memory = mmap.mmap(self._fd(slot), len(data))
        except ValueError as error:   # the file is shorter
            raise OSError(errno.ENXIO, str(error)) from None
        with memory:
            source, target = os.pipe()
            try:
                os.write(target, data)
                view = memoryview(memory)
                try:
                    return os.readv(source, [view])
                finally:
                    view.release()
            finally:
                os.close(source)
                os.close(target)

    def set_flags(self, slot, flags):
        fcntl.fcntl(self._fd(slot), fcntl.F_SETFL, flags | os.O_NONBLOCK)

    def fallocate(self, slot, mode, offset, length):
        check(LIBC.fallocate(self._fd(slot), mode, ctypes.c_long(offset), ctypes.c_long(length)))

    def copy(self, source, target, length, offset):
        return os.copy_file_range(self._fd(source), self._fd(target), length, 0, offset)

    # Attributes

    def chmod(self, target, mode):
        if isinstance(target, tuple) and target[0] in ('link', 'empty'):
            at, path, flags = self._at(target)
            check(LIBC.syscall(SYS_FCHMODAT2, at, path, mode, flags))
        else:
            os.chmod(self._argument(target)[0], mode)

    def chown(self, target, uid, gid):
        if target[0] == 'fd':
            os.fchown(self._fd(target[1]), uid, gid)
        else:
            at, path, flags = self._at(target)
            check(LIBC.fchownat(at, path, uid, gid, flags))

    def set_times(self, target, accessed, modified):
        """Each is seconds, UTIME_NOW or UTIME_OMIT; or both are None."""
        times = None
        if accessed is not None:
            pairs = [(0, value) if value in (UTIME_NOW, UTIME_OMIT) else (value, 0) for value in (accessed, modified)]
            times = struct.pack('=4q', *pairs[0], *pairs[1])
        if target[0] == 'fd':
            check(LIBC.futimens(self._fd(target[1]), times))
        else:
            at, path, flags = self._at(target)
            check(LIBC.utimensat(at, path, times, flags))

    def truncate(self, target, length):
        os.truncate(self._argument(target)[0], length)

    def setxattr(self, target, name, value, flags):
        argument, follow = self._argument(target)
        os.setxattr(argument, name, value, flags, **{} if follow else {'follow_symlinks': False})

    def removexattr(self, target, name):
        argument, follow = self._argument(target)
        os.removexattr(argument, name, **{} if follow else {'follow_symlinks': False})

    def getxattr(self, target, name):
        return os.getxattr(self._argument(target)[0], name)

    def listxattr(self, target):
        return sorted(os.listxattr(self._argument(target)[0]))

    def stat(self, target):
        argument, follow = self._argument(target)
        status = os.stat(argument, **{} if follow else {'follow_symlinks': False})
        return status.st_mode, status.st_uid, status.st_gid, status.st_nlink, 0 if stat.S_ISDIR(status.st_mode) else status.st_size

    def access(self, path, mode):
        return os.access(path, mode, effective_ids=True)

    def set_inode_flags(self, path, flags):
        """IMMUTABLE, APPEND_ONLY or neither; the others stay as they are."""
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        try:
            if not (stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode)):
                raise OSError(errno.ENOTTY, 'pipes and devices the kernel opens by itself, whatever their flags are on XFS')
            present, = struct.unpack('l', fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)))
            fcntl.ioctl(fd, FS_IOC_SETFLAGS, struct.pack('l', present & ~(IMMUTABLE | APPEND_ONLY) | flags))
        finally:
            os.close(fd)

    # Names

    def link(self, target, new):
        """A descriptor is linked as linkat(2) says for unnamed files: by its link in /proc, or with AT_EMPTY_PATH."""
        at, path, flags = self._at(target)
        if not flags and isinstance(target, tuple):
            flags = AT_SYMLINK_FOLLOW
        check(LIBC.linkat(at, path, AT_FDCWD, new.encode(), flags & ~AT_SYMLINK_NOFOLLOW))

    def symlink(self, target, new):
        os.symlink(target, new)

    def rename(self, old, new, flags):
        check(LIBC.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags))

    def unlink(self, path):
        os.unlink(path)

    def rmdir(self, path):
        os.rmdir(path)

    def mkdir(self, path, mode):
        os.mkdir(path, mode)

    def mknod(self, path, mode, device):
        os.mknod(path, mode, device)

    def readdir(self, path):
        return sorted(os.listdir(path))

    def readlink(self, path):
        return os.readlink(path)

    def make(self, path, mode, uid, gid, content, attributes):
        """A file or directory as a round finds it; its last modification was long ago."""
        if stat.S_ISDIR(mode):
            os.mkdir(path)
        elif stat.S_ISREG(mode):
            with open(path, 'xb') as file:
                file.write(content)
        elif stat.S_ISLNK(mode):
            os.symlink(content, path)
        else:
            os.mknod(path, mode, os.makedev(1, 3))
        os.lchown(path, uid, gid)
        if not stat.S_ISLNK(mode):
            for name, value in attributes:
                os.setxattr(path, name, value)
            os.chmod(path, stat.S_IMODE(mode))
        os.utime(path, (1, 1), follow_symlinks=False)

    # The caller

    def set_umask(self, mask):
        os.umask(mask)

    def become(self, uid, gid, groups, capabilities):
        """The saved uid stays root's, so that all that is given up can be had again."""
        permitted = own_capabilities()
        os.setresuid(-1, 0, -1)
        set_capabilities(permitted, permitted)
        os.setgroups(groups)
        os.setresgid(-1, gid, -1)
        os.setresuid(-1, uid, 0)
        set_capabilities(mask_of(capabilities) & permitted if uid or capabilities else permitted, permitted)

    def begin(self, path):
        """Into a directory, with nothing left of what was done before."""
        for slot in list(self._slots):
            self.close(slot)
        if self._caller.changes:
            self.become(0, 0, self._caller.groups, ())
        os.fchdir(self._root)
        os.chdir(path)
        os.umask(self._caller.umask)

    # What the test asks for itself

    def descriptor(self, slot):
        """Its number, when the kernel has asked for the file's attributes."""
        self.forget_attributes()
        return self._fd(slot)

    def forget_attributes(self):
        """Has the kernel ask for the attributes of open files."""
        for fd in self._slots.values():
            self._synchronise(fd, b'', AT_EMPTY_PATH)

    def forget_names(self, paths):
        """Has the kernel ask for names and attributes. A directory gets no hard link, but before the kernel says so it looks the name up anew."""
        for path in ('.', *paths):
            LIBC.linkat(AT_FDCWD, b'.', AT_FDCWD, path.encode(), 0)
            self._synchronise(AT_FDCWD, path.encode(), AT_SYMLINK_NOFOLLOW)

    @staticmethod
    def _synchronise(at, path, flags):
        LIBC.statx(at, path, flags | AT_STATX_FORCE_SYNC, 0xfff, ctypes.create_string_buffer(256))

    def remove_tree(self, path):
        """Also what is immutable."""
        os.fchdir(self._root)
        shutil.rmtree(path, onexc=self._remove_by_force)

    def _remove_by_force(self, function, path, error):
        for protected in (path, os.path.dirname(path)):
            with suppress(OSError):   # neither a file nor a directory
                self.set_inode_flags(protected, 0)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def snapshot(self):
        """All that is in the working directory, as path: what can be known of it."""
        self._first_names, found = {}, {}
        self._look('', found)
        return found

    def _look(self, directory, found):
        for name in sorted(os.listdir(directory or '.')):
            path = f'{directory}/{name}' if directory else name
            found[path] = facts = self._facts(path)
            if stat.S_ISDIR(facts['mode']):
                self._look(path, found)

    def _facts(self, path):
        status = os.lstat(path)
        facts = {'mode': status.st_mode, 'uid': status.st_uid, 'gid': status.st_gid, 'links': status.st_nlink,
                 'inode of': self._first_names.setdefault(status.st_ino, path),
                 'attributes': [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))]}
        # The kernel keeps to itself when somebody uses a pipe or a device of a mount.
        if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            facts |= {'accessed': self._time(status.st_atime), 'modified': self._time(status.st_mtime)}
        if stat.S_ISREG(status.st_mode):
            with open(path, 'rb', 0) as file:
                facts['content'] = file.read()
        elif stat.S_ISLNK(status.st_mode):
            facts['content'] = os.readlink(path)
        elif stat.S_ISCHR(status.st_mode):
            facts['device'] = status.st_rdev
        return facts

    @staticmethod
    def _time(seconds):
        """A test sets times that are long ago; any other is that of a change."""
        return seconds if seconds < 1e9 else 'now'


class Worker:
    """A caller's process, in a directory."""

    def __init__(self, caller, directory):
        self._caller = caller
        self._end, there = multiprocessing.Pipe()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                serve(caller, directory, there)
                status = 0
            finally:
                os._exit(status)
        there.close()
        if caller.namespace:
            self._receive()
            for name in ('uid_map', 'gid_map'):
                with open(f'/proc/{self.pid}/{name}', 'w') as file:
                    file.write(' '.join(map(str, caller.namespace)))
            self._end.send(None)
        self._receive()

    def send(self, operation, *arguments):
        self._end.send((operation, arguments))

    def receive(self):
        """('done', value) or ('refused', the error's name)."""
        answer = self._receive()
        assert answer[0] != 'broken', answer[1]
        return answer

    def _receive(self):
        assert self._end.poll(PATIENCE), f'{self._caller} hangs'
        return self._end.recv()

    def ask(self, operation, *arguments):
        self.send(operation, *arguments)
        return self.receive()

    def end(self):
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._end.close()


def serve(caller, directory, end):
    """The life of a worker's process."""
    operations = Operations(caller, os.open(directory, os.O_PATH | os.O_DIRECTORY))
    take_credentials(caller, end)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    end.send(None)
    with suppress(EOFError):
        while True:
            operation, arguments = end.recv()
            try:
                answer = 'done', getattr(operations, operation)(*arguments)
            except OSError as error:
                answer = 'refused', errno.errorcode[error.errno]
            except Exception:
                answer = 'broken', f'{operation}{arguments}: {traceback.format_exc()}'
            end.send(answer)


def take_credentials(caller, end):
    permitted = own_capabilities()
    LIBC.prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups(caller.groups)
    os.setresgid(caller.gid, caller.gid, caller.gid if caller.fsgid is None else caller.fsgid)
    os.setresuid(caller.uid, caller.uid, caller.uid if caller.fsuid is None else caller.fsuid)
    wanted = mask_of(caller.capabilities or ()) if caller.uid or caller.capabilities is not None else permitted
    if caller.namespace:
        set_capabilities(0, 0)
        os.unshare(os.CLONE_NEWUSER)
        end.send(None)
        end.recv()
        wanted = own_capabilities() if caller.capabilities is None else 0
    set_capabilities(wanted, wanted)
    # The last: it takes capabilities from root.
    if caller.fsgid is not None:
        LIBC.setfsgid(caller.fsgid)
    if caller.fsuid is not None:
        LIBC.setfsuid(caller.fsuid)
