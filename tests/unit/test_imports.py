"""Importing engrec defines names and changes nothing: no logging, warnings, environment, or state of Hydra."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "engrec").rglob("*.py"))
MODULES = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

# Other packages set variables and filters of their own when they are imported, so they come first.
COMPARED = """
import importlib, json, logging, os, sys, warnings

lines, modules = json.loads(sys.argv[1])
for line in lines:
    exec(line, {})

import optuna
from hydra.core.config_store import ConfigStore
from omegaconf.basecontainer import BaseContainer

def state():
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "root logger": [root.level, len(root.handlers)],
        "levels": {n: l.level for n, l in root.manager.loggerDict.items() if isinstance(l, logging.Logger) and l.level},
        "warnings": [str(entry) for entry in warnings.filters],
        "resolvers": sorted(BaseContainer._resolvers),
        "configurations": sorted(ConfigStore.instance().repo),
        "optuna": optuna.logging.get_verbosity(),
    }

before = state()
for name in modules:
    importlib.import_module(name)
print(json.dumps([before, state()]))
"""


def imports_from_elsewhere():
    """The lines by which engrec's modules import other packages when they are imported themselves."""
    statements = [s for path in FILES for s in ast.parse(path.read_text(encoding="utf-8")).body]
    lines = {ast.unparse(s) for s in statements if isinstance(s, ast.Import | ast.ImportFrom)}
    return sorted(line for line in lines if not line.startswith(("from engrec", "import engrec")))


def is_definition(statement):
    """A docstring, an import, a function or class, or a name that gets a value."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.If):
        return ast.unparse(statement.test) == "TYPE_CHECKING"
    if isinstance(statement, ast.Assign):
        targets = [t for target in statement.targets for t in getattr(target, "elts", [target])]
        return all(isinstance(target, ast.Name) for target in targets)
    if isinstance(statement, ast.AnnAssign):
        return isinstance(statement.target, ast.Name)
    return isinstance(statement, DEFINITIONS)


@pytest.mark.parametrize("path", FILES, ids=MODULES)
def test_a_module_only_defines(path):
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert [f"line {s.lineno}: {ast.unparse(s)}" for s in statements if not is_definition(s)] == []


@pytest.mark.parametrize(
    "code", ["f()", "for x in y: pass", "while x: pass", "with x: pass", "x.y = 1", "x[0] = 1", "x |= {1: 2}", "del x"]
)
def test_what_is_more_than_a_definition_is_found(code):
    [statement] = ast.parse(code).body
    assert not is_definition(statement)


def test_importing_all_modules_changes_no_state():
    arguments = json.dumps([imports_from_elsewhere(), MODULES])
    done = subprocess.run([sys.executable, "-c", COMPARED, arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert after == before
    assert after["root logger"] == [30, 0]  # WARNING, no handler
    assert not {"logged_in", "run_name", "sweep_name", "num_gpus", "not", "mode"} & set(after["resolvers"])
    assert "schema.yaml" not in after["configurations"]
