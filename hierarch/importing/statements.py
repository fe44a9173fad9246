"""The names that a Python config binds, without running it.

Read are assignments, `update`, imports (the names only) and mmengine's `read_base`. After any other
statement, what it binds and what it mentions is `Unread`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

from hierarch.importing.expressions import BASE, Reader, parsed
from hierarch.importing.merging import merged, update
from hierarch.importing.nodes import Budget, Node, Place, Symbol, Unread, parts

Load = Callable[[str, Place], Node]
"""Reads another file of names by its path from this one: a mapping, or `Unread`."""

_ON_RECEIVER = {
    *("append", "clear", "extend", "insert", "pop", "remove", "reverse", "setdefault", "sort"),
    "update",
}
"""Methods that change what they are called on, and nothing else."""
_ON_ANYTHING = {
    *("__import__", "compile", "delattr", "eval", "exec", "globals", "locals", "setattr", "vars"),
}
"""Functions that may change any name."""


def python_tree(text: str, file: str) -> ast.Module:
    """The syntax tree of a Python config. Raises `SpecError` for text that is no Python."""
    try:
        tree = parsed(text)
    except SyntaxError as error:
        place = Place(file, error.lineno or 0, error.offset or 0)
        raise place.error(f"is not Python: {error.msg}") from None
    assert isinstance(tree, ast.Module)
    return tree


def base_files(tree: ast.Module, file: str) -> Node | None:
    """What a Python config assigns to `_base_`; None if it does not."""
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name("_base_")], value):
                return Reader(file, {}, Budget()).read(value)
    return None


def read_python(tree: ast.Module, file: str, base: Node, load: Load, budget: Budget) -> Node:
    """A mapping of the names of a Python config. `base` is what it inherits from, which the config
    sees as `_base_`."""
    module = Module(file, {BASE: base}, load, budget)
    for statement in tree.body:
        module.run(statement)
    names = {k: v for k, v in module.names.items() if not k.startswith("__") and k != BASE}
    return Node(names, Place(file, 1), module.more)


class Module(Reader):
    """The statements of one file, one after another."""

    def __init__(self, file: str, names: dict[str, Node], load: Load, budget: Budget) -> None:
        super().__init__(file, names, budget)
        self.load = load
        self.more: Node | None = None
        """What a star import may have bound."""
        self.lazy = False
        """Whether dicts of the files that it inherits from merge in `update`, as mmengine's do."""

    def run(self, statement: ast.stmt) -> None:
        if any(map(_is_wild, ast.walk(statement))):
            self._lose(statement)
            return
        match statement:
            case ast.Pass():
                return
            case ast.Import(names) | ast.ImportFrom(names=names) if names[0].name != "*":
                for name in names:
                    symbol = Symbol(name.name.rpartition(".")[2])
                    bound = name.asname or name.name.partition(".")[0]
                    self.names[bound] = Node(symbol, self.place(statement))
                return
            case ast.With([ast.withitem(ast.Call(ast.Name("read_base"), [], []))], body):
                self.lazy = True
                for inner in body:
                    self._inherit(inner)
                return
            case ast.Assign([ast.Name("_base_")]):
                return
            case ast.Assign(targets, value):
                node = self.read(value)
                for target in targets:
                    self._assign(target, node)
                return
            case ast.AnnAssign(ast.Name() as target, value=ast.expr() as value):
                self._assign(target, self.read(value))
                return
            case ast.AugAssign(ast.Name(id, ast.Store()) as target, op, value):
                before = ast.copy_location(ast.Name(id, ast.Load()), target)
                whole = ast.copy_location(ast.BinOp(before, op, value), statement)
                old, new = self.names.get(id), self.read(whole)
                if old is not None and isinstance(old.value, dict | list):
                    # in place: the object may have other names
                    old.value, old.place = new.value, new.place
                else:
                    self.lose([old] if old else [], statement, "an assignment in place")
                    self.names[id] = new
                return
            case ast.Expr(ast.Call(ast.Attribute(receiver, method)) as call):
                self._call(call, self.read(receiver), method)
                return
            case ast.Expr(value) | ast.Assert(value):
                self.read(value)
                return
        self._lose(statement)

    def _assign(self, target: ast.expr, node: Node) -> None:
        match target:
            case ast.Name(id):
                self.names[id] = node
                return
            case ast.Tuple(targets) | ast.List(targets):
                known = isinstance(node.value, list) and len(node.value) == len(targets)
                for i, one in enumerate(targets):
                    if known:
                        self._assign(one, node.value[i])
                    else:
                        what = "an unpacked assignment"
                        self._assign(one, Node(Unread(what, mentions=(node,)), self.place(target)))
                return
            case ast.Attribute(container, key):
                self._set(target, self.read(container), key, node)
                return
            case ast.Subscript(container, index):
                self._set(target, self.read(container), self.read(index).value, node)
                return
        self._lose(target)

    def _set(self, target: ast.expr, container: Node, key: object, node: Node) -> None:
        """container[key] = node."""
        match container.value, key:
            case dict() as known, str():
                known[key] = node
            case list() as items, int() if -len(items) <= key < len(items):
                items[key] = node
            case _:
                self.lose([container], target, "an assignment to a part of it")

    def _call(self, call: ast.Call, receiver: Node, method: str) -> None:
        """receiver.method(...), for what it does to the receiver."""
        if method in ("update", "merge") and isinstance(receiver.value, dict):
            # the arguments of update(x, a=1), as the items of dict(x, a=1)
            items = ast.Call(ast.Name("dict", ast.Load()), call.args, call.keywords)
            new = self.read(ast.copy_location(items, call))
            if isinstance(new.value, dict):
                if method == "update":
                    update(receiver, new, self.budget, nested=self.lazy)
                else:
                    whole = merged(new, receiver, self.budget)
                    receiver.value, receiver.more = whole.value, whole.more
                return
        arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
        for argument in arguments:
            self.read(argument)
        known = method in _ON_RECEIVER and isinstance(receiver.value, dict | list)
        if known:  # what the receiver holds does not change
            receiver.value = Unread(f"a call of {method}", mentions=tuple(parts(receiver)))
            receiver.place = self.place(call)
            return
        others = [node for argument in arguments for node in self.mentioned(argument)]
        self.lose([receiver, *others], call, f"a call of {method}")

    def _inherit(self, statement: ast.stmt) -> None:
        """`from .._base_.models.swin import *`, or names instead of the star."""
        match statement:
            case ast.ImportFrom(str() as module, aliases, int() as level) if level:
                path = "../" * (level - 1) + module.replace(".", "/") + ".py"
                found = self.load(path, self.place(statement))
                known = found.value if isinstance(found.value, dict) else {}
                if aliases[0].name == "*":
                    self.names |= known
                    self.more = (found if not found.is_read() else found.more) or self.more
                    return
                for alias in aliases:
                    missing = Node(Unread(f"what {path} does not bind"), self.place(statement))
                    self.names[alias.asname or alias.name] = known.get(alias.name, missing)
                return
        self._lose(statement)

    def _lose(self, tree: ast.stmt | ast.expr) -> None:
        """Forget what a statement binds, and what it may change."""
        what = f"a statement ({type(tree).__name__.lower()}) that may change it"
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        star = isinstance(tree, ast.ImportFrom)
        everything = star or not _ON_ANYTHING.isdisjoint(names)
        self.lose(list(self.names.values()) if everything else self.mentioned(tree), tree, what)
        lost = Node(Unread(what), self.place(tree))
        if everything:
            self.names = dict.fromkeys(self.names, lost)
            self.more = lost
        for node in ast.walk(tree):
            match node:
                case (
                    ast.Name(str() as name, ast.Store() | ast.Del())
                    | ast.FunctionDef(str() as name)
                    | ast.AsyncFunctionDef(str() as name)
                    | ast.ClassDef(str() as name)
                    | ast.alias(_, str() as name)
                    | ast.alias(str() as name, None)
                    | ast.ExceptHandler(name=str() as name)
                    | ast.MatchAs(name=str() as name)
                ):
                    self.names[name] = lost


def _is_wild(node: ast.AST) -> bool:
    """Whether a part of a statement may bind any name, or a name inside of an expression."""
    return isinstance(node, ast.NamedExpr) or (
        isinstance(node, ast.Name) and node.id in _ON_ANYTHING
    )
