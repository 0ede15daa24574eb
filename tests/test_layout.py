"""The folders say what is what: which module may import which."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
METHOD = ("arrays", "autodiff", "envs", "policies", "stopping", "es", "metarl")
HARNESS = [f"harness.{path.stem}" for path in (ROOT / "harness").glob("*.py")]


def is_main(node):
    """`if __name__ == "__main__":`, in which metarl.py hands over to the command line."""
    return isinstance(node, ast.If) and "__main__" in ast.dump(node.test)


def imported(name, root=ROOT):
    """The modules of the project that a module imports, wherever in it the import stands."""
    path = root / (name.replace(".", "/") + ".py")
    body = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if not is_main(node)]
    names = set()
    for node in ast.walk(ast.Module(body, [])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names & {*METHOD, *HARNESS}


@pytest.mark.parametrize("name", METHOD)
def test_the_method_never_imports_harness(name):
    assert imported(name) <= set(METHOD)


@pytest.mark.parametrize("name", ["arrays", "envs", "stopping"])
def test_what_stands_alone(name):
    assert imported(name) == set()


@pytest.mark.parametrize("name, needed", [("autodiff", "arrays"), ("es", "stopping")])
def test_what_needs_one_other(name, needed):
    assert imported(name) == {needed}


def test_no_circles():
    """graphlib.CycleError names the circle."""
    graph = {name: imported(name) for name in (*METHOD, *HARNESS)}
    order = list(TopologicalSorter(graph).static_order())
    assert order.index("autodiff") < order.index("policies") < order.index("metarl")
    assert order.index("metarl") < order.index("harness.settings") < order.index("harness.cli")


def test_imports_are_found_wherever_they_stand(tmp_path):
    (tmp_path / "es.py").write_text("def f():\n    from policies import g\n")
    (tmp_path / "policies.py").write_text(
        "import es\nif __name__ == '__main__':\n    import envs\n"
    )
    assert imported("es", tmp_path) == {"policies"}
    assert imported("policies", tmp_path) == {"es"}
