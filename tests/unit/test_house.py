"""What `benchmarks/house.py` counts."""

import ast
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = {
    "api/__init__.py": "",
    "headrace/store/jobs.py": "class Job:\n    class State:\n        pass\n\n\nasked = 'class Text: pass'\n",
    "headrace/store/sql/claim.sql": "SELECT 1\n",
    "headrace/broker/lua/take.lua": "return 1\n-- end\n",
    "headrace/store/notes.md": "not counted\n",
    "migrations/versions/__init__.py": "",
    "migrations/versions/0001_baseline.py": "revision = 1\n",
    "plugins/demo/__init__.py": "class Demo: ...\n",
    "plugins/demo/tests/unit/test_demo.py": "assert True\n",
    "tests/test_job.py": "class TestJob:\n    pass\n",
    "benchmarks/other.py": "class Other: ...\n",
}


def test_files_lines_and_classes_are_counted_core_plugins_and_tests_apart(tmp_path: Path) -> None:
    for name, text in EXAMPLE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    ask = "import sys; from pathlib import Path; import house; print(house.measure(Path(sys.argv[1])))"
    command = [sys.executable, "-c", ask, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT / "benchmarks", capture_output=True, text=True, check=True).stdout
    core = {"core_files": 6, "core_lines": 10, "core_classes": 2}
    plugins = {"plugins_files": 1, "plugins_lines": 1, "plugins_classes": 1}
    tests = {"tests_files": 2, "tests_lines": 3, "tests_classes": 1}
    assert eval(told) == {**core, **plugins, **tests, "migrations": 1}


#: What two classes may be called, and why.
SAME_NAMES = {"UsageBody": "names of the OpenAPI document"}


def test_no_two_classes_of_the_product_have_one_name() -> None:
    places = defaultdict[str, list[str]](list)
    for top in ("api", "headrace", "ops", "plugins", "scheduler", "workers"):
        for path in (each for each in (ROOT / top).rglob("*.py") if "tests" not in each.parts):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: files for name, files in places.items() if len(files) > 1 and name not in SAME_NAMES} == {}
