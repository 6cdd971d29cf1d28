"""Guest's half of tests/bench/instructions.sh: counts the instructions of one read by each way to the same device."""
import os
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / 'bed'))
import guest  # noqa: E402

ROUNDS = int(os.environ.get('ROUNDS', '5'))
BUFFERS = {'memory': 'ordinary registered buffer', 'token': 'token on a udmabuf'}


def places():
    """The device itself, a file on ext4, and that file through the server's mount."""
    nvme = guest.Nvme()
    root = guest.make_ext4(nvme.device, '/mnt/nvme')
    (root / 'file').write_bytes(os.urandom(4 << 20))
    mount = guest.mount_server(root, '/mnt/fuse')
    os.sync()
    return {'raw': nvme.device, 'ext4': root / 'file', 'FUSE': mount / 'file'}


def measure(program, files):
    """The medians, of rounds that take turns: what else happens on the machine then falls on all alike."""
    counts = {(place, buffer): [] for buffer in BUFFERS for place in files}
    for _ in range(ROUNDS):
        for place, buffer in counts:
            counts[place, buffer].append(float(guest.run(program, files[place], buffer)))
    return {key: statistics.median(values) for key, values in counts.items()}


def main():
    program = '/tmp/requests'
    guest.run('gcc', '-O2', '-Wall', '-o', program, HERE / 'requests.c', '-luring')
    files = places()
    counts = measure(program, files)
    print('instructions per direct 4 KiB read, queue depth 32')
    print(f'{"":28}{"raw":>8}{"ext4":>8}{"FUSE":>8}{"raw/ext4":>10}{"ext4/FUSE":>11}')
    for buffer, name in BUFFERS.items():
        raw, ext4, fuse = (counts[place, buffer] for place in files)
        print(f'{name:28}{raw:8.0f}{ext4:8.0f}{fuse:8.0f}{raw / ext4:10.3f}{ext4 / fuse:11.3f}')


if __name__ == '__main__':
    main()
