"""Runs every example: doctests of the library, and the fences of README and docs.

Fences of one file share a namespace and a temporary working directory. See docs/fences.py.
"""

import os
import sys
from contextlib import ExitStack, contextmanager
from doctest import ELLIPSIS
from pathlib import Path

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.parsers.rest import DocTestParser

import hierarch
from hierarch.ablation.grid import GRID, Grid
from hierarch.spec import documents as yaml_documents
from hierarch.spec import registry
from hierarch.spec.reader import parse
from hierarch.train.recipe import RECIPE

if "PYTEST_XDIST_WORKER" in os.environ:  # a process a core; read when torch is imported
    os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parent / "docs"))
import fences

OPENED = "__opened__"


@contextmanager
def own_registries():
    """Removes what a document registered, after it: parts, count rules, report formats, layouts."""
    from hierarch.complexity import counter
    from hierarch.report import FORMATS
    from hierarch.weights import registry as layouts

    rules, formats, libraries = dict(counter._RULES), dict(FORMATS), layouts.libraries()
    try:
        yield
    finally:
        for parts in registry._registered.values():
            for name, cls in list(parts.items()):
                # an example's class may say that it is of the module whose example it is
                home = sys.modules.get(cls.__module__)
                if home is None or vars(home).get(cls.__name__) is not cls:
                    del parts[name]
        counter._RULES.clear()
        counter._RULES.update(rules)
        FORMATS.clear()
        FORMATS.update(formats)
        for library in layouts._registered.keys() - libraries:
            del layouts._registered[library]


def set_up(namespace):
    namespace[OPENED] = stack = ExitStack()
    stack.enter_context(fences.workplace())
    stack.enter_context(own_registries())


def tear_down(namespace):
    namespace.pop(OPENED).close()


def console(example):
    return fences.check(example.parsed)


def spec(example):
    """Loads a `yaml` fence as a spec, as a recipe if it has epochs, or as a grid if it has arms. A
    spec without stages is completed to a small network."""
    text = example.parsed
    fences.save(text)
    if "hooks:" in text or "uses:" in text:
        return  # no document of hierarch's: tests/test_ci.py compares it with hooks and action
    if "arms:" in text:
        yaml_documents.validate(parse(text, kind=GRID), Grid, GRID)
        return
    if "epochs:" in text:
        yaml_documents.validate(parse(text, kind=RECIPE), hierarch.Recipe, RECIPE)
        return
    if "stages:" not in text:
        text += "stages: [{dim: 96, depth: 2}]\n"
    if "mixer:" not in text:
        text += "mixer: identity\n"
    hierarch.loads(text)


class Python(PythonCodeBlockParser):
    """Python that is also saved where its first line names a file."""

    def __call__(self, document):
        for region in super().__call__(document):
            region.evaluator = saving(region.evaluator)
            yield region


def saving(evaluator):
    def evaluate(example):
        fences.save(str(example.parsed))
        return evaluator(example)

    return evaluate


class Docstring(DocTestParser):
    """Examples of docstrings, compiled as a reader's own lines are: what the module imports from
    `__future__`, by which annotations are text, is not for them."""

    def __call__(self, document):
        for region in super().__call__(document):
            region.evaluator = without_future(region.evaluator)
            yield region


def without_future(evaluator):
    def evaluate(example):
        example.namespace.pop("annotations", None)
        return evaluator(example)

    return evaluate


documents = Sybil(
    parsers=[
        Python(doctest_optionflags=ELLIPSIS),
        CodeBlockParser("yaml", spec),
        CodeBlockParser("console", console),
    ],
    patterns=["README.md", "docs/*.md", "docs/api/*.md"],
    setup=set_up,
    teardown=tear_down,
)
docstrings = Sybil(
    parsers=[Docstring(ELLIPSIS)],
    patterns=["hierarch/*.py", "hierarch/*/*.py", "hierarch/*/*/*.py"],
    setup=set_up,
    teardown=tear_down,
)

pytest_collect_file = (documents + docstrings).pytest()
