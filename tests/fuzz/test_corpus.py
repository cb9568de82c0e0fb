"""Every input that ever failed, and a few hundred changed ones per target; benchmarks/fuzz.py runs millions."""

from itertools import islice
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutation import inputs
from tests.fuzz.running import tried, watched
from tests.fuzz.targets import CORPUS, TARGETS

CHANGED = 500


def test_every_folder_of_the_corpus_is_a_target_with_inputs() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(target.corpus() for target in TARGETS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_raise_nothing_but_what_is_documented(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    run, kept = target.make(tmp_path), list(target.corpus().values())
    count = len(kept) + max(20, int(CHANGED * min(1.0, 5 * target.share)))
    with watched():
        for data in islice(inputs(kept, target.tokens, Random(name), target.longest), count):
            failure = tried(run, data)
            assert failure is None, f"{data!r}\n{failure.report}"
