"""The guest's plumbing, shared by the tests' fixtures, the demo and the shell of tests/bed/vm."""
import atexit
import ctypes
import errno
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PCI = Path('/sys/bus/pci')
TRACING = Path('/sys/kernel/tracing')
VRAM_ID = ('0x1af4', '0x1110')   # QEMU's ivshmem: a memory file behind BAR 2
BED = Path('/usr/lib/bed')   # where tests/bed/vm puts test modules, and the programs of tests/vm/meson.build


def run(*command, **options):
    """Runs a command; its output is in the exception when it fails."""
    result = subprocess.run([str(word) for word in command], text=True, capture_output=True, **options)
    if result.returncode:
        raise RuntimeError(f'{" ".join(map(str, command))}: exit code {result.returncode}\n{result.stdout}{result.stderr}')
    return result.stdout


class Nvme:
    """An NVMe controller and its one namespace; the one without a name is the one that most tests use."""

    def __init__(self, serial='bed'):
        self.controller = next(path for path in Path('/sys/class/nvme').iterdir() if (path / 'serial').read_text().strip() == serial).resolve()
        self.namespace = next(self.controller.glob('nvme*n[0-9]*'))
        self.device = f'/dev/{self.namespace.name}'
        self.pci = (self.controller / 'device').resolve().name

    @property
    def size(self):
        return int((self.namespace / 'size').read_text()) * 512

    @property
    def max_transfer(self):
        """The largest command the device takes (MDTS), in bytes."""
        return int((self.namespace / 'queue/max_hw_sectors_kb').read_text()) * 1024


def find_vram():
    """PCI address of the device whose BAR 2 plays VRAM."""
    for device in PCI.glob('devices/*'):
        if ((device / 'vendor').read_text().strip(), (device / 'device').read_text().strip()) == VRAM_ID:
            return device.name
    raise RuntimeError('the machine has no ivshmem device')


def bind_vfio(address):
    """Binds a PCI device to vfio-pci."""
    (PCI / 'devices' / address / 'driver_override').write_text('vfio-pci')
    driver = PCI / 'devices' / address / 'driver'
    if driver.exists() and driver.resolve().name != 'vfio-pci':
        (driver / 'unbind').write_text(address)
    if not driver.exists():
        (PCI / 'drivers_probe').write_text(address)
    if not driver.exists():
        raise RuntimeError(f'vfio-pci does not take {address}')
    return address


def load_modules():
    """Loads the test modules; a machine without them is one whose kernel was built without tests/modules."""
    for module in sorted(BED.glob('*.ko')):
        if not Path('/sys/module', module.stem).exists():
            run('insmod', module)


def make_ext4(device, target):
    """A new ext4 file system on the device, mounted at target."""
    # The tables of a large device would be zeroed for seconds, now, or by a thread whose commands would be counted among the tests', as those
    # that read bitmaps ahead.
    run('mkfs.ext4', '-q', '-F', '-E', 'nodiscard,lazy_itable_init=1,lazy_journal_init=1', device)
    Path(target).mkdir(parents=True, exist_ok=True)
    run('mount', '-t', 'ext4', '-o', 'noinit_itable,no_prefetch_block_bitmaps', device, target)
    return Path(target)


_IO_URING_OFFERED = Path('/sys/module/fuse/parameters/enable_uring')


def offer_io_uring(offered):
    """Whether FUSE servers that are mounted from now on may have their requests by io_uring."""
    _IO_URING_OFFERED.write_text('NY'[offered])


def io_uring_is_offered():
    return _IO_URING_OFFERED.read_text() == 'Y\n'


def wait_for_end_of_mount(path, seconds=10):
    """Of one whose server was killed. Whose requests were read it ended with; by io_uring it ends some milliseconds later, with errors of its own."""
    deadline = time.monotonic() + seconds
    while io_uring_is_offered():
        try:
            os.statvfs(path)
        except OSError as error:
            if error.errno == errno.ENOTCONN:
                return
        assert time.monotonic() < deadline, f'{path} outlives its server'
        time.sleep(0.001)


def mount_server(source, target, options=''):
    """Mounts source at target with the server, by what mount(8) calls: that itself would take as long again, and has tests of its own."""
    Path(target).mkdir(parents=True, exist_ok=True)
    run('/sbin/mount.fuse-dmabuf', source, target, *(['-o', options] if options else []))
    return Path(target)


_libc = ctypes.CDLL(None, use_errno=True)


def unmount(target, lazy=False, seconds=10):
    """umount(2): a process for each would cost tests a minute. Files of a ring that was closed are closed a moment later, which is waited for."""
    MNT_DETACH = 2
    deadline = time.monotonic() + seconds
    while _libc.umount2(os.fsencode(target), MNT_DETACH if lazy else 0):
        number = ctypes.get_errno()
        if number != errno.EBUSY or time.monotonic() > deadline:
            raise OSError(number, os.strerror(number), str(target))
        time.sleep(0.02)


def unmount_all(target):
    """Whatever is mounted there, one over the other, in use or not."""
    with suppress(OSError):
        while True:
            unmount(target, lazy=True)


class Histogram:
    """Exact counts of one tracepoint: .hits, .by_key {key: hits}, .sums {field: total}, as of the last update or the end of the counting."""

    def __init__(self, path, sums):
        self.path = path
        self.hits, self.by_key, self.sums = 0, {}, dict.fromkeys(sums, 0)

    def update(self):
        text = self.path.read_text()
        if dropped := int(re.search(r'Dropped: (\d+)', text)[1]):
            raise RuntimeError(f'{self.path}: {dropped} hits were not counted, there are more keys than room for them')
        rows = [(int(key) if key.isdigit() else key, {name: int(value) for name, value in re.findall(r'(\w+): +(\d+)', values)})
                for key, values in re.findall(r'^\{ [^:]*: *(.*?), common_cpu: *\d+ *\}(.*)$', text, re.MULTILINE)]
        self.hits = sum(values['hitcount'] for _, values in rows)
        self.by_key = dict.fromkeys((key for key, _ in rows), 0)
        for key, values in rows:
            self.by_key[key] += values['hitcount']
        self.sums = {field: sum(values[field] for _, values in rows) for field in self.sums}
        return self


_unused_instances = []


@contextmanager
def trace(event, key='common_pid', where='', sums=()):
    """Counts the hits of a tracepoint ('system:name') in the kernel, without a buffer that could overflow.

    key: a field to count by; where: a filter such as 'qid > 0 && opcode == 2'; sums: fields to add up.
    """
    # An instance costs half a second to make and to remove, so each is used again.
    if not _unused_instances:
        instance = TRACING / 'instances' / f'bed-{os.getpid()}-{len(list((TRACING / "instances").iterdir()))}'
        instance.mkdir()
        atexit.register(instance.rmdir)
        _unused_instances.append(instance)
    instance = _unused_instances.pop()
    directory = instance / 'events' / event.replace(':', '/')
    values = f':vals={",".join(sums)}' if sums else ''
    # By CPU, too: of two that meet a new key at the same time one may drop its hit. Room for so many keys: each takes several
    # allocations, which cost seconds where all are tracked.
    trigger = f'hist:keys={key},common_cpu{values}:size=256' + (f' if {where}' if where else '')
    (directory / 'trigger').write_text(trigger)
    try:
        histogram = Histogram(directory / 'hist', sums)
        yield histogram
    finally:
        histogram.update()
        (directory / 'trigger').write_text('!' + trigger)
        _unused_instances.append(instance)


def _define_probe(line):
    """Beside those that there are: to truncate the file would remove them, and it knows no end to append to."""
    fd = os.open(TRACING / 'kprobe_events', os.O_WRONLY)
    try:
        os.write(fd, f'{line}\n'.encode())
    finally:
        os.close(fd)


@contextmanager
def returns_of(function):
    """A tracepoint where a function of the kernel returns, for trace(); its field `result` is what it returns."""
    _define_probe(f'r:bed/{function} {function} result=$retval')
    try:
        yield f'bed:{function}'
    finally:
        _define_probe(f'-:bed/{function}')


def shell():
    """What `tests/bed/vm --shell` starts: the mount is ready, the BAR is bound, the modules are in."""
    nvme, vram = Nvme(), bind_vfio(find_vram())
    load_modules()
    source = make_ext4(nvme.device, '/mnt/nvme')
    mount_server(source, '/mnt/fuse')
    print(f'/mnt/nvme is ext4 on {nvme.device} ({nvme.pci}); /mnt/fuse is the server\'s mount of it; the BAR is vfio:{vram}. exit ends the machine.')
    rows, columns = os.environ.get('LINES', '24'), os.environ.get('COLUMNS', '80')
    subprocess.run(['stty', 'rows', rows, 'cols', columns], check=False)
    os.execvp('bash', ['bash', '-i'])


if __name__ == '__main__' and sys.argv[1:] == ['shell']:
    shell()
