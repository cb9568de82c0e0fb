"""Coverage-guided fuzzing of one target with Atheris, which is installed apart: `pip install atheris`.

    python benchmarks/fuzz_coverage.py TARGET FOLDER [libFuzzer's options, such as -max_total_time=60]

Starts from tests/fuzz/corpus. Inputs that reach new code are put into FOLDER; one that fails is put into the folder the
command is run in. What is worth keeping is then copied into the corpus by hand.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).resolve().parents[1]))


def main() -> int:
    """Fuzz a target until libFuzzer's options say that it is enough."""
    try:
        import atheris
    except ImportError:
        print("coverage-guided fuzzing needs atheris: pip install atheris", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["hilcl"]):
        from tests.fuzz.targets import CORPUS, TARGETS
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        print(f"needs a target and a folder; targets are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    target, folder = TARGETS[sys.argv[1]], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="hilcl-") as scratch:
        words = Path(scratch) / "words"
        escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in target.tokens)
        words.write_text("".join(f'"{token}"\n' for token in escaped), "ascii")
        limits = [
            f"-max_len={target.longest}",
            "-timeout=5",
            "-rss_limit_mb=2048",
            *([f"-dict={words}"] if target.tokens else []),
        ]
        arguments = [sys.argv[0], *limits, str(folder), str(CORPUS / target.name), *sys.argv[3:]]
        atheris.Setup(arguments, target.make(Path(scratch)))
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
