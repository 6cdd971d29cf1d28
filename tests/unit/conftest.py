"""Fixtures of the tests that need no special kernel. MESON_BUILD names the build directory (tests/run.sh sets it)."""
import os
from pathlib import Path

import pytest

import checkpoints
from library import Library


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
    return Library(build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.0')


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
