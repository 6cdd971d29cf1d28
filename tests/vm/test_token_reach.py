"""What a controller that cannot reach other devices' memory is given a token for."""

from errno import EOPNOTSUPP

from faults import overridden
from token_fixtures import *  # noqa: F403
from token_words import KIB, fails, read_and_compare


def test_device_memory_that_the_controller_cannot_reach_is_refused(front, bar, udmabuf, ring):
    with overridden("dma_pci_p2pdma_supported", value=0):
        with fails(EOPNOTSUPP):
            ring.register_dmabuf(0, bar, front.fd)
        ring.register_dmabuf(1, udmabuf, front.fd)
        read_and_compare(ring, front, udmabuf, (0, 64 * KIB, 0), slot=1)
    ring.register_dmabuf(0, bar, front.fd)
    read_and_compare(ring, front, bar, (0, 64 * KIB, 0))
