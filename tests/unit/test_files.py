"""The tests of files, names and attributes on the machine's own kernel: on plain ext4 and on a mount of it, with the same expectations.

They run in the virtual machine, too, with the kernel that this project has changed.
"""
import inspect
import re
import shutil

import pytest

import test_mount_files
from ext4 import new_ext4, served
from test_mount_files import users_file  # noqa: F401  (fixture)

globals().update({name: test for name, test in vars(test_mount_files).items()
                  if name.startswith('test_') and 'place' in inspect.signature(test).parameters})


@pytest.fixture(scope='session')
def ext4(tmp_path_factory):
    """A new ext4 in a file."""
    with new_ext4(tmp_path_factory, 256 << 20, reserved=(256 << 20) // 4096 // 20) as directory:
        yield directory


@pytest.fixture(scope='session')
def on_mount(ext4, program, tmp_path_factory):
    """The same directory on the server's mount, where programs run as on ext4."""
    with served(ext4, program, tmp_path_factory, options='suid') as target:
        yield target


@pytest.fixture(params=['ext4', 'mount'])
def place(request, ext4):
    """An empty directory; a test cannot tell where."""
    root = ext4 if request.param == 'ext4' else request.getfixturevalue('on_mount')
    name = re.sub(r'\W+', '-', request.node.name)
    (root / name).mkdir()
    (root / name).chmod(0o777)
    yield root / name
    shutil.rmtree(root / name)
