"""libfuse-dmabuf by ctypes, as in include/fuse-dmabuf.h. A failing call raises OSError with the library's own line."""
import ctypes
import os
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_int64, c_size_t, c_uint, c_uint32, c_uint64, c_void_p
from enum import IntEnum


class Path(IntEnum):
    AUTO, DIRECT, BOUNCE, DIRECT_IO = range(4)


class Reason(IntEnum):
    (NONE, ASKED, NO_RING, NO_DMABUF, NOT_DIRECT, KERNEL, UNSUPPORTED, REFUSED, REVOKED, FAILED, UNALIGNED,
     PARTIAL_BLOCK, UNPROVEN) = range(13)


class Proof(IntEnum):
    ONCE, ALWAYS, NEVER = range(3)


class Proven(IntEnum):
    NOT_DIRECT, PROVEN, UNPROVABLE, NOT_PROVEN, DISPROVED = range(5)


class State(IntEnum):
    RUNNING, WAITING, CANCELLING, FINISHED = range(4)


class Exporter(IntEnum):
    MEMORY, UDMABUF, HEAP, DRM, VFIO, CUDA, HIP, IMPORT = range(8)


READ, WRITE = range(2)
COPY_THREADS_NONE = 0xffffffff
WHOLE_BLOCKS, SYNC = 1, 2


class Sized(ctypes.Structure):
    """A struct that begins with its size."""

    def __init__(self, **members):
        super().__init__(ctypes.sizeof(self), **members)


class Memory(Sized):
    _fields_ = [('size', c_size_t), ('exporter', c_int), ('number', c_uint32), ('bytes', c_uint64), ('device', c_char_p), ('page_size', c_uint64)]


class ExporterInfo(Sized):
    _fields_ = [('size', c_size_t), ('exporter', c_int), ('name', c_char_p), ('what', c_char_p), ('device', c_char_p), ('bytes', c_uint64),
                ('has_dmabuf', c_bool), ('error', c_int), ('text', c_char_p)]


EXPORTER = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(ExporterInfo))


class Options(Sized):
    _fields_ = [('size', c_size_t), ('path', c_int), ('depth', c_uint32), ('chunk', c_uint32), ('mount_wait', c_uint32), ('tokens', c_uint32),
                ('proof', c_int), ('copy_threads', c_uint32)]


class Range(ctypes.Structure):
    _fields_ = [('file', c_void_p), ('file_offset', c_uint64), ('buffer', c_void_p), ('buffer_offset', c_uint64), ('length', c_uint64)]


class Progress(Sized):
    _fields_ = [('size', c_size_t), ('transfer', c_void_p), ('state', c_int), ('in_flight', c_uint32), ('done', c_uint64), ('total', c_uint64)]


PROGRESS = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(Progress))


class Operation(Sized):
    _fields_ = [('size', c_size_t), ('direction', c_int), ('flags', c_uint), ('ranges', POINTER(Range)), ('count', c_size_t),
                ('progress', PROGRESS), ('data', c_void_p)]


class Result(Sized):
    _fields_ = [('size', c_size_t), ('done', c_uint64), ('error', c_int), ('path', c_int), ('reason', c_int), ('text', ctypes.c_char * 256),
                ('proven', c_int)]


class Counters(Sized):
    _fields_ = [('size', c_size_t)] + [(name, c_uint64) for name in (
        'bytes_direct', 'bytes_copied', 'bytes_zeroed', 'requests', 'retries', 'tokens', 'tokens_kept', 'reopens', 'bytes_direct_io', 'bytes_cached',
        'bytes_proven')]


SIGNATURES = {
    'error': (c_char_p,),
    'file_open': (c_int, c_char_p, c_int, c_uint, POINTER(c_void_p)),
    'file_close': (None, c_void_p),
    'file_size': (c_uint64, c_void_p),
    'file_is_direct': (c_bool, c_void_p),
    'file_block_size': (c_uint32, c_void_p),
    'file_pread': (c_int64, c_void_p, c_void_p, c_size_t, c_uint64),
    'buffer_allocate': (c_int, c_char_p, c_uint64, POINTER(c_void_p)),
    'buffer_create': (c_int, POINTER(Memory), POINTER(c_void_p)),
    'buffer_import': (c_int, c_int, POINTER(c_void_p)),
    'buffer_import_address': (c_int, c_int, c_uint64, c_uint64, POINTER(c_void_p)),
    'exporters': (c_int, EXPORTER, c_void_p),
    'buffer_free': (None, c_void_p),
    'buffer_size': (c_uint64, c_void_p),
    'buffer_fd': (c_int, c_void_p),
    'buffer_device_address': (c_uint64, c_void_p),
    'buffer_exporter': (c_char_p, c_void_p),
    'buffer_write': (c_int, c_void_p, c_uint64, c_void_p, c_size_t),
    'buffer_read': (c_int, c_void_p, c_uint64, c_void_p, c_size_t),
    'buffer_zero': (c_int, c_void_p, c_uint64, c_uint64),
    'version': (c_char_p,),
    'file_ref': (c_void_p, c_void_p),
    'file_resize': (c_int, c_void_p, c_uint64),
    'file_pwrite': (c_int64, c_void_p, c_void_p, c_size_t, c_uint64),
    'file_sync': (c_int, c_void_p),
    'buffer_ref': (c_void_p, c_void_p),
    'queue_open': (c_int, POINTER(Options), POINTER(c_void_p)),
    'queue_close': (None, c_void_p),
    'queue_fd': (c_int, c_void_p),
    'queue_poll': (c_int, c_void_p),
    'queue_wait': (c_int, c_void_p, c_int),
    'queue_next': (c_void_p, c_void_p),
    'queue_check': (c_int, c_void_p, c_int, POINTER(Range), c_uint, POINTER(Result)),
    'queue_counters': (c_int, c_void_p, POINTER(Counters)),
    'submit': (c_int, c_void_p, POINTER(Operation), POINTER(c_void_p)),
    'run': (c_int64, c_void_p, POINTER(Operation)),
    'read': (c_int64, c_void_p, POINTER(Range), c_size_t, c_uint),
    'write': (c_int64, c_void_p, POINTER(Range), c_size_t, c_uint),
    'transfer_wait': (c_int, c_void_p, c_int),
    'transfer_cancel': (c_int, c_void_p, c_int),
    'transfer_state': (c_int, c_void_p),
    'transfer_bytes': (c_int64, c_void_p),
    'transfer_error': (c_char_p, c_void_p),
    'transfer_result': (c_int, c_void_p, c_size_t, POINTER(Result)),
    'transfer_data': (c_void_p, c_void_p),
    'transfer_free': (None, c_void_p),
}


class Library:
    """Calls of the library by their names without the prefix."""

    def __init__(self, path='libfuse-dmabuf.so.1'):
        library = ctypes.CDLL(str(path))
        for name, (result, *arguments) in SIGNATURES.items():
            function = getattr(library, f'fdmabuf_{name}')
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def check(self, result):
        if result < 0:
            raise OSError(-result, self.error().decode())
        return result

    def file(self, path, flags=os.O_RDONLY, mode=0o644):
        return File(self, path, flags, mode)

    def allocate(self, what, size=0):
        return Buffer(self, lambda handle: self.buffer_allocate(what.encode(), size, handle))

    def import_dmabuf(self, fd):
        return Buffer(self, lambda handle: self.buffer_import(fd, handle))

    def create(self, exporter, size=0, **members):
        memory = Memory(exporter=exporter, bytes=size, **members)
        return Buffer(self, lambda handle: self.buffer_create(byref(memory), handle))

    def import_address(self, exporter, address, size):
        return Buffer(self, lambda handle: self.buffer_import_address(exporter, address, size, handle))

    def list_exporters(self):
        """What fdmabuf_exporters() tells: a list of dictionaries."""
        found = []

        def tell(_, info):
            members = {name: getattr(info.contents, name) for name, _type in ExporterInfo._fields_}
            found.append({name: value.decode() if isinstance(value, bytes) else value for name, value in members.items()})
            return 0
        self.check(self.exporters(EXPORTER(tell), None))
        return found

    def queue(self, path=Path.AUTO, **options):
        return Queue(self, Options(path=path, **options))

    def channel(self, file, buffer, path=Path.AUTO, **options):
        return Channel(self, file, buffer, Options(path=path, **options))


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
    def __init__(self, library, path, flags=os.O_RDONLY, mode=0o644):
        super().__init__(library, lambda handle: library.file_open(bytes(path), flags, mode, handle), library.file_close)

    size = property(lambda self: self.library.file_size(self.handle))
    is_direct = property(lambda self: self.library.file_is_direct(self.handle))
    block_size = property(lambda self: self.library.file_block_size(self.handle))

    def pread(self, length, offset):
        data = ctypes.create_string_buffer(max(length, 1))
        got = self.library.check(self.library.file_pread(self.handle, data, length, offset))
        return data.raw[:got]

    def pwrite(self, data, offset):
        return self.library.check(self.library.file_pwrite(self.handle, data, len(data), offset))

    def resize(self, size):
        self.library.check(self.library.file_resize(self.handle, size))

    def sync(self):
        self.library.check(self.library.file_sync(self.handle))


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


def ranges_of(parts):
    """An array of Range from (file, file offset, buffer, buffer offset, length)."""
    return (Range * len(parts))(*(Range(file.handle, at, buffer.handle, to, length) for file, at, buffer, to, length in parts))


class Queue(Handle):
    def __init__(self, library, options):
        super().__init__(library, lambda handle: library.queue_open(byref(options), handle), library.queue_close)

    fd = property(lambda self: self.library.check(self.library.queue_fd(self.handle)))

    def read(self, parts, flags=0):
        return self.library.check(self.library.read(self.handle, ranges_of(parts), len(parts), flags))

    def write(self, parts, flags=0):
        return self.library.check(self.library.write(self.handle, ranges_of(parts), len(parts), flags))

    def submit(self, direction, parts, flags=0, progress=None):
        return Transfer(self, direction, parts, flags, progress)

    def poll(self):
        return self.library.check(self.library.queue_poll(self.handle))

    def wait(self, timeout=-1):
        return self.library.check(self.library.queue_wait(self.handle, timeout))

    def next(self):
        """The address of a transfer that has finished, or None."""
        return self.library.queue_next(self.handle)

    def check(self, part, direction=READ, flags=0):
        result = Result()
        self.library.check(self.library.queue_check(self.handle, direction, ranges_of([part]), flags, byref(result)))
        return result

    @property
    def counters(self):
        counters = Counters()
        self.library.check(self.library.queue_counters(self.handle, byref(counters)))
        return counters


class Transfer(Handle):
    """progress, if given, is called with a Progress and returns what cancels: anything true."""

    def __init__(self, queue, direction, parts, flags, progress):
        self._progress = PROGRESS(lambda _, told: bool(progress(told.contents))) if progress else PROGRESS()
        self._ranges = ranges_of(parts)
        operation = Operation(direction=direction, flags=flags, ranges=self._ranges, count=len(parts), progress=self._progress)
        super().__init__(queue.library, lambda handle: queue.library.submit(queue.handle, byref(operation), handle), queue.library.transfer_free)

    state = property(lambda self: State(self.library.transfer_state(self.handle)))
    error = property(lambda self: self.library.transfer_error(self.handle).decode())
    bytes = property(lambda self: self.library.check(self.library.transfer_bytes(self.handle)))

    def wait(self, timeout=-1):
        self.library.check(self.library.transfer_wait(self.handle, timeout))

    def cancel(self, timeout=-1):
        self.library.check(self.library.transfer_cancel(self.handle, timeout))

    def result(self, index=0):
        result = Result()
        self.library.check(self.library.transfer_result(self.handle, index, byref(result)))
        return result


class Channel(Queue):
    """A queue that reads one file into one buffer, for tests of just that: path and reason are those of its first block."""

    def __init__(self, library, file, buffer, options):
        super().__init__(library, options)
        self.pair, self._tells, self.is_waiting = (file, buffer), None, False
        try:
            self.first_block()
        except OSError:
            self.close()
            raise

    def first_block(self):
        file, buffer = self.pair
        return self.check((file, 0, buffer, 0, min(file.block_size, buffer.size)), flags=WHOLE_BLOCKS)

    path = property(lambda self: Path(self.first_block().path))
    reason = property(lambda self: Reason(self.first_block().reason))
    reason_text = property(lambda self: self.first_block().text.decode())

    def _progress(self, told):
        self.is_waiting = told.state == State.WAITING
        return self._tells(told.done, told.total) if self._tells else 0

    def read(self, file_offset, buffer_offset, length, flags=0):
        file, buffer = self.pair
        with self.submit(READ, [(file, file_offset, buffer, buffer_offset, length)], flags, self._progress) as transfer:
            transfer.wait()
            return transfer.bytes

    def on_progress(self, function):
        self._tells = function
