"""The C unit tests, as meson knows them, each one a test here."""
import json
import os
import subprocess

import pytest

BUILD = os.environ['MESON_BUILD']
TESTS = {test['name']: test for test in json.loads(subprocess.check_output(['meson', 'introspect', '--tests', BUILD]))}


@pytest.mark.parametrize('name', TESTS)
def test_c(name):
    test = TESTS[name]
    result = subprocess.run(test['cmd'], env=os.environ | test['env'], cwd=test['workdir'], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode == 77:
        pytest.skip(result.stdout)
    assert result.returncode == 0, result.stdout
