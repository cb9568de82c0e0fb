import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from hilcl.sweep import Sweep
from hilcl.sweep_file import SweepFile
from hilcl.sweep_point import compute_point
from tests.command_line import PATIENCE, environment, hilcl
from tests.sweep_files import stored_points, told, write_sweep

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, scheduler_port=0, silence_logs=50
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a scheduler with two worker processes."""
    pytest.importorskip("distributed")
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER, encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()


def kill_a_worker_of(address: str) -> None:
    script = (
        "import sys, os, signal\n"
        "from distributed import Client\n"
        "with Client(sys.argv[1], set_as_default=False) as client:\n"
        "    pids = client.run(os.getpid)\n"
        "    assert len(pids) == 2\n"
        "    os.kill(min(pids.values()), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, address], env=environment(), check=True, timeout=PATIENCE)


# Four interpreters start, and the scheduler waits for the dead worker's return.
@pytest.mark.timeout(300)
def test_a_cluster_comes_to_the_same_and_the_death_of_a_worker_loses_nothing(tmp_path: Path, cluster: str) -> None:
    from hilcl.sweep_dask import dask_results

    path = write_sweep(tmp_path, epochs="500")
    sweep = Sweep(SweepFile.load(path), "sweep")
    expected = told([compute_point(sweep.base, point) for point in sweep.points])
    done = hilcl("sweep", path, "--scheduler", cluster, "--no-report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sweep: 9 points, 9 computed in ")
    stored = stored_points(tmp_path / "hilcl.sqlite")
    assert [(row[0], row[1], row[4]) for row in stored] == [(row[0], row[2], row[4]) for row in expected]
    results = []
    with closing(dask_results(sweep.base, sweep.points, cluster)) as computed:
        for number, result in enumerate(computed):
            results.append(result)
            if number == 0:
                kill_a_worker_of(cluster)
    assert told(results) == expected


def test_a_scheduler_that_is_not_there_is_said(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    path = write_sweep(tmp_path)
    done = hilcl("sweep", path, "--scheduler", "tcp://127.0.0.1:9", "--no-report", cwd=tmp_path)
    assert done.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
