#!/usr/bin/env python3
"""The demo's part in the virtual machine: demo-guest.py CHECKPOINT. Loads it by both paths, counts in the kernel, prints the table."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'tests/bed'))
import guest  # noqa: E402

ROUNDS = 3          # loads by each path, in turn; the table has the medians of the times
FUSE_READ = 15                  # opcodes
FUSE_TOKEN = (2048, 2049)       # a token is asked for, and ends
NVME_READ = 2


def load(file, destination, path, *options):
    result = subprocess.run(['fuse-dmabuf', 'load', file, '--into', destination, '--path', path, '--json', *options], stdout=subprocess.PIPE, text=True)
    if result.returncode:
        sys.exit(f'demo: loading by the {path} path failed')
    return json.loads(result.stdout)


def wait_for_releases(created, released):
    """A ring is torn down a moment after its process, and its tokens with it."""
    deadline = time.monotonic() + 10
    while released.update().hits < created.update().hits and time.monotonic() < deadline:
        time.sleep(0.05)


def counted_load(file, destination, path):
    """One load, with what the kernel counted meanwhile. Both paths read from the device: bounce would take what is cached."""
    os.sync()
    Path('/proc/sys/vm/drop_caches').write_text('1')
    with ExitStack() as stack:
        server = stack.enter_context(guest.trace('fuse:fuse_request_send', key='opcode'))
        nvme = stack.enter_context(guest.trace('nvme:nvme_setup_cmd', key='opcode', where='qid > 0'))
        created = stack.enter_context(guest.trace('dmabuf_token:dmabuf_token_create'))
        released = stack.enter_context(guest.trace('dmabuf_token:dmabuf_token_release', sums=['read_bytes']))
        summary = load(file, destination, path)
        wait_for_releases(created, released)
    return summary | {
        'server_requests': server.hits,
        'server_tokens': sum(server.by_key.get(opcode, 0) for opcode in FUSE_TOKEN),
        'server_reads': server.by_key.get(FUSE_READ, 0),
        'nvme_reads': nvme.by_key.get(NVME_READ, 0),
        'token_bytes': released.sums['read_bytes'],
    }


def check(results, size):
    """The demo must not praise a path that was not taken."""
    for result in results['direct']:
        if result['token_bytes'] < size or result['bytes_copied'] or result['server_reads']:
            sys.exit(f'demo: a load that should be direct was not: {result}')
    for result in results['bounce']:
        if result['token_bytes'] or result['bytes_copied'] < size:
            sys.exit(f'demo: a load that should copy did not: {result}')


def table(results):
    """One column for each path: medians of the times, counts of the last round."""
    def median(path, value):
        return statistics.median(value(result) for result in results[path])

    rows = [
        ('throughput, MiB/s', 'loader', lambda path: f'{median(path, lambda r: r["bytes_per_second"]) / (1 << 20):,.0f}'),
        ('CPU seconds', 'loader', lambda path: f'{median(path, lambda r: r["user_seconds"] + r["system_seconds"]):.2f}'),
        ('bytes copied by the CPU', 'loader', lambda path: f'{results[path][-1]["bytes_copied"]:,}'),
        ('bytes read by DMA through tokens', 'kernel', lambda path: f'{results[path][-1]["token_bytes"]:,}'),
        ('requests to the FUSE server', 'kernel', lambda path: f'{results[path][-1]["server_requests"]:,}'),
        ('  of these to grant and end a token', 'kernel', lambda path: f'{results[path][-1]["server_tokens"]:,}'),
        ('  of these READ', 'kernel', lambda path: f'{results[path][-1]["server_reads"]:,}'),
        ('NVMe read commands', 'kernel', lambda path: f'{results[path][-1]["nvme_reads"]:,}'),
    ]
    print(f'\n{"":36}{"direct":>14}{"bounce":>14}   counted by')
    for name, by, value in rows:
        print(f'{name:36}{value("direct"):>14}{value("bounce"):>14}   {by}')


def main(checkpoint):
    guest.make_ext4(guest.Nvme().device, '/mnt/nvme')
    destination = 'vfio:' + guest.bind_vfio(guest.find_vram())
    mount = guest.mount_server('/mnt/nvme', '/mnt/fuse')
    file = mount / 'model.safetensors'
    shutil.copyfile(checkpoint, file)
    guest.run('sync')
    print(f'{file}: {file.stat().st_size:,} bytes, on {guest.run("findmnt", "-no", "FSTYPE,SOURCE", "-T", file).strip()}; into {destination}')

    results = {'direct': [], 'bounce': []}
    for _ in range(ROUNDS):
        for path, done in results.items():
            done.append(counted_load(file, destination, path))
    # The direct path comes last, and --verify zeroes the BAR before it: what the host finds there came by DMA.
    for path in ('bounce', 'direct'):
        verified = load(file, destination, path, '--verify')
        print(f'{path}: {verified["tensors"]} tensors verified')
    check(results, file.stat().st_size)
    table(results)
    guest.run('umount', mount)


main(sys.argv[1])
