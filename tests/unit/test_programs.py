"""The test programs in C."""
import subprocess

import pytest


def test_reads_against_a_simulated_kernel(build):
    subprocess.run([build / 'tests/unit/read-test'], check=True)


@pytest.mark.parametrize('seed', range(1, 5))
def test_parser_survives_damaged_headers(build, seed):
    subprocess.run([build / 'tests/unit/fuzz-header', str(seed), '100000'], check=True)
