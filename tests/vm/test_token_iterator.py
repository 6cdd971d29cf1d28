"""The helpers of the kernel that know no tokens: tests/modules/iterator calls each of them, when it is loaded."""

import re
from pathlib import Path

RESULTS = Path("/sys/kernel/debug/kunit/dmabuf-token-iterator/results")


def test_generic_helpers_neither_copy_nor_skip_what_the_cpu_cannot_reach():
    results = RESULTS.read_text()
    print(results)
    outcomes = re.findall(r"^    (ok|not ok) \d+ (\w+)", results, re.MULTILINE)
    assert len(outcomes) == 7
    assert [name for outcome, name in outcomes if outcome != "ok"] == []
