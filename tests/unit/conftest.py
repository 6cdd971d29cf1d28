"""Fixtures of the tests that need no special kernel. MESON_BUILD names the build directory (tests/run.sh sets it)."""
import os
import sys
from pathlib import Path

import pytest

import checkpoints
from library import Library
from server import Pretender, Server

# What the tests in the virtual machine share is used here too.
sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ('vm', 'bed')]


@pytest.fixture(scope='session')
def build():
    if 'MESON_BUILD' not in os.environ:
        pytest.exit('MESON_BUILD is not set: run tests/run.sh --no-vm, or point it to a meson build directory', 2)
    return Path(os.environ['MESON_BUILD'])


@pytest.fixture(scope='session')
def command(build):
    return build / 'src/fuse-dmabuf/fuse-dmabuf'


@pytest.fixture(scope='session')
def library(build):
    return Library(build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.1')


@pytest.fixture
def load(command):
    """Runs the command: load(file, into, option, …) gives .code, .summary, .output, .error, .peak."""
    return lambda file, into='memory', *options: checkpoints.load(command, file, into, *options)


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a file from its header and data: checkpoint({'a': tensor('U8', [1], 0, 1)}, b'x')."""
    def write(header, data=b'', **options):
        path = tmp_path / 'model.safetensors'
        path.write_bytes(checkpoints.encode(header, data, **options))
        return path
    return write


@pytest.fixture(scope='session')
def program(build, tmp_path_factory):
    """The server, if a mount of it is possible."""
    path = build / 'src/mount.fuse-dmabuf/mount.fuse-dmabuf'
    if not os.path.exists('/dev/fuse'):
        pytest.skip('/dev/fuse is missing: the server was not tested on this kernel')
    directory = tmp_path_factory.mktemp('trial')
    server = Server(path, directory, directory, directory.with_suffix('.log'), 'log=info', None)
    if server.process.poll() is not None:
        pytest.skip(f'no FUSE mount is possible here, the server was not tested on this kernel: {server.said()}')
    server.end()
    return path


@pytest.fixture
def serve(program, tmp_path, request):
    """serve(options) mounts an empty directory: the server."""
    def start(options='log=info', **how):
        for name in ('source', 'target'):
            (tmp_path / name).mkdir()
        server = Server(program, tmp_path / 'source', tmp_path / 'target', tmp_path / 'log', options, **how)
        request.addfinalizer(server.end)
        assert server.process.poll() is None, server.said()
        return server
    return start


@pytest.fixture
def pretend(request):
    """pretend(number, answer) listens in the place of a server: a Pretender."""
    def begin(number, answer):
        pretender = Pretender(number, answer)
        request.addfinalizer(pretender.end)
        return pretender
    return begin
