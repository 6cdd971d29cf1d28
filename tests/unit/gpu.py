"""CUDA and HIP as other libraries of a program use them, by ctypes: without a GPU simulated-cuda.c and simulated-hip.c."""
import ctypes
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p

from library import Exporter

LIST = 'import json, sys; from library import Library; print(json.dumps(Library(sys.argv[1]).list_exporters()))'

REAL = os.environ.get('FUSE_DMABUF_CUDA') == 'real'


def listed_by(library, name):
    return [found for found in library.list_exporters() if found['name'] == name]


def listed_by_a_program(build, name):
    """The same by a program, which loads the libraries of the environment."""
    command = [sys.executable, '-c', LIST, build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.1']
    return [found for found in json.loads(subprocess.check_output(command, cwd=os.path.dirname(__file__))) if found['name'] == name]


class Runtime:
    """words(text) tells the simulated library how to behave; functions of the real one are attributes."""

    def __init__(self, directory, monkeypatch):
        self._setenv = monkeypatch.setenv
        monkeypatch.delenv(self.variable, raising=False)
        path = self.file if self.is_real else str(directory / self.file)
        if not self.is_real:
            monkeypatch.setenv('LD_LIBRARY_PATH', str(directory))
        self.functions = ctypes.CDLL(path)

    def words(self, words):
        self._setenv(self.variable, words)

    def call(self, name, *arguments):
        result = getattr(self.functions, name)(*arguments)
        assert result == 0, (name, result)

    @contextmanager
    def memory(self, size):
        """An allocation that the library does not own: its address. It is still there at the end."""
        with self.current():
            address = self.allocate(size)
        yield address
        with self.current():
            self.free(address)


class Cuda(Runtime):
    name, exporter, variable, file, is_real = 'cuda', Exporter.CUDA, 'SIMULATED_CUDA', 'libcuda.so.1', REAL

    @contextmanager
    def current(self, device=0):
        context = c_void_p()
        self.call('cuInit', 0)
        self.call('cuDevicePrimaryCtxRetain', byref(context), device)
        self.call('cuCtxPushCurrent_v2', context)
        yield
        self.call('cuCtxPopCurrent_v2', byref(context))
        self.call('cuDevicePrimaryCtxRelease_v2', device)

    def allocate(self, size):
        address = c_uint64()
        self.call('cuMemAlloc_v2', byref(address), c_size_t(size))
        return address.value

    def free(self, address):
        self.call('cuMemFree_v2', c_uint64(address))

    @contextmanager
    def pinned(self, memory, size):
        with self.current():
            self.call('cuMemHostRegister_v2', memory, c_size_t(size), 1)
        yield
        with self.current():
            self.call('cuMemHostUnregister', memory)


class Hip(Runtime):
    name, exporter, variable, file, is_real = 'hip', Exporter.HIP, 'SIMULATED_HIP', 'libamdhip64.so.6', False

    @contextmanager
    def current(self, device=0):
        self.call('hipInit', 0)
        self.call('hipSetDevice', device)
        yield
        self.call('hipSetDevice', 0)

    def allocate(self, size):
        address = c_void_p()
        self.call('hipMalloc', byref(address), c_size_t(size))
        return address.value

    def free(self, address):
        self.call('hipFree', c_void_p(address))

    @contextmanager
    def pinned(self, memory, size):
        self.call('hipHostRegister', memory, c_size_t(size), 1)
        yield
        self.call('hipHostUnregister', memory)

    def current_device(self):
        device = c_int()
        self.call('hipGetDevice', byref(device))
        return device.value
