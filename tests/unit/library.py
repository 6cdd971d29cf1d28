"""libfuse-dmabuf by ctypes, as in include/fuse-dmabuf.h. A failing call raises OSError with the library's own line."""
import ctypes
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from enum import IntEnum


class Path(IntEnum):
    AUTO, DIRECT, BOUNCE = range(3)


class Reason(IntEnum):
    NONE, ASKED, NO_RING, NO_DMABUF, NOT_DIRECT, KERNEL, UNSUPPORTED, REFUSED, REVOKED, FAILED = range(10)


WHOLE_BLOCKS = 1


class Options(ctypes.Structure):
    _fields_ = [('path', c_int), ('depth', c_uint32), ('chunk', c_uint32), ('mount_wait', c_uint32), ('reserved', c_uint32 * 4)]


class Counters(ctypes.Structure):
    _fields_ = [(name, c_uint64) for name in ('bytes_direct', 'bytes_copied', 'bytes_zeroed', 'requests', 'retries', 'tokens', 'reopens')]


PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)

SIGNATURES = {
    'error': (c_char_p,),
    'file_open': (c_int, c_char_p, POINTER(c_void_p)),
    'file_close': (None, c_void_p),
    'file_size': (c_uint64, c_void_p),
    'file_is_direct': (c_bool, c_void_p),
    'file_block_size': (c_uint32, c_void_p),
    'file_pread': (c_int64, c_void_p, c_void_p, c_size_t, c_uint64),
    'buffer_allocate': (c_int, c_char_p, c_uint64, POINTER(c_void_p)),
    'buffer_import': (c_int, c_int, POINTER(c_void_p)),
    'buffer_free': (None, c_void_p),
    'buffer_size': (c_uint64, c_void_p),
    'buffer_fd': (c_int, c_void_p),
    'buffer_device_address': (c_uint64, c_void_p),
    'buffer_exporter': (c_char_p, c_void_p),
    'buffer_write': (c_int, c_void_p, c_uint64, c_void_p, c_size_t),
    'buffer_read': (c_int, c_void_p, c_uint64, c_void_p, c_size_t),
    'buffer_zero': (c_int, c_void_p, c_uint64, c_uint64),
    'channel_open': (c_int, c_void_p, c_void_p, POINTER(Options), POINTER(c_void_p)),
    'channel_close': (None, c_void_p),
    'channel_path': (c_int, c_void_p),
    'channel_reason': (c_int, c_void_p),
    'channel_reason_text': (c_char_p, c_void_p),
    'channel_read': (c_int64, c_void_p, c_uint64, c_uint64, c_uint64, c_uint),
    'channel_on_progress': (None, c_void_p, PROGRESS, c_void_p),
    'channel_is_waiting': (c_bool, c_void_p),
    'channel_counters': (None, c_void_p, POINTER(Counters)),
}


class Library:
    """Calls of the library by their names without the prefix."""

    def __init__(self, path='libfuse-dmabuf.so.0'):
        library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in SIGNATURES.items():
            function = getattr(library, f'fdmabuf_{name}')
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def check(self, result):
        if result < 0:
            raise OSError(-result, self.error().decode())
        return result

    def file(self, path):
        return File(self, path)

    def allocate(self, what, size=0):
        return Buffer(self, lambda handle: self.buffer_allocate(what.encode(), size, handle))

    def import_dmabuf(self, fd):
        return Buffer(self, lambda handle: self.buffer_import(fd, handle))

    def channel(self, file, buffer, path=Path.AUTO, depth=0, chunk=0, mount_wait=0):
        return Channel(self, file, buffer, Options(path, depth, chunk, mount_wait))


class Handle:
    """One object of the library; closed by the with statement."""

    def __init__(self, library, make, close):
        self.library, self.handle, self._close = library, c_void_p(), close
        library.check(make(byref(self.handle)))

    def close(self):
        self._close(self.handle)
        self.handle = c_void_p()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class File(Handle):
    def __init__(self, library, path):
        super().__init__(library, lambda handle: library.file_open(bytes(path), handle), library.file_close)

    size = property(lambda self: self.library.file_size(self.handle))
    is_direct = property(lambda self: self.library.file_is_direct(self.handle))
    block_size = property(lambda self: self.library.file_block_size(self.handle))

    def pread(self, length, offset):
        data = ctypes.create_string_buffer(max(length, 1))
        got = self.library.check(self.library.file_pread(self.handle, data, length, offset))
        return data.raw[:got]


class Buffer(Handle):
    def __init__(self, library, make):
        super().__init__(library, make, library.buffer_free)

    size = property(lambda self: self.library.buffer_size(self.handle))
    fd = property(lambda self: self.library.buffer_fd(self.handle))
    device_address = property(lambda self: self.library.buffer_device_address(self.handle))
    exporter = property(lambda self: self.library.buffer_exporter(self.handle).decode())

    def write(self, offset, data):
        self.library.check(self.library.buffer_write(self.handle, offset, data, len(data)))

    def read(self, offset, length):
        data = ctypes.create_string_buffer(max(length, 1))
        self.library.check(self.library.buffer_read(self.handle, offset, data, length))
        return data.raw[:length]

    def zero(self, offset, length):
        self.library.check(self.library.buffer_zero(self.handle, offset, length))

    def fill(self, byte=0xee):
        for offset in range(0, self.size, 1 << 20):
            self.write(offset, bytes([byte]) * min(1 << 20, self.size - offset))


class Channel(Handle):
    def __init__(self, library, file, buffer, options):
        super().__init__(library, lambda handle: library.channel_open(file.handle, buffer.handle, byref(options), handle),
                         library.channel_close)

    path = property(lambda self: Path(self.library.channel_path(self.handle)))
    reason = property(lambda self: Reason(self.library.channel_reason(self.handle)))
    reason_text = property(lambda self: self.library.channel_reason_text(self.handle).decode())

    is_waiting = property(lambda self: self.library.channel_is_waiting(self.handle))

    def read(self, file_offset, buffer_offset, length, flags=0):
        return self.library.check(self.library.channel_read(self.handle, file_offset, buffer_offset, length, flags))

    def on_progress(self, function):
        self._progress = PROGRESS(lambda _, done, total: function(done, total))   # must outlive the reads
        self.library.channel_on_progress(self.handle, self._progress, None)

    @property
    def counters(self):
        counters = Counters()
        self.library.channel_counters(self.handle, byref(counters))
        return counters
