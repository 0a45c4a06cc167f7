"""Rules of the house that import-linter cannot hold."""

import ast
import io
import re
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("client", "server", "shared", "simulation")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
CORE = sorted((ROOT / "shared" / "privacy").glob("*.py"))

MAX_MODULE_LINES = 400
MAX_BODY_LINES = 40
MAX_CORE_CODE_LINES = 980
MAX_CORE_LINES = 1805

# library -> the only places that may import it, as patterns under the repository
PLACES = {
    "flwr": (
        "*/app.py",
        "server/rounds.py",
        "server/asking.py",
        "server/replies.py",
        "server/deployed.py",
        "server/launcher.py",
        "server/flower_accounting.py",
        "client/launcher.py",
        "shared/parts.py",
        "simulation/run.py",
        "simulation/grid.py",
        "simulation/*engine*.py",
        "simulation/benchmarks/engines.py",
        "simulation/benchmarks/floor_app.py",
        "simulation/benchmarks/masked_sum.py",
    ),
    "tenseal": ("simulation/benchmarks/masked_sum.py",),
    "torch": ("shared/models/networks/*.py", "client/dpsgd.py", "simulation/step_cost.py"),
    "opacus": ("client/dpsgd.py",),
    "pandas": (
        "client/sources/*.py",
        "client/dataset*.py",
        "simulation/**/*.py",
        "simulation/*.py",
    ),
    "sqlalchemy": ("client/sources/*.py",),
    "psycopg": ("client/sources/*.py",),
    "pymysql": ("client/sources/*.py",),
    "duckdb": ("client/sources/*.py",),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "joblib": (),
    "random": (),
}
PLACES["pyarrow"] = (*PLACES["pandas"], "client/serving/files.py")
CORE_LIBRARIES = {"numpy", "dp_accounting", "cryptography"}


def _name(path):
    return path.relative_to(ROOT).as_posix()


def _tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path):
    """Top-level names of everything that a module imports from elsewhere, at any depth."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).partition(".")[0]


def _dotted(node):
    """`a.b.c` of names joined by dots, "" for anything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _calls(path):
    return [_dotted(node.func) for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]


def _callers(name):
    return {_name(p) for p in MODULES if any(c.rpartition(".")[2] == name for c in _calls(p))}


def _code_lines(path):
    """Numbers of the lines that hold code: no blank line, comment, docstring or import."""
    source = path.read_text(encoding="utf-8")
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in (*silent, tokenize.ENDMARKER):
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def _functions(path):
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _body_lines(function):
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


each_module = pytest.mark.parametrize("path", MODULES, ids=_name)


@pytest.mark.parametrize("library", PLACES)
def test_library_is_imported_only_where_it_belongs(library):
    strangers = [
        _name(path)
        for path in MODULES
        if library in _imports(path) and not any(path.match(place) for place in PLACES[library])
    ]
    assert strangers == []


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_core_imports_numbers_accounting_and_ciphers_only(path):
    assert set(_imports(path)) - sys.stdlib_module_names <= CORE_LIBRARIES


@each_module
def test_randomness_is_passed_in_and_never_global(path):
    """`np.random.default_rng(...)` and types are all that may be taken from it."""
    allowed = {"default_rng", "Generator", "SeedSequence"}
    for node in ast.walk(_tree(path)):
        dotted = _dotted(node) if isinstance(node, ast.Attribute) else ""
        if dotted.startswith(("np.random.", "numpy.random.")):
            assert dotted.split(".")[2] in allowed
        assert not dotted.startswith(("torch.manual_seed", "torch.seed", "random.seed"))


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_core_draws_noise_from_its_own_stream_only(path):
    source = path.read_text(encoding="utf-8")
    assert not any(word in source for word in ("np.random", "numpy.random", "torch", "pickle"))
    assert not {"random", "secrets"} & set(_imports(path))


def test_system_randomness_is_read_for_noise_and_for_masks_only():
    assert _callers("urandom") == {"shared/privacy/noise.py", "shared/secagg/keys.py"}


def test_one_door_makes_private_updates():
    assert _callers("PrivateUpdate") == {"shared/privacy/release.py"}


def test_clipped_sums_are_made_by_clipping_only():
    assert _callers("ClippedSum") == {"shared/privacy/clipping.py", "shared/privacy/gradients.py"}


def test_samples_are_drawn_by_the_noise_stream_only():
    assert _callers("Sample") == {"shared/privacy/noise.py"}


def test_debits_are_made_by_the_ledger_only():
    assert _callers("Debit") == {"shared/privacy/ledger.py"}


def test_release_is_called_by_the_agent_only():
    assert _callers("release") | _callers("release_steps") <= {"client/agent.py"}


def test_frozen_values_of_the_core_are_not_rebuilt_outside_of_it():
    """`dataclasses.replace` on a ClippedSum, Debit or PrivateUpdate would be a second door."""
    core = {_name(path) for path in CORE}
    doors = {"ClippedSum", "Debit", "PrivateUpdate", "Sample"}
    for name in _callers("replace") - core:
        source = ast.walk(_tree(ROOT / name))
        imported = {a.name for n in source if isinstance(n, ast.ImportFrom) for a in n.names}
        assert not (doors & imported and "replace" in imported), name


def test_nothing_but_parts_becomes_a_flower_message():
    makers = _callers("ConfigRecord") | _callers("ArrayRecord") | _callers("MetricRecord")
    assert makers <= {"shared/parts.py", "simulation/benchmarks/floor_app.py"}


def test_core_can_be_read_by_one_auditor():
    core = [path for path in CORE if path.name != "audit.py"]
    assert sum(len(_code_lines(path)) for path in core) <= MAX_CORE_CODE_LINES
    assert sum(len(p.read_text().splitlines()) for p in core) <= MAX_CORE_LINES


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_a_typed_package(room):
    assert (ROOT / room / "py.typed").is_file()
    folders = {path.parent for path in MODULES if path.is_relative_to(ROOT / room)}
    assert all((folder / "__init__.py").is_file() for folder in folders)


@each_module
def test_module_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


@each_module
def test_function_bodies_are_short(path):
    long = {f.name: n for f in _functions(path) if (n := _body_lines(f)) > MAX_BODY_LINES}
    assert long == {}


@each_module
def test_functions_take_at_most_five_arguments_by_position(path):
    for function in _functions(path):
        positional = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
        count = len(positional) - (positional[:1] in (["self"], ["cls"]))
        assert count <= 5, function.name


@each_module
def test_assert_is_for_tests(path):
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(_tree(path)))


def test_test_files_have_distinct_names():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_every_direct_dependency_was_tested_in_one_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(name for few in extras.values() for name in few)]
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = {line.partition("==")[0] for line in pinned if not line.startswith("#")}
    names = {re.match(r"[\w-]+", name)[0] for name in wanted} - {"fondaco", "pip"}
    assert names - tested == set()
