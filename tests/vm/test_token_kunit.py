"""The tests of the kernel's token base, drivers/dma-buf/dma-buf-token-test.c: the kernel runs them when it starts."""

import re
from pathlib import Path

RESULTS = Path("/sys/kernel/debug/kunit/dmabuf-token/results")


def test_kernel_has_run_its_tests_of_tokens():
    results = RESULTS.read_text()
    print(results)
    planned = int(re.search(r"^    1\.\.(\d+)$", results, re.MULTILINE)[1])
    outcomes = re.findall(r"^    (ok|not ok) (\d+) (\w+)(.*)", results, re.MULTILINE)
    assert planned == 43
    assert [int(number) for _, number, _, _ in outcomes] == list(range(1, planned + 1))
    # A skipped test is "ok", with a remark.
    assert [name for outcome, _, name, remark in outcomes if outcome != "ok" or remark] == []
    # Also counts what was expected of a test after its end.
    assert re.search(r"^ok \d+ dmabuf-token$", results, re.MULTILINE)
