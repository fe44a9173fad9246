"""Expressions of a Python config as values, without running them.

Read are literals, names bound before, dict(...), list(...), tuple(...), items, attributes of dicts,
and arithmetic. Everything else is `Unread`, and whatever it might change becomes `Unread` as well.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from hierarch.importing.nodes import Budget, Node, Place, Symbol, Unread, is_number, parts

MAX_DEPTH = 60
"""Levels of an expression."""
MAX_INTEGER = 2**63
MAX_REPEATS = 1024
"""Of a list that is multiplied."""

BASE = "_base_"
_TEMPLATE = re.compile(r"\{\{\s*_base_\.([\w.]+)\s*\}\}")
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_PURE = {
    *("abs", "all", "any", "bool", "bytes", "deepcopy", "dict", "enumerate", "float", "frozenset"),
    *("int", "isinstance", "len", "list", "max", "min", "print", "range", "repr", "reversed"),
    *("round", "set", "slice", "sorted", "str", "sum", "tuple", "type", "zip"),
}
"""Functions that change nothing."""
_PURE_METHODS = {
    *("copy", "count", "deepcopy", "endswith", "format", "get", "index", "items", "join", "keys"),
    *("lower", "replace", "split", "startswith", "strip", "upper", "values"),
}
_NAMES = {
    ast.JoinedStr: "an f-string",
    ast.Lambda: "a function",
    ast.IfExp: "a condition",
    ast.Compare: "a comparison",
    ast.BoolOp: "a condition",
    ast.ListComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
}


class Reader:
    """Reads the expressions of one file; `names` holds what its statements have bound."""

    def __init__(self, file: str, names: dict[str, Node], budget: Budget) -> None:
        self.file, self.names, self.budget = file, names, budget

    def place(self, tree: Any) -> Place:
        return Place(self.file, getattr(tree, "lineno", 0), getattr(tree, "col_offset", -1) + 1)

    def read(self, tree: ast.expr, depth: int = 0) -> Node:
        """The value of an expression, `Unread` if that takes running it."""
        place = self.place(tree)
        self.budget.spend(1, place)
        if depth > MAX_DEPTH:
            return self.unread(tree, "an expression that is nested too deeply")
        match tree:
            case ast.Constant(value):
                return self._constant(tree, value)
            case ast.Name(id):
                if id in self.names:
                    return self.names[id]
                return Node(Unread(f"the name {id!r}, which is not set before"), place)
            case ast.List(elements) | ast.Tuple(elements):
                return self._list(tree, elements, depth)
            case ast.Dict(keys, values):
                return self._dict(tree, list(zip(keys, values, strict=True)), depth)
            case ast.Call(ast.Name("dict"), arguments, keywords) if "dict" not in self.names:
                items: list[tuple[ast.expr | None, ast.expr]] = [(None, a) for a in arguments]
                items += [(ast.Constant(k.arg) if k.arg else None, k.value) for k in keywords]
                return self._dict(tree, items, depth)
            case ast.Call(ast.Name("list" | "tuple" as kind), [one], []) if kind not in self.names:
                node = self.read(one, depth + 1)
                if isinstance(node.value, list):
                    self.budget.spend(len(node.value), place)
                    return Node([*node.value], place)
            case ast.Attribute(value, attr):
                return self._item(tree, self.read(value, depth + 1), attr)
            case ast.Subscript(value, index):
                key = self.read(index, depth + 1).value
                if type(key) in (str, int):
                    return self._item(tree, self.read(value, depth + 1), key)
            case ast.BinOp(left, op, right):
                return self._operation(
                    tree, op, self.read(left, depth + 1), self.read(right, depth + 1)
                )
            case ast.UnaryOp(sign, operand):
                found = self.read(operand, depth + 1).value
                if isinstance(sign, ast.USub) and is_number(found):
                    return Node(-found, place)
                if isinstance(sign, ast.Not) and isinstance(found, bool):
                    return Node(not found, place)
            case ast.Set([ast.Set([ast.Attribute() as chain])]):  # {{_base_.depths}}
                return self.read(chain, depth + 1)
        return self.unread(tree)

    def unread(self, tree: ast.AST, what: str = "") -> Node:
        """The node of an expression that is not read. What it might change is lost with it."""
        what = what or _described(tree)
        mentioned = self.mentioned(tree)
        if self.may_change(tree):
            self.lose(mentioned, tree, what)
        return Node(Unread(what, mentions=tuple(mentioned)), self.place(tree))

    def mentioned(self, tree: ast.AST) -> list[Node]:
        """What the names in a tree stand for."""
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        self.budget.spend(len(names), self.place(tree))
        return [self.names[name] for name in sorted(names) if name in self.names]

    def may_change(self, tree: ast.AST) -> bool:
        """Whether running an expression could change a value that it mentions."""
        return any(
            isinstance(node, ast.NamedExpr)
            or (isinstance(node, ast.Call) and not self._is_pure(node))
            for node in ast.walk(tree)
        )

    def _is_pure(self, call: ast.Call) -> bool:
        """Whether a function, by its name, changes nothing, and calls none that it is given."""
        if any(keyword.arg in (None, "key", "default", "file") for keyword in call.keywords):
            return False
        match call.func:
            case ast.Name(id):
                known = self.names.get(id)
                return id in _PURE and (known is None or isinstance(known.value, Symbol))
            case ast.Attribute(attr=attr):
                return attr in _PURE_METHODS
        return False

    def lose(self, nodes: Iterable[Node], tree: ast.AST, what: str) -> None:
        """Make nodes, and all that they hold or mention, `Unread`: something may change them."""
        reason, place = Unread(what), self.place(tree)
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if isinstance(node.value, Unread):
                mentioned = node.value.mentions
                node.value = replace(node.value, mentions=())
                waiting.extend(mentioned)
            elif isinstance(node.value, dict | list):  # other values cannot change
                waiting.extend(parts(node))
                node.value, node.place = reason, place

    def _constant(self, tree: ast.Constant, value: object) -> Node:
        place = self.place(tree)
        if isinstance(value, str) and "{{" in value:
            if found := _TEMPLATE.fullmatch(value):
                node = self.names.get(BASE, Node({}, place))
                for key in found[1].split("."):
                    node = self._item(tree, node, key)
                return node
            return self.unread(tree, "a template")
        known = value is None or isinstance(value, bool | int | float | str)
        if not known or (isinstance(value, int) and abs(value) >= MAX_INTEGER):
            return self.unread(tree, "a number that is too large" if known else "")
        return Node(value, place)

    def _list(self, tree: ast.expr, items: list[ast.expr], depth: int) -> Node:
        found: list[Node] = []
        for item in items:
            if isinstance(item, ast.Starred):
                node = self.read(item.value, depth + 1)
                if not isinstance(node.value, list):
                    return self.unread(tree, "a list with an unpacked part")
                self.budget.spend(len(node.value), node.place)
                found.extend(node.value)
            else:
                found.append(self.read(item, depth + 1))
        return Node(found, self.place(tree))

    def _dict(
        self, tree: ast.expr, items: list[tuple[ast.expr | None, ast.expr]], depth: int
    ) -> Node:
        found: dict[str, Node] = {}
        for key, value in items:
            node = self.read(value, depth + 1)
            if key is None:  # **another
                if not isinstance(node.value, dict) or node.more:
                    return self.unread(tree, "a dict with an unpacked part")
                self.budget.spend(len(node.value), node.place)
                found |= node.value
                continue
            name = self.read(key, depth + 1).value
            if type(name) not in (str, int):
                return self.unread(tree, "a dict with a computed key")
            found[str(name)] = node
        return Node(found, self.place(tree))

    def _item(self, tree: ast.expr, node: Node, key: str | int) -> Node:
        """node[key], or node.key of a dict."""
        value, found = node.value, None
        if isinstance(value, dict):
            found = value.get(str(key))
        elif isinstance(value, list) and isinstance(key, int) and -len(value) <= key < len(value):
            found = value[key]
        if isinstance(found, Node):
            return found
        if isinstance(value, dict | list) and node.more is None:
            return Node(Unread(f"an item {key!r}, which is not there"), self.place(tree))
        return Node(Unread("an item of what is not read", mentions=(node,)), self.place(tree))

    def _operation(self, tree: ast.expr, op: ast.operator, left: Node, right: Node) -> Node:
        a, b, place = left.value, right.value, self.place(tree)
        compute = _OPERATORS.get(type(op))
        if compute and is_number(a) and is_number(b) and not (b == 0 and not isinstance(op, _SUM)):
            try:
                value = compute(a, b)
            except OverflowError:
                return self.unread(tree, "a number that is too large")
            if abs(value) < MAX_INTEGER:
                return Node(value, place)
        if isinstance(op, ast.Add) and isinstance(a, list) and isinstance(b, list):
            self.budget.spend(len(a) + len(b), place)
            return Node([*a, *b], place)
        if isinstance(op, ast.Add) and isinstance(a, str) and isinstance(b, str):
            self.budget.spend((len(a) + len(b)) // 64, place)
            return Node(a + b, place)
        repeats = isinstance(op, ast.Mult) and isinstance(a, list) and type(b) is int
        if repeats and 0 <= b * len(a) <= MAX_REPEATS:
            self.budget.spend(b * len(a), place)
            return Node(a * b, place)
        return self.unread(tree)


_SUM = (ast.Add, ast.Sub, ast.Mult)


def _described(tree: ast.AST) -> str:
    match tree:
        case ast.Call(func):
            name = ast.unparse(func) if isinstance(func, ast.Name | ast.Attribute) else "a function"
            return f"a call of {name[:60]}"
        case ast.BinOp():
            return "an operation on what is no number"
    return _NAMES.get(type(tree), "an expression of Python")


def parsed(text: str, mode: Literal["exec", "eval"] = "exec") -> ast.Module | ast.Expression:
    """The syntax tree of a text of bounded length. Raises `SyntaxError` for whatever is none."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes in its strings
            tree = ast.parse(text, mode=mode)
    except (MemoryError, RecursionError):
        raise SyntaxError("nested too deeply") from None
    except ValueError as error:
        raise SyntaxError(str(error)) from None
    assert isinstance(tree, ast.Module | ast.Expression)
    return tree


def literal(text: str) -> Any:
    """The value of text that is a literal of Python, such as "(2, 2)" and "None"; else the text."""
    if len(text) > 200:
        return text
    try:
        tree = parsed(text, "eval")
    except SyntaxError:
        return text
    assert isinstance(tree, ast.Expression)
    node = Reader("", {}, Budget()).read(tree.body)
    items = node.value if isinstance(node.value, list) else [node]
    if not all(isinstance(item.value, bool | int | float | str | None) for item in items):
        return text
    return [item.value for item in items] if items is node.value else node.value
