"""Files whose blocks on the device are not their content, or that direct I/O cannot reach: no token for them, and a token ends to work when
its file becomes one. The page cache never takes over."""

import fcntl
import os
import struct
from errno import EINVAL, EOPNOTSUPP

import pytest

from filesystems import ROOT
from token_fixtures import *  # noqa: F403
from token_words import DIRECT, JOURNAL_DATA, KIB, expect, expect_untouched, fails, make_file, opened, random_bytes, set_flag

READ_ONLY = os.O_RDONLY | os.O_DIRECT
A = random_bytes(64 * KIB, seed=1)

# The features are those of ext4; through the server they are seen by it alone.
pytestmark = pytest.mark.parametrize("place", ["ext4", "ext4-mount"], indirect=True, scope="module")


@pytest.fixture
def make(small):
    """make(name, content): the path of a new file, for the application."""
    made = []

    def make(name, content=A):
        make_file(small.backing / name, content)
        made.append(small.backing / name)
        return small.path / name

    yield make
    for path in made:
        path.unlink()


# Ioctls of files


def enable_verity(path):
    FS_IOC_ENABLE_VERITY, SHA256 = 0x40806685, 1
    with opened(path, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, FS_IOC_ENABLE_VERITY, struct.pack("=III116x", 1, SHA256, 4096))


def encrypt(directory):
    """What is created there from now on is encrypted, by a key that is added to the filesystem."""
    ADD_KEY, SET_POLICY, BY_IDENTIFIER, AES_XTS, AES_CTS = 0xC0506617, 0x800C6613, 2, 1, 4
    with opened(ROOT, os.O_RDONLY) as fd:
        key = bytearray(struct.pack("=II32xI36x", BY_IDENTIFIER, 0, 64) + random_bytes(64))
        fcntl.ioctl(fd, ADD_KEY, key)
    with opened(directory, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, SET_POLICY, struct.pack("=BBBBB3x", 2, AES_XTS, AES_CTS, 0, 0) + key[8:24])


# Refused at the registration


def test_an_ordinary_file_beside_them(make, token, udmabuf):
    assert token(make("file"))(0, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A)


def test_data_in_the_inode(make, token):
    with fails(EOPNOTSUPP):
        token(make("tiny", b"tiny"))


def test_data_in_the_journal(make, small, token):
    path = make("file")
    set_flag(small.backing / "file", JOURNAL_DATA)
    with fails(EOPNOTSUPP):
        token(path)


def test_verity(make, small, token):
    path = make("file")
    enable_verity(small.backing / "file")
    with fails(EOPNOTSUPP):
        token(path, READ_ONLY)


def test_encrypted_file(make, small, token):
    """Direct I/O would do: the block layer encrypts, with the CPU and pages of its own."""
    (small.backing / "secret").mkdir(exist_ok=True)
    if not os.listdir(small.backing / "secret"):
        encrypt(small.backing / "secret")
    path = make("secret/file")
    with fails(EOPNOTSUPP):
        token(path)


# Changed after the registration


def test_data_that_moves_to_the_journal_later(make, small, token, udmabuf):
    read = token(make("file"))
    set_flag(small.backing / "file", JOURNAL_DATA)
    with fails(EOPNOTSUPP, EINVAL):
        read(0, 64 * KIB, 0)
    expect_untouched(udmabuf)
    with fails(EOPNOTSUPP, EINVAL):
        read.write(0, 4096, 0)
    expect((small.backing / "file").read_bytes(), A)


def test_verity_that_is_enabled_later(make, small, token, udmabuf):
    read = token(make("file"), READ_ONLY)
    assert read(0, 4096, 0) == 4096
    udmabuf.fill()
    enable_verity(small.backing / "file")
    with fails(EOPNOTSUPP, EINVAL):
        read(0, 64 * KIB, 0)
    expect_untouched(udmabuf)


def test_data_that_leaves_the_inode(make, token, udmabuf):
    """The other way round: a file that has grown too large for its inode is as good as any."""
    path = make("grown", b"tiny")
    with open(path, "r+b") as file:
        file.write(A)
        os.fsync(file.fileno())
    assert token(path)(0, 64 * KIB, 0) == 64 * KIB
    expect(udmabuf[: 64 * KIB], A)


def test_o_direct_cleared_later(make, token, udmabuf):
    read = token(make("file"), DIRECT)
    fcntl.fcntl(read.fd, fcntl.F_SETFL, 0)
    with fails(EINVAL):
        read(0, 64 * KIB, 0)
    expect_untouched(udmabuf)
