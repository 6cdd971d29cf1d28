"""The bed itself: the machine that the other tests count on."""
import os
import subprocess
from pathlib import Path

import pytest

OPTIONS = Path('/etc/bed/kernel.config').read_text().splitlines()


def test_kernel_is_the_series_the_patches_are_for():
    assert os.uname().release.startswith('7.3.')


@pytest.mark.parametrize('option', ['BUG', 'PCI_P2PDMA', 'VFIO_PCI_DMABUF', 'UDMABUF', 'FUSE_PASSTHROUGH', 'IO_URING', 'BLK_DEV_NVME', 'HIST_TRIGGERS'])
def test_kernel_has(option):
    assert f'CONFIG_{option}=y' in OPTIONS


def test_nvme_takes_commands_of_512_kib(nvme):
    assert nvme.max_transfer == 512 << 10


def test_nvme_holds_files_beyond_4_gib(nvme):
    assert nvme.size > 16 << 30


def test_bar_of_512_mib_is_bound_to_vfio(vram):
    start, end, _flags = (int(word, 16) for word in Path(f'/sys/bus/pci/devices/{vram}/resource').read_text().splitlines()[2].split())
    assert end - start + 1 == 512 << 20
    assert Path(f'/sys/bus/pci/devices/{vram}/driver').resolve().name == 'vfio-pci'


def test_tracepoints_are_counted_exactly(ext4, trace):
    file = ext4 / 'data'
    file.write_bytes(bytes(1 << 20))
    os.sync()
    with trace('nvme:nvme_setup_cmd', key='opcode', where='qid > 0') as commands:
        subprocess.run(['dd', f'if={file}', 'of=/dev/null', 'bs=512K', 'iflag=direct'], check=True, stderr=subprocess.DEVNULL)
    assert commands.by_key == {2: 2}   # two reads of the largest size
