"""An ext4 of one's own, and the server's mount of it."""
import contextlib
import os
import subprocess

import pytest

from server import Server


@contextlib.contextmanager
def new_ext4(tmp_path_factory, size, reserved):
    """The directory of one in a file of so many bytes, with so many blocks for root only."""
    image, directory = tmp_path_factory.mktemp('image') / 'ext4', tmp_path_factory.mktemp('ext4')
    image.touch()
    os.truncate(image, size)
    subprocess.run(['mkfs.ext4', '-q', '-b', '4096', image], check=True)
    subprocess.run(['tune2fs', '-r', f'{reserved}', image], check=True, capture_output=True)
    mounted = subprocess.run(['mount', '-o', 'loop', image, directory], text=True, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f'no ext4 can be mounted from a file here: {mounted.stderr}')
    for path in (directory, *list(directory.parents)[:-2]):
        path.chmod(0o755)   # users go there
    yield directory
    subprocess.run(['umount', directory], check=True)


@contextlib.contextmanager
def served(directory, program, tmp_path_factory, options='log=info', **how):
    """The server's mount of it; what else Server takes."""
    target = tmp_path_factory.mktemp('target')
    target.chmod(0o755)
    server = Server(program, directory, target, target.with_suffix('.log'), options, None, **how)
    assert server.process.poll() is None, server.said()
    yield target
    server.end()


# For modules with an `ext4`: the directory that new_ext4() has made.


@pytest.fixture(scope='module')
def on_mount(ext4, program, tmp_path_factory):
    with served(ext4, program, tmp_path_factory) as target:
        yield target


@pytest.fixture(scope='module')
def on_mount_without_passthrough(ext4, program, build, tmp_path_factory):
    """The kernel takes no backing file: data goes through the server."""
    with served(ext4, program, tmp_path_factory, preload=build / 'tests/unit/no-passthrough.so') as target:
        yield target
        assert 'no passthrough for some or all files' in target.with_suffix('.log').read_text()
