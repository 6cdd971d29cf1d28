"""What is told to somebody who watches a filesystem for errors: those of direct I/O, but not that a token was refused."""

import contextlib
import mmap
import os
from errno import ENOTBLK, ENXIO, EOPNOTSUPP

import pytest

from faults import overridden
from test_fs_states import DIRECTLY, ErrorsOf
from token_fixtures import *  # noqa: F403
from token_words import KIB, expect_untouched, fails, opened, random_bytes
from uring import IOSQE_ASYNC

READ_ONLY = os.O_RDONLY | os.O_DIRECT
A = random_bytes(64 * KIB, seed=1)  # more than a block, for which there is a shorter way

# Where a filesystem looks for the blocks to be read
LOOK = {"ext4": "ext4_iomap_begin", "xfs": "xfs_read_iomap_begin"}

pytestmark = DIRECTLY


def refused_by_filesystem(place, number):
    """Reads fail so, as often as they are tried."""
    return overridden(LOOK[place], value=-number)


def refused_by_driver():
    """The next command fails. Later ones may be the filesystem's own."""
    BLK_STS_NOTSUPP = 1
    os.sync()
    return overridden("nvme_setup_cmd", value=BLK_STS_NOTSUPP, count=1)


def read_into_memory(path, size):
    with opened(path, READ_ONLY) as fd:
        return os.preadv(fd, [mmap.mmap(-1, size)], 0)


@pytest.mark.parametrize("number", [ENXIO, EOPNOTSUPP])
def test_a_refusal_is_told_unless_it_is_that_of_a_token(place, tree, directory, token, number):
    path, _ = directory("file", A)
    with contextlib.closing(ErrorsOf(tree.backing)) as errors:
        read = token(path, READ_ONLY)
        with refused_by_filesystem(place, number), fails(number):
            read(0, 64 * KIB, 0)
        assert errors.number(seconds=0.5) == 0
        with refused_by_filesystem(place, number), fails(number):
            read_into_memory(path, 64 * KIB)
        assert errors.number() == 1


def test_a_command_that_is_refused_is_told_unless_it_is_that_of_a_token(tree, directory, token, ring):
    """Of one block, which goes the shorter way; and by a worker, as what io_uring itself is refused it has a worker try again."""
    path, _ = directory("file", A)
    with contextlib.closing(ErrorsOf(tree.backing)) as errors:
        read = token(path, READ_ONLY)
        with refused_by_driver(), fails(EOPNOTSUPP):
            ring.read_fixed(read.fd, 0, 4 * KIB, 0, flags=IOSQE_ASYNC)
        assert errors.number(seconds=0.5) == 0
        with refused_by_driver(), fails(EOPNOTSUPP):
            read_into_memory(path, 4 * KIB)
        assert errors.number() == 1


def test_what_only_the_page_cache_could_do_is_refused(place, directory, token, udmabuf):
    """It is not the end of the file."""
    path, _ = directory("file", A)
    read = token(path, READ_ONLY)
    with refused_by_filesystem(place, ENOTBLK), fails(EOPNOTSUPP):
        read(0, 64 * KIB, 0)
    expect_untouched(udmabuf)
    assert read(0, 64 * KIB, 0) == 64 * KIB
