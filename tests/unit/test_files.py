"""The tests of files, names and attributes on the machine's own kernel: on plain ext4 and on a mount of it, with the same expectations.

They run in the virtual machine, too, with the kernel that this project has changed.
"""
import inspect
import re
import shutil
import subprocess

import pytest

import test_mount_files
from server import Server
from test_mount_files import users_file  # noqa: F401  (fixture)

globals().update({name: test for name, test in vars(test_mount_files).items()
                  if name.startswith('test_') and 'place' in inspect.signature(test).parameters})


@pytest.fixture(scope='session')
def ext4(tmp_path_factory):
    """A new ext4 in a file."""
    image, directory = tmp_path_factory.mktemp('image') / 'ext4', tmp_path_factory.mktemp('ext4')
    image.touch()
    subprocess.run(['truncate', '-s', '256M', image], check=True)
    subprocess.run(['mkfs.ext4', '-q', '-b', '4096', image], check=True)
    mounted = subprocess.run(['mount', '-o', 'loop', image, directory], text=True, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f'no ext4 can be mounted from a file here: {mounted.stderr}')
    for path in (directory, *list(directory.parents)[:-2]):
        path.chmod(0o755)   # users go there
    yield directory
    subprocess.run(['umount', directory], check=True)


@pytest.fixture(scope='session')
def on_mount(ext4, program, tmp_path_factory):
    """The same directory on the server's mount."""
    target = tmp_path_factory.mktemp('target')
    target.chmod(0o755)
    server = Server(program, ext4, target, target.with_suffix('.log'), 'log=info', None)
    assert server.process.poll() is None, server.said()
    yield target
    server.end()


@pytest.fixture(params=['ext4', 'mount'])
def place(request, ext4):
    """An empty directory; a test cannot tell where."""
    root = ext4 if request.param == 'ext4' else request.getfixturevalue('on_mount')
    name = re.sub(r'\W+', '-', request.node.name)
    (root / name).mkdir()
    (root / name).chmod(0o777)
    yield root / name
    shutil.rmtree(root / name)
