"""Everything at random for a while: python3 tests/vm/stress.py MINUTES [SEED], in the virtual machine. tests/run.sh --stress calls it.

It runs the long tests with other counts and seeds, and others of tokens, rings, NVMe, filesystems and the broker in random order, again and again. The first that fails
ends it; its seed brings the same order again.
"""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent
MIXED = ["test_token_*.py", "test_uring_*.py", "test_nvme_*.py", "test_fs_*.py", "test_passthrough.py", "test_broker_*.py", "test_load_library.py"]
LONG = ["test_token_fuzz.py", "test_token_moves.py::test_many_moves_under_random_reads_and_writes", "test_token_mix.py"]


def collected():
    """The names of all tests that mix."""
    files = sorted(str(path) for pattern in MIXED for path in TESTS.glob(pattern) if path.name not in LONG)
    output = subprocess.run([sys.executable, "-m", "pytest", "-q", "--collect-only", *files], text=True, capture_output=True, check=True).stdout
    return [line for line in output.splitlines() if "::" in line and "many_moves" not in line]


def run_tests(arguments, **environment):
    result = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", *arguments], env=os.environ | environment)
    # each session loads the exporters, and no test may keep them
    return result.returncode or subprocess.run(["rmmod", "dmabuf_test", "dmabuf_join"]).returncode


def stress(minutes, seed):
    chance, names, rounds = random.Random(seed), collected(), 0
    end = time.monotonic() + 60 * minutes
    while not rounds or time.monotonic() < end:
        round_of = [*chance.sample(names, min(25, len(names))), *(str(TESTS / name) for name in LONG)]
        counts = [f"--fuzz={chance.randrange(2000, 10_000)}", f"--moves={100_000 if minutes >= 30 and not rounds else chance.randrange(100, 400)}",
                  f"--mix={chance.randrange(10, 40)}"]
        counts.append(f"--requests={chance.choice(['read', 'io_uring'])}")
        seeds = {name: str(chance.randrange(1, 1 << 32)) for name in ("FUZZ_SEED", "MOVES_SEED", "MIX_SEED")}
        print(f"stress: seed {seed}, round {rounds}: {counts} {seeds}", flush=True)
        status = run_tests([*counts, *round_of], **seeds)
        if status:
            print(f"stress: seed {seed} failed in round {rounds}", flush=True)
            return status
        rounds += 1
    print(f"stress: seed {seed}: {rounds} rounds", flush=True)
    return 0


if __name__ == "__main__":
    os.chdir(TESTS.parent)  # pytest names tests from here
    sys.exit(stress(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(1, 1 << 32)))
