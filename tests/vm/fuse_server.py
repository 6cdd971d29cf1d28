"""A FUSE server made of a script: it passes the files of one directory through, and its broker does what a test says.

It speaks to /dev/fuse itself, because a library refuses to send the replies that a broken or hostile server sends. The
real server has tests of its own; old servers, that know no broker, are tests/vm/servers/.
"""

import collections
import ctypes
import errno
import fcntl
import io
import os
import pickle
import signal
import struct
import tempfile
import traceback
import warnings

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, RELEASE, FLUSH, INIT = 1, 2, 3, 4, 14, 15, 16, 18, 25, 26
FSYNC, INTERRUPT, DESTROY, BATCH_FORGET = 20, 36, 38, 42
TOKEN_CREATE, TOKEN_RELEASE = 2048, 2049

TOKEN_READ, TOKEN_WRITE = 1, 2
CLOSED, REVOKED, FAILED = 0, 1, 2

ASYNC_READ, BIG_WRITES, ASYNC_DIO, INIT_EXT = 1 << 0, 1 << 5, 1 << 15, 1 << 30
HANDLE_KILLPRIV_V2 = 1 << 28  # without it the kernel asks before each write, and none is NOWAIT
PASSTHROUGH2 = 1 << 5  # in the second word of the flags
FOPEN_DIRECT_IO, FOPEN_PASSTHROUGH = 1 << 0, 1 << 7
FATTR_SIZE = 1 << 3

BACKING_OPEN, BACKING_CLOSE, DMABUF_REVOKE = 0x4010E501, 0x4004E502, 0xC018E540
MAX_WRITE = 1 << 17

HEADER = struct.Struct("=IIQQIIIHH")
Request = collections.namedtuple("Request", "opcode unique nodeid uid gid pid body")
TokenIn = collections.namedtuple("TokenIn", "fh token size direction padding exporter")
TokenReleaseIn = collections.namedtuple("TokenReleaseIn", "fh token requests read_bytes write_bytes reason padding")
TOKEN_IN, TOKEN_RELEASE_IN = struct.Struct("=QQQII32s"), struct.Struct("=QQQQQII")

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


# Brokers: they get the TokenIn and return an errno, None (no answer at all), raw bytes, or a list of such answers, sent one after the other.


def grant(token):
    return struct.pack("=II", token.direction, 0)


def grant_only(direction):
    return lambda token: struct.pack("=II", direction, 0)


def refuse(number):
    return lambda token: number


def no_answer(token):
    return None


def answer(raw):
    return lambda token: raw


class _Server:
    """The process that serves."""

    def __init__(self, device, source, broker, log, open_flags, owing):
        self.device, self.source, self.broker, self.log, self.open_flags = device, source, broker, log, open_flags
        self.owing = owing  # opcodes that are answered late
        self.owed = []  # the requests
        self.names = {}  # nodeid → name
        self.files = {}  # fh → (descriptor, nodeid)
        self.backings = {}  # nodeid → [backing id, opens]

    def run(self):
        while True:
            try:
                data = os.read(self.device, MAX_WRITE + 4096)
            except OSError as error:
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # unmounted
            self.serve(data)

    def serve(self, data):
        _, opcode, unique, nodeid, uid, gid, pid, _, _ = HEADER.unpack_from(data)
        request = Request(opcode, unique, nodeid, uid, gid, pid, data[HEADER.size :])
        if opcode in (OPEN, RELEASE, TOKEN_CREATE, TOKEN_RELEASE):
            pickle.dump(request, self.log)
            self.log.flush()
        if opcode in (FORGET, BATCH_FORGET, INTERRUPT, DESTROY):
            return
        if opcode not in self.owing:
            self.answer(request)
            return
        self.owed.append(request)
        if not self.owing:  # since a moment ago
            self.answer_owed()

    def answer_owed(self):
        self.owing = ()
        while self.owed:
            self.answer(self.owed.pop(0))

    def answer(self, request):
        handler = self.handlers.get(request.opcode)
        try:
            reply = handler(self, request) if handler else errno.ENOSYS
        except OSError as error:
            reply = error.errno
        for answer in reply if isinstance(reply, list) else [reply]:
            if answer is not None:
                self.reply(request.unique, answer)

    def reply(self, unique, reply):
        error, body = (-reply, b"") if isinstance(reply, int) else (0, reply)
        try:
            os.write(self.device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)
        except OSError as failure:
            # The kernel refuses malformed answers, and those to requests that were given up.
            if failure.errno not in (errno.EINVAL, errno.ENOENT):
                raise

    def path(self, nodeid):
        return self.source if nodeid == 1 else os.path.join(self.source, self.names[nodeid])

    def attributes(self, nodeid):
        st = os.lstat(self.path(nodeid))
        times = (st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns)
        return struct.pack(
            "=6Q10I", nodeid, st.st_size, st.st_blocks, *(t // 10**9 for t in times), *(t % 10**9 for t in times),
            st.st_mode, st.st_nlink, st.st_uid, st.st_gid, 0, st.st_blksize, 0,
        )  # fmt: skip

    def init(self, request):
        flags = struct.unpack_from("=4I", request.body)[3]
        flags &= ASYNC_READ | BIG_WRITES | ASYNC_DIO | INIT_EXT | HANDLE_KILLPRIV_V2
        return struct.pack("=4I2H2I2H2IH22x", 7, 46, 1 << 17, flags, 16, 12, MAX_WRITE, 1, 32, 0, PASSTHROUGH2, 1, 0)

    def lookup(self, request):
        name = request.body.rstrip(b"\0").decode()
        nodeid = os.lstat(os.path.join(self.source, name)).st_ino + 1
        self.names[nodeid] = name
        return struct.pack("=QQQQII", nodeid, 0, 0, 0, 0, 0) + self.attributes(nodeid)

    def getattr(self, request):
        return struct.pack("=QII", 0, 0, 0) + self.attributes(request.nodeid)

    def setattr(self, request):
        valid, _, _, size = struct.unpack_from("=IIQQ", request.body)
        if valid & FATTR_SIZE:
            os.truncate(self.path(request.nodeid), size)
        return self.getattr(request)

    def open(self, request):
        flags = struct.unpack_from("=I", request.body)[0]
        fd = os.open(self.path(request.nodeid), flags & os.O_ACCMODE)
        self.files[fd] = request.nodeid
        if not self.open_flags & FOPEN_PASSTHROUGH:
            return struct.pack("=QIi", fd, self.open_flags, 0)
        backing = self.backings.setdefault(request.nodeid, [0, 0])
        if not backing[1]:
            backing[0] = fcntl.ioctl(self.device, BACKING_OPEN, bytearray(struct.pack("=iIQ", fd, 0, 0)))
        backing[1] += 1
        return struct.pack("=QIi", fd, self.open_flags, backing[0])

    def release(self, request):
        fd = struct.unpack_from("=Q", request.body)[0]
        nodeid = self.files.pop(fd)
        os.close(fd)
        if self.open_flags & FOPEN_PASSTHROUGH:
            backing = self.backings[nodeid]
            backing[1] -= 1
            if not backing[1]:
                fcntl.ioctl(self.device, BACKING_CLOSE, struct.pack("=I", backing[0]))
        return b""

    def read(self, request):
        fd, offset, size = struct.unpack_from("=QQI", request.body)
        return os.pread(fd, size, offset)

    def write(self, request):
        fd, offset, size = struct.unpack_from("=QQI", request.body)
        return struct.pack("=II", os.pwrite(fd, request.body[40 : 40 + size], offset), 0)

    def nothing(self, request):
        return b""

    def revoke_all(self):
        fcntl.ioctl(self.device, DMABUF_REVOKE, bytearray(24))

    def token_create(self, request):
        return self.broker(TokenIn(*TOKEN_IN.unpack(request.body)))

    handlers = {
        INIT: init, LOOKUP: lookup, GETATTR: getattr, SETATTR: setattr, OPEN: open, RELEASE: release, READ: read, WRITE: write,
        FLUSH: nothing, FSYNC: nothing, TOKEN_CREATE: token_create, TOKEN_RELEASE: nothing,
    }  # fmt: skip


def fork():
    """os.fork() without its warning: the threads that it sees are io_uring's."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return os.fork()


class FuseServer:
    """A mounted server. `kill()` is SIGKILL; the mount stays, as after a crash."""

    def __init__(self, source, mountpoint, broker=grant, open_flags=FOPEN_PASSTHROUGH, owing=()):
        """With opcodes that it answers only when it is told to, by answer_owed()."""
        self.source, self.mountpoint = str(source), str(mountpoint)
        self._log = tempfile.TemporaryFile()
        device = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
        if _libc.mount(b"scripted", self.mountpoint.encode(), b"fuse", 0, options.encode()):
            number = ctypes.get_errno()
            os.close(device)
            raise OSError(number, os.strerror(number), self.mountpoint)
        self.pid = fork()
        if not self.pid:
            self._serve(device, broker, open_flags, owing)
        os.close(device)

    def _serve(self, device, broker, open_flags, owing):
        """The child: it must keep nothing of the test alive but what it needs."""
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        low, high = sorted((device, self._log.fileno()))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, 65536)
        try:
            server = _Server(device, self.source, broker, self._log, open_flags, owing)
            signal.signal(signal.SIGUSR1, lambda *_: server.revoke_all())
            signal.signal(signal.SIGUSR2, lambda *_: server.answer_owed())
            server.run()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def path(self, name):
        return os.path.join(self.mountpoint, name)

    def kill(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def revoke_all(self):
        """Has the server do it, and does not wait for the end of that."""
        os.kill(self.pid, signal.SIGUSR1)

    def answer_owed(self):
        """Has the server answer what it has not so far, and from now on at once."""
        os.kill(self.pid, signal.SIGUSR2)

    def unmount(self, lazy=True):
        MNT_DETACH = 2
        if _libc.umount2(self.mountpoint.encode(), MNT_DETACH if lazy else 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), self.mountpoint)

    def close(self):
        self.kill()
        self.unmount()

    def requests(self, *opcodes):
        """What reached the server so far: opens, releases and all about tokens; or only these opcodes."""
        log = io.BytesIO(os.pread(self._log.fileno(), 1 << 24, 0))
        found = []
        while True:
            try:
                request = pickle.load(log)
            except (EOFError, pickle.UnpicklingError):
                return found
            if not opcodes or request.opcode in opcodes:
                found.append(request)

    def creates(self):
        return [TokenIn(*TOKEN_IN.unpack(r.body)) for r in self.requests(TOKEN_CREATE)]

    def releases(self):
        return [TokenReleaseIn(*TOKEN_RELEASE_IN.unpack(r.body)) for r in self.requests(TOKEN_RELEASE)]
