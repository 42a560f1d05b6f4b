"""What editors and type checkers say of the library's users: ``python -m tests.typing``; 0 if all of it is right.

mypy (``--strict``) and pyright look at every example of the documentation and at ``right_uses.py``, which have to be
clean, and at ``wrong_uses.py``, each marked line of which has to be reported, by both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dbtestcase

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGE = str(Path(dbtestcase.__file__).parents[1])  # checkers do not find an editable installation by themselves

# Flask-SQLAlchemy's db.Model is made while the program runs: mypy has no class for it.
MYPY_OPTIONS = {
    "flask_shop": ["--disable-error-code=name-defined", "--allow-subclassing-any"],
    "behaviour": ["--allow-untyped-decorators"],  # neither do behave and Celery for theirs
    "commands_and_tasks": ["--allow-untyped-decorators"],
    "frameworks": ["--allow-subclassing-any"],  # testresources brings no types
}
PYRIGHT_OPTIONS = {
    "flask_shop": {"reportCallIssue": "none"},  # and pyright does not know what makes its instances
    "commands_and_tasks": {"reportFunctionMemberAccess": "none"},  # Celery's decorator has no type: it gives a task
}

Place = tuple[str, int]  # a file below the folder, and a line
Reports = dict[Place, list[str]]
Revealed = dict[Place, str]


def run_mypy(folder: Path) -> tuple[Reports, Revealed]:
    """The errors in each folder of a folder, and what is revealed there."""
    reports: Reports = defaultdict(list)
    revealed: Revealed = {}
    for project in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "cache"):
        command = [sys.executable, "-m", "mypy", "--config-file=", "--strict", "--output=json"]
        command += [f"--cache-dir={folder / 'cache'}", "--follow-imports=silent", "--disable-error-code=import-untyped"]
        done = subprocess.run(
            [*command, *MYPY_OPTIONS.get(project.name, []), "."],
            cwd=project,
            env=os.environ | {"MYPYPATH": PACKAGE},
            capture_output=True,
            text=True,
        )
        if done.returncode > 1 or done.stderr:
            raise SystemExit(f"mypy broke down in {project.name}:\n{done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            message = json.loads(line) if line.startswith("{") else {"severity": "summary", "message": line}
            if found := re.fullmatch(r'Revealed type is "(.*)"', message["message"]):
                revealed[f"{project.name}/{message['file']}", message["line"]] = found[1]
            elif message["severity"] == "error":
                reports[f"{project.name}/{message['file']}", message["line"]].append(message["message"])
    return reports, revealed


def run_pyright(folder: Path) -> tuple[Reports, Revealed]:
    """The same, by pyright."""
    projects = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name != "cache")
    config = {
        "include": projects,
        "executionEnvironments": [
            {"root": name, "extraPaths": [PACKAGE], **PYRIGHT_OPTIONS.get(name, {})} for name in projects
        ],
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    try:
        messages = json.loads(done.stdout)["generalDiagnostics"]
    except ValueError:
        raise SystemExit(f"pyright broke down:\n{done.stdout}{done.stderr}") from None
    reports: Reports = defaultdict(list)
    revealed: Revealed = {}
    for message in messages:
        file = Path(message["file"]).resolve().relative_to(folder.resolve())
        place = file.as_posix(), message["range"]["start"]["line"] + 1
        if found := re.match(r'Type of ".*" is "(.*)"$', message["message"]):
            revealed[place] = found[1]
        elif message["severity"] == "error":
            reports[place].append(message["message"])
    return reports, revealed


def problems(folder: Path) -> Iterator[str]:
    """Everything that is not as it should be, a line for each.

    :param folder: an empty one, for copies of what is looked at.
    """
    shutil.copytree(ROOT / "docs" / "examples", folder, dirs_exist_ok=True)
    (folder / "typing_uses").mkdir()
    expected: Revealed = {}
    marked: set[Place] = set()
    for path in (HERE / "right_uses.py", HERE / "wrong_uses.py"):
        shutil.copy(path, folder / "typing_uses")
        for number, line in enumerate(path.read_text().splitlines(), 1):
            place = f"typing_uses/{path.name}", number
            if line.endswith("# wrong"):
                marked.add(place)
            elif match := re.match(r" *reveal_type.*# is: (.*)$", line):
                expected[place] = match[1]
    for name, (reports, revealed) in {"mypy": run_mypy(folder), "pyright": run_pyright(folder)}.items():
        for (file, line_number), messages in sorted(reports.items()):
            if (file, line_number) not in marked:
                yield from (f"{file}:{line_number}: {name}: {each.splitlines()[0]}" for each in messages)
        yield from (f"{file}:{number}: {name} sees nothing wrong" for file, number in sorted(marked - reports.keys()))
        shown = {place: re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", type_) for place, type_ in revealed.items()}
        for place in sorted(expected.keys() | shown.keys()):
            if shown.get(place) != expected.get(place):
                yield f"{place[0]}:{place[1]}: {name} reveals {shown.get(place)}, not {expected.get(place)}"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="dbtestcase-typing-") as temporary:
        found = list(problems(Path(temporary)))
    print("\n".join(found) or "mypy and pyright see what is right and what is wrong")
    sys.exit(bool(found))
