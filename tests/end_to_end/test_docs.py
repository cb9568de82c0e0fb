"""Every command and every Python example shown in the README and the guides runs as shown."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hilcl.experiment import Experiment
from hilcl.settle_section import SettleSection

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def shown_commands(document: Path) -> list[list[str]]:
    lines = "".join(blocks(document, "sh")).splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("hilcl ")]
    unknown = [line for line in lines if not line.startswith(("hilcl ", "make run", "make test", "#")) and line.strip()]
    assert not unknown, f"{document.name} shows a command that no test runs: {unknown[0]}"
    return commands


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if shown_commands(each)], ids=lambda document: document.name
)
def test_commands_run_as_shown(document: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for command in shown_commands(document):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        assert done.stdout


@pytest.mark.parametrize(
    "document", [each for each in DOCUMENTS if blocks(each, "python")], ids=lambda document: document.name
)
def test_python_examples_run_as_shown(document: Path, tmp_path: Path) -> None:
    script = "\n".join(blocks(document, "python"))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_shown_simulation_section_is_valid() -> None:
    shown = tomllib.loads(blocks(ROOT / "docs" / "imperfections.md", "toml")[0])
    example = (ROOT / "examples" / "iris.toml").read_text(encoding="utf-8")
    text = example[: example.index("[simulation]")] + blocks(ROOT / "docs" / "imperfections.md", "toml")[0]
    section = Experiment.parse(text, Path("iris.toml")).simulation
    assert section.seed == shown["simulation"]["seed"]
    assert section.pots.stuck == {5: 0}
    assert section.sources.compliance == pytest.approx(0.01)


def test_shown_settle_section_is_valid() -> None:
    (shown,) = (text for text in blocks(ROOT / "docs" / "bench.md", "toml") if "[bench.settle]" in text)
    section = SettleSection.model_validate(tomllib.loads(shown)["bench"]["settle"])
    assert section.capacitance == pytest.approx(150e-12)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [link for link in links if not (document.parent / link).exists()]
    assert not missing


def test_every_experiment_key_is_documented() -> None:
    guide = "".join(
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("experiment-file.md", "imperfections.md")
    )

    def keys(schema: dict[str, object], definitions: dict[str, dict[str, object]]) -> set[str]:
        found: set[str] = set()
        for definition in [schema, *definitions.values()]:
            properties = definition.get("properties", {})
            assert isinstance(properties, dict)
            found |= set(properties)
        return found

    schema = Experiment.model_json_schema()
    undocumented = {key for key in keys(schema, schema["$defs"]) if f"{key}" not in guide}
    assert not undocumented
