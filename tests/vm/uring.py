"""io_uring for tests: a thin layer over liburing-ffi, and the registration of dma-bufs with it.

The synchronous calls (`read_fixed`, `write_fixed`, `nop`...) return what the kernel returned, or raise the OSError it
meant. The asynchronous ones are `prepare` and `submit`, then `wait`.
"""

import ctypes
import errno
import os
import time
from ctypes import POINTER, byref, c_char, c_int, c_int32, c_uint, c_uint16, c_uint32, c_uint64, c_uint8, sizeof
from typing import NamedTuple

# Setup flags
IOPOLL = 1 << 0
SQPOLL = 1 << 1
SQE128 = 1 << 10
SINGLE_ISSUER = 1 << 12
DEFER_TASKRUN = 1 << 13
HYBRID_IOPOLL = 1 << 17

# Opcodes
NOP = 0
FSYNC = 3
READ_FIXED = 4
WRITE_FIXED = 5
ASYNC_CANCEL = 14
LINK_TIMEOUT = 15
READ = 22
URING_CMD = 46
SEND_ZC = 47
READV_FIXED = 60
WRITEV_FIXED = 61

# Flags of a request
IOSQE_FIXED_FILE = 1 << 0
IOSQE_IO_DRAIN = 1 << 1
IOSQE_IO_LINK = 1 << 2
IOSQE_ASYNC = 1 << 4

CANCEL_ALL, CANCEL_FD, CANCEL_ANY = 1 << 0, 1 << 1, 1 << 2  # sqe->cancel_flags of ASYNC_CANCEL
RECVSEND_FIXED_BUF = 1 << 2  # sqe->ioprio of SEND_ZC
URING_CMD_FIXED = 1 << 0  # sqe->uring_cmd_flags

# The registration of dma-bufs
REGISTER_BUFFERS_UPDATE = 16
UPDATE_EXTENDED = 1 << 1
EMPTY, UADDR, DMABUF = 0, 1, 2

# A request that takes longer hangs: nothing here moves more than a few MiB.
TIMEOUT = 60


class Sqe(ctypes.Structure):
    _fields_ = [
        ("opcode", c_uint8), ("flags", c_uint8), ("ioprio", c_uint16), ("fd", c_int32), ("off", c_uint64),
        ("addr", c_uint64), ("len", c_uint32), ("op_flags", c_uint32), ("user_data", c_uint64),
        ("buf_index", c_uint16), ("personality", c_uint16), ("splice_fd_in", c_int32), ("addr3", c_uint64),
        ("pad", c_uint64),
    ]  # fmt: skip


class Cqe(ctypes.Structure):
    _fields_ = [("user_data", c_uint64), ("res", c_int32), ("flags", c_uint32)]


class Timespec(ctypes.Structure):
    _fields_ = [("sec", ctypes.c_int64), ("nsec", ctypes.c_longlong)]


class SyncCancel(ctypes.Structure):
    """struct io_uring_sync_cancel_reg"""

    _fields_ = [
        ("addr", c_uint64), ("fd", c_int32), ("flags", c_uint32), ("timeout", Timespec), ("opcode", c_uint8), ("pad", c_uint8 * 7),
        ("pad2", c_uint64 * 3),
    ]  # fmt: skip


class Iovec(ctypes.Structure):
    _fields_ = [("base", c_uint64), ("len", c_uint64)]


class BufferDescriptor(ctypes.Structure):
    """struct io_uring_regbuf_desc"""

    _fields_ = [
        ("type", c_uint32), ("flags", c_uint32), ("size", c_uint64), ("uaddr", c_uint64),
        ("dmabuf_fd", c_int32), ("target_fd", c_int32), ("resv", c_uint64 * 6),
    ]  # fmt: skip


class Update(ctypes.Structure):
    """struct io_uring_rsrc_update2, in its extended form"""

    _fields_ = [
        ("offset", c_uint32), ("flags", c_uint32), ("data", c_uint64), ("tags", c_uint64), ("nr", c_uint32),
        ("resv2", c_uint32),
    ]  # fmt: skip


class Completion(NamedTuple):
    user_data: int
    res: int


_libc = ctypes.CDLL(None, use_errno=True)
_ffi = ctypes.CDLL("liburing-ffi.so.2")
_ffi.io_uring_get_sqe.restype = POINTER(Sqe)
# struct io_uring has 216 bytes in liburing 2.9; only the library looks into it, all but ring_fd.
RING_BYTES, RING_FD_OFFSET, ENTER_RING_FD_OFFSET = 1024, 196, 204
PARAMS_BYTES, PARAMS_FLAGS_OFFSET = 120, 8  # struct io_uring_params


def check(result):
    """The result of a call of liburing or of a request, or the OSError that it means."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


class Ring:
    """One ring with an empty table of buffers. A forked child does not share it, unless it is `inherited`."""

    def __init__(self, entries=64, flags=SINGLE_ISSUER | DEFER_TASKRUN, slots=8, inherited=False):
        self._ring = (c_char * RING_BYTES)()
        self._params = (c_char * PARAMS_BYTES)()
        self.is_open = False
        self._next, self._vectors = 0, {}
        c_uint32.from_buffer(self._params, PARAMS_FLAGS_OFFSET).value = flags
        check(_ffi.io_uring_queue_init_params(c_uint(entries), self._ring, self._params))
        self.is_open = True
        if not inherited:
            check(_ffi.io_uring_ring_dontfork(self._ring))
        self.fd = c_int.from_buffer(self._ring, RING_FD_OFFSET).value
        if slots:
            self.register_sparse(slots)

    @classmethod
    def received(cls, fd, params):
        """A ring of another process, by a descriptor and the `params` of its Ring."""
        ring = cls.__new__(cls)
        ring._ring, ring._params = (c_char * RING_BYTES)(), (c_char * PARAMS_BYTES).from_buffer_copy(params)
        check(_ffi.io_uring_queue_mmap(c_int(fd), ring._params, ring._ring))
        for offset in (RING_FD_OFFSET, ENTER_RING_FD_OFFSET):
            c_int.from_buffer(ring._ring, offset).value = fd
        ring.fd, ring.is_open, ring._next, ring._vectors = fd, True, 1 << 32, {}
        return ring

    @property
    def params(self):
        return bytes(self._params)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        """Ends the ring, whatever is in flight."""
        if self.is_open:
            self.is_open = False
            _ffi.io_uring_queue_exit(self._ring)

    def run_deferred(self):
        """Lets the ring do what it put off until its task enters it: requests that a worker executed keep their buffer so long."""
        check(_ffi.io_uring_get_events(self._ring))

    # Registered buffers

    def register_sparse(self, slots):
        check(_ffi.io_uring_register_buffers_sparse(self._ring, c_uint(slots)))

    def register_memory(self, slot, address, size):
        """An ordinary registered buffer."""
        iovec, tag = Iovec(address, size), c_uint64(0)
        return check(_ffi.io_uring_register_buffers_update_tag(self._ring, c_uint(slot), byref(iovec), byref(tag), c_uint(1)))

    def update(self, slot, descriptors, **hostile):
        """IORING_REGISTER_BUFFERS_UPDATE with descriptors; keywords spoil the header."""
        array = (BufferDescriptor * len(descriptors))(*descriptors)
        header = Update(offset=slot, flags=UPDATE_EXTENDED, data=ctypes.addressof(array), nr=len(descriptors))
        size = hostile.pop("header_size", sizeof(header))
        for name, value in hostile.items():
            setattr(header, name, value)
        result = _libc.syscall(427, self.fd, REGISTER_BUFFERS_UPDATE, byref(header), c_uint(size))  # io_uring_register
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def register_dmabuf(self, slot, buffer, target, **hostile):
        """Registers a dma-buf for a file; keywords spoil the descriptor."""
        return self.update(slot, [dmabuf_descriptor(buffer, target, **hostile)])

    def unregister(self, slot):
        return self.update(slot, [BufferDescriptor(type=EMPTY)])

    def unregister_all(self):
        check(_ffi.io_uring_unregister_buffers(self._ring))

    def register_files(self, *files):
        check(_ffi.io_uring_register_files(self._ring, (c_int * len(files))(*map(_fd, files)), c_uint(len(files))))

    def clone_buffers_from(self, other):
        return check(_ffi.io_uring_clone_buffers(self._ring, other._ring))

    # Requests

    def prepare(self, opcode, fd=-1, addr=0, length=0, offset=0, slot=0, flags=0, **fields):
        """Queues a request without submitting it; returns its user_data, a running number."""
        sqe = _ffi.io_uring_get_sqe(self._ring)
        if not sqe:
            raise BlockingIOError(errno.EBUSY, "submission queue full")
        ctypes.memset(sqe, 0, sizeof(Sqe))
        sqe = sqe.contents
        sqe.opcode, sqe.flags, sqe.fd, sqe.off, sqe.addr, sqe.len, sqe.buf_index = opcode, flags, _fd(fd), offset, addr, length, slot
        for name, value in fields.items():
            setattr(sqe, name, value)
        self._next += 1
        sqe.user_data = self._next
        self._last = ctypes.addressof(sqe)
        return self._next

    def prepare_vector(self, opcode, fd, ranges, file_offset, slot=0, **more):
        """Queues READV_FIXED or WRITEV_FIXED of ranges [(buffer offset, length), ...]; returns its user_data."""
        vector = (Iovec * len(ranges))(*(Iovec(*place) for place in ranges))
        number = self.prepare(opcode, fd, ctypes.addressof(vector), len(ranges), file_offset, slot, **more)
        self._vectors[number] = vector  # a thread of the kernel may read it later
        return number

    def append(self, command):
        """The command of URING_CMD, on a ring with large requests: it follows the last one that was prepared."""
        ctypes.memmove(self._last + Sqe.addr3.offset, command, len(command))

    def submit(self):
        return check(_ffi.io_uring_submit(self._ring))

    def wait(self, timeout=TIMEOUT):
        """The next completion."""
        cqe = POINTER(Cqe)()
        limit = Timespec(int(timeout), int(timeout % 1 * 1e9))
        deadline = time.monotonic() + timeout
        result = -errno.EINTR
        # a polled ring says ETIME whenever it has looked in vain
        while result in (-errno.EINTR, -errno.ETIME):
            result = _ffi.io_uring_wait_cqe_timeout(self._ring, byref(cqe), byref(limit))
            if result == -errno.ETIME and time.monotonic() >= deadline:
                raise TimeoutError(f"no completion within {timeout} s")
        check(result)
        completion = Completion(cqe.contents.user_data, cqe.contents.res)
        _ffi.io_uring_cqe_seen(self._ring, cqe)
        self._vectors.pop(completion.user_data, None)
        return completion

    def ready(self):
        """How many completions wait to be taken."""
        return _ffi.io_uring_cq_ready(self._ring)

    def unsubmitted(self):
        """How many requests the kernel has not taken yet: with SQPOLL it takes them when it likes."""
        return _ffi.io_uring_sq_ready(self._ring)

    def wait_all(self, count, timeout=TIMEOUT):
        """{user_data: result} of so many requests."""
        return dict(self.wait(timeout) for _ in range(count))

    def run(self, opcode, fd=-1, addr=0, length=0, offset=0, slot=0, timeout=TIMEOUT, **fields):
        """One request from beginning to end."""
        return self.finish(self.prepare(opcode, fd, addr, length, offset, slot, **fields), timeout)

    def finish(self, number, timeout=TIMEOUT):
        """Submits what was prepared, and waits for that one request."""
        self.submit()
        completion = self.wait(timeout)
        assert completion.user_data == number, "a completion that nobody asked for"
        return check(completion.res)

    def cancel_all(self, fd):
        """Cancels all requests on a file, from outside of the ring: polled rings know no ASYNC_CANCEL."""
        request = SyncCancel(fd=_fd(fd), flags=CANCEL_ALL | CANCEL_FD, timeout=Timespec(TIMEOUT, 0))
        result = _ffi.io_uring_register_sync_cancel(self._ring, byref(request))
        if result != -errno.ENOENT:  # they were done before
            check(result)

    def nop(self):
        return self.run(NOP)

    def read_fixed(self, fd, buffer_offset, length, file_offset, slot=0, **more):
        return self.run(READ_FIXED, fd, buffer_offset, length, file_offset, slot, **more)

    def write_fixed(self, fd, buffer_offset, length, file_offset, slot=0, **more):
        return self.run(WRITE_FIXED, fd, buffer_offset, length, file_offset, slot, **more)

    def readv_fixed(self, fd, ranges, file_offset, slot=0, **more):
        return self.finish(self.prepare_vector(READV_FIXED, fd, ranges, file_offset, slot, **more))

    def writev_fixed(self, fd, ranges, file_offset, slot=0, **more):
        return self.finish(self.prepare_vector(WRITEV_FIXED, fd, ranges, file_offset, slot, **more))


def dmabuf_descriptor(buffer, target, **hostile):
    descriptor = BufferDescriptor(type=DMABUF, dmabuf_fd=_fd(buffer), target_fd=_fd(target))
    for name, value in hostile.items():
        if name == "resv":
            value = (c_uint64 * 6)(*value)
        setattr(descriptor, name, value)
    return descriptor


def _fd(thing):
    return thing if isinstance(thing, int) else thing.fileno()
