"""What `pip install` gets: built from a copy of the checkout, installed into a fresh virtual environment, and run.

The builds need hatchling in the environment of the tests (`--no-isolation`), and so no network.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import tinksched
from tests.support import Lab

CHECKOUT = Path(__file__).parents[2]
PARTS = ("tinksched", "templates", "examples", "tests")
FILES = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore")

# What running an example in a checkout leaves there. The environments of users have their keys in them.
LITTER = (
    "examples/digits/out/model.pkl",
    "examples/digits/logs/train_logs/digits.log",
    "examples/digits/.tinksched/environments/0123abcd",
    "examples/digits/__pycache__/train.cpython-311.pyc",
    "tinksched/__pycache__/cli.cpython-311.pyc",
)
PRIVATE = {"__pycache__", "out", "logs", ".tinksched"}


@dataclass(frozen=True)
class Built:
    """Everything that is built once for all tests: archives, and an installation of the wheel."""

    folder: Path

    @property
    def wheel(self) -> Path:
        """The wheel that was built from the sdist, as `python -m build` does it."""
        return only(self.folder / "dist", "*.whl")

    @property
    def direct_wheel(self) -> Path:
        """The wheel that was built from the checkout itself, as `pip install .` does it."""
        return only(self.folder / "direct", "*.whl")

    @property
    def sdist(self) -> Path:
        """The source archive."""
        return only(self.folder / "dist", "*.tar.gz")

    @property
    def source(self) -> Path:
        """The copy of the checkout that all was built from."""
        return self.folder / "source"

    def sources(self, *parts: str) -> set[str]:
        """The files of the checkout that are to be shipped."""
        found = set()
        for part in parts:
            for path in (self.source / part).rglob("*"):
                name = str(path.relative_to(self.source))
                if path.is_file() and not PRIVATE & set(Path(name).parts):
                    found.add(name)
        return found

    @property
    def python(self) -> Path:
        """The interpreter of the environment that has the wheel installed."""
        return self.folder / "venv" / "bin" / "python"

    @property
    def program(self) -> Path:
        """The `tinksched` that was installed."""
        return self.folder / "venv" / "bin" / "tinksched"


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Built by whichever worker of pytest comes first."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with (shared / "packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder = shared / "packages"
        if not (folder / "complete").exists():
            build(folder)
            (folder / "complete").touch()
    return Built(folder)


def build(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    source = folder / "source"
    source.mkdir(parents=True)
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, source / part, ignore=shutil.ignore_patterns(*PRIVATE))
    for file in FILES:
        shutil.copy2(CHECKOUT / file, source / file)
    for file in LITTER:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text("not for others\n")
    command = [sys.executable, "-m", "build", "--no-isolation"]
    run(*command, "--outdir", str(folder / "dist"), str(source))
    run(*command, "--wheel", "--outdir", str(folder / "direct"), str(source))
    install(Built(folder))


def install(built: Built) -> None:
    """The wheel in an environment of its own. Its dependencies are those of this one, so nothing is downloaded."""
    environment = built.folder / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    run(sys.executable, "-m", "pip", "--python", str(built.python), "install", "--quiet", "--no-deps", "--no-index",
        "--disable-pip-version-check", str(built.wheel))  # fmt: skip
    # A .pth file is not looked for in the folders that another one adds: the checkout itself does not come along.
    packages = run(str(built.python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(packages) / "dependencies.pth").write_text("\n".join(folders) + "\n")


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        command, env={**clean, **environment}, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


def in_wheel(wheel: Path) -> dict[str, bytes]:
    """The files of a wheel and their contents, without the record of the wheel itself."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


def in_sdist(sdist: Path) -> dict[str, bytes]:
    """The files of a source archive, named from the checkout's root."""
    found = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member)
            if file is not None:
                found[member.name.partition("/")[2]] = file.read()
    return found


def test_the_wheel_has_every_file_of_the_package_the_templates_and_the_examples(built: Built) -> None:
    names = {name for name in in_wheel(built.wheel) if ".dist-info/" not in name}
    moved = {"templates/": "tinksched/_templates/", "examples/": "tinksched/_examples/"}
    expected = built.sources("tinksched", "templates", "examples")
    for old, new in moved.items():
        expected = {new + name.removeprefix(old) if name.startswith(old) else name for name in expected}
    assert names == expected


def test_what_is_not_python_is_there(built: Built) -> None:
    wheel, sdist = in_wheel(built.wheel), in_sdist(built.sdist)
    migrations = [name for name in built.sources("tinksched") if name.endswith(".sql")]
    page = [name for name in built.sources("tinksched") if name.startswith("tinksched/server/page/static/")]
    assert migrations and "tinksched/server/page/static/index.html" in page
    for name in ("tinksched/py.typed", "tinksched/executors/wrapper.sh", *migrations, *page):
        assert wheel[name] == sdist[name] == (built.source / name).read_bytes()
    for name in ("scheduler_config.yml", "scheduler.sh", "example_task.yml"):
        text = (built.source / "templates" / name).read_bytes()
        assert wheel[f"tinksched/_templates/{name}"] == sdist[f"templates/{name}"] == text
    assert "tinksched/_examples/digits/train.py" in wheel and "examples/digits/train.py" in sdist


def test_the_sdist_has_what_is_needed_to_test_and_to_build(built: Built) -> None:
    names = set(in_sdist(built.sdist))
    assert built.sources(*PARTS) <= names
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names


def test_the_wheel_from_the_sdist_is_the_one_from_the_checkout(built: Built) -> None:
    one, other = in_wheel(built.wheel), in_wheel(built.direct_wheel)
    assert sorted(one) == sorted(other)
    assert one == other


@pytest.mark.parametrize("archive", ["wheel", "direct_wheel", "sdist"])
def test_nothing_that_an_example_left_in_the_checkout_is_shipped(built: Built, archive: str) -> None:
    path = getattr(built, archive)
    files = in_sdist(path) if archive == "sdist" else in_wheel(path)
    assert [name for name, content in files.items() if content == b"not for others\n"] == []


def test_the_metadata_says_what_it_is(built: Built) -> None:
    (text,) = (content.decode() for name, content in in_wheel(built.wheel).items() if name.endswith("/METADATA"))
    head = text.partition("\n\n")[0].splitlines()
    assert f"Version: {tinksched.__version__}" in head
    assert "Requires-Python: >=3.10" in head
    assert {"Requires-Dist: libtmux>=0.40", "Requires-Dist: nvidia-ml-py>=12.535"} <= set(head)
    assert text.partition("\n\n")[2].strip() == (built.source / "README.md").read_text().strip()


def test_the_installed_package_is_the_one_that_runs(built: Built) -> None:
    where = run(str(built.python), "-c", "import tinksched; print(tinksched.__file__)").stdout.strip()
    assert Path(where).is_relative_to(built.folder / "venv")
    assert run(str(built.program), "--version").stdout == run(sys.executable, "-m", "tinksched", "--version").stdout
    assert tinksched.__version__ in run(str(built.program), "--version").stdout


def test_the_installed_package_sets_up_the_same_workspace_as_the_checkout(built: Built, tmp_path: Path) -> None:
    made = {}
    for what, command in (("installed", [str(built.program)]), ("checkout", [sys.executable, "-m", "tinksched"])):
        folder = tmp_path / what / "demo"
        run(*command, "setup-workspace", str(folder), HOME=str(tmp_path))
        made[what] = {
            str(path.relative_to(folder)): (path.read_text() if path.is_file() else None, oct(path.stat().st_mode))
            for path in sorted(folder.rglob("*"))
        }
    # The wrapper names the program that it belongs to.
    programs = {"installed": str(built.program), "checkout": str(Path(sys.executable).parent / "tinksched")}
    for what, program in programs.items():
        text, mode = made[what]["scheduler.sh"]
        assert text is not None and program in text
        made[what]["scheduler.sh"] = (text.replace(program, "PROGRAM"), mode)
    assert made["installed"] == made["checkout"]
    assert {"scheduler_config.yml", "scheduler.sh", "configs/example.yml", "out", ".gitignore"} <= set(
        made["installed"]
    )


def test_the_installed_package_runs_a_task(built: Built, lab: Lab) -> None:
    """With the wrapper script and the migrations that were installed."""
    bench = lab.workspace(tasks={"exp1.yml": "text: said\n"}, executor="local")
    environment = {name: value for name, value in lab.environment.items() if name != "PYTHONPATH"}
    for arguments in (["start", "--wait"], ["status", "--json"]):
        done = subprocess.run(
            [str(built.program), *arguments],
            cwd=bench.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert {task["name"]: task["state"] for task in json.loads(done.stdout)["tasks"]} == {"exp1": "completed"}
    assert bench.log("exp1") == "said\n"
