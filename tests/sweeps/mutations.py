"""Small changes of Python code: another operator, a limit moved by one, a statement left out.

What is left alone: annotations, decorators, text, what stands in a `raise` or makes an error (its words are tested by
the pages that quote them), and `strict=` of `zip`, which guards what cannot happen.
"""

from __future__ import annotations

import ast
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
BOUNDARIES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
OPPOSITES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
#: Of nodes, the fields that are left alone.
LEFT_ALONE = {"annotation", "returns", "decorator_list", "type_params", "type_comment"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)
#: Letters of a change that a page shows of each side.
SHOWN = 110


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    #: Path in the checkout.
    module: str
    #: The outermost function in which it is; empty for code that runs when the module is imported.
    function: str
    kind: str
    change: str
    #: Among equal changes of the function.
    number: int
    #: Among all changes of the module.
    place: int
    lines: range = field(hash=False, compare=False)
    #: What an import-time statement gives names to.
    names: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A name that other changes of the file do not touch."""
        again = f" ({self.number + 1})" if self.number else ""
        return f"{self.module} {self.function or '(module)'}: {self.change}{again}"


@dataclass
class Change:
    """A node that is put in the place of another."""

    kind: str
    parent: ast.AST
    name: str
    index: int | None
    new: ast.AST
    old: ast.AST
    function: str
    names: tuple[str, ...]
    #: The expression or statement that a reader is shown.
    shown: ast.AST

    def put(self, node: ast.AST) -> None:
        """Put a node in this place."""
        if self.index is None:
            setattr(self.parent, self.name, node)
        else:
            getattr(self.parent, self.name)[self.index] = node

    def described(self) -> str:
        """Both sides as code. Of numbers and signs, what they stand in."""
        if isinstance(self.old, ast.stmt):
            return f"without `{shortened(ast.unparse(self.old))}`"
        before = ast.unparse(self.shown)
        self.put(self.new)
        after = ast.unparse(self.new if self.shown is self.old else self.shown)
        self.put(self.old)
        return f"`{shortened(before)}` → `{shortened(after)}`"


def shortened(text: str) -> str:
    """The first line or so of code."""
    one_line = " ".join(text.split()).replace("|", "¦").replace("`", "'")
    return one_line if len(one_line) <= SHOWN else f"{one_line[: SHOWN - 1]}…"


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Every change of a module, in the order of its code."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for place, change in enumerate(changes_of(ast.parse(source))):
        described = change.described()
        number = seen[change.function, described]
        seen[change.function, described] += 1
        lines = range(change.old.lineno, (change.old.end_lineno or change.old.lineno) + 1)
        if isinstance(change.old, ast.stmt):
            lines = lines[:1]
        found.append(Mutant(module, change.function, change.kind, described, number, place, lines, change.names))
    return found


def mutated(source: str, place: int, path: str) -> CodeType:
    """A module with one change, compiled. place: of the mutant."""
    tree = ast.parse(source)
    for found, change in enumerate(changes_of(tree)):
        if found == place:
            change.put(ast.fix_missing_locations(change.new))
            return compile(tree, path, "exec", dont_inherit=True)
    raise ValueError(f"{path} has no change {place}")


def line_mark(function: str, text: str) -> int:
    """A number for a line of a function, the same wherever in the file that is."""
    return zlib.crc32(f"{function}|{text.strip()}".encode())


def functions_by_line(source: str) -> dict[int, str]:
    """Of each line in a function, the name of the outermost one."""
    found: dict[int, str] = {}

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, FUNCTIONS):
                found.update(dict.fromkeys(range(node.body[0].lineno, (node.end_lineno or 0) + 1), prefix + node.name))
            elif isinstance(node, ast.ClassDef):
                look(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, BLOCKS):
                look(node.body, prefix)

    look(ast.parse(source).body, "")
    return found


def function_states(source: str) -> dict[str, str]:
    """What each outermost function does, as text without its words; under the empty name what runs at import."""
    found: dict[str, str] = {}

    def look(node: ast.AST, prefix: str) -> None:
        for part in ast.iter_child_nodes(node):
            if isinstance(part, FUNCTIONS):
                found[prefix + part.name] = ast.dump(part)
                part.body = []
            else:
                look(part, f"{prefix}{part.name}." if isinstance(part, ast.ClassDef) else prefix)

    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    look(tree, "")
    return found | {"": ast.dump(tree)}


def changes_of(tree: ast.Module) -> Iterator[Change]:
    """The changes of a parsed module, in the order of its code."""
    yield from Walk().body(tree, "body", tree.body)


@dataclass
class Walk:
    """Where in a module the walk is."""

    #: Of classes and, once in one, the outermost function.
    prefix: str = ""
    function: str = ""
    names: tuple[str, ...] = ()
    #: Of the function: names that have a value already.
    assigned: set[str] = field(default_factory=set)
    in_block: bool = False

    def body(self, parent: ast.AST, name: str, statements: list[ast.stmt]) -> Iterator[Change]:
        for index, node in enumerate(statements):
            if is_docstring(node) or isinstance(node, ast.Import | ast.ImportFrom):
                continue
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                continue
            if not self.function:
                self.names = names_given(node, self.prefix)
            if self.function and self.can_go(node):
                yield self.change("dropped statement", parent, name, index, ast.Pass(), node, node)
            yield from self.statement(node)

    def can_go(self, node: ast.stmt) -> bool:
        """Whether the function still runs without a statement, for all its syntax says."""
        if isinstance(node, ast.Expr):
            return not isinstance(node.value, ast.Yield | ast.YieldFrom | ast.Constant)
        if isinstance(node, ast.Return):
            return self.in_block
        if isinstance(node, ast.Assign):
            return all(
                not isinstance(part, ast.Name) or part.id in self.assigned
                for target in node.targets
                for part in (target.elts if isinstance(target, ast.Tuple) else [target])
            )
        return isinstance(node, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)

    def statement(self, node: ast.stmt) -> Iterator[Change]:
        if isinstance(node, ast.ClassDef):
            inner = Walk(f"{self.prefix}{node.name}.", self.function, self.names, self.assigned, self.in_block)
            yield from inner.body(node, "body", node.body)
            return
        if isinstance(node, FUNCTIONS):
            # Defaults are computed when the function is defined.
            yield from self.expression(node.args, node, "args", None, node.args)
            arguments = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
            inner = Walk(self.prefix, self.function or self.prefix + node.name, (), self.assigned | arguments)
            yield from inner.body(node, "body", node.body)
            return
        if isinstance(node, ast.Raise):
            return
        for name, value in ast.iter_fields(node):
            if name in LEFT_ALONE:
                continue
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                within = Walk(self.prefix, self.function, self.names, self.assigned, self.in_block or is_block(node))
                yield from within.body(node, name, value)
            else:
                yield from self.parts(node, name, value, None)
        self.assigned |= {part.id for part in ast.walk(node) if is_stored(part)}

    def parts(self, node: ast.AST, name: str, value: Any, shown: ast.AST | None) -> Iterator[Change]:
        if isinstance(value, ast.AST):
            yield from self.expression(value, node, name, None, shown)
        elif isinstance(value, list):
            for index, part in enumerate(value):
                if isinstance(part, ast.ExceptHandler):
                    within = Walk(self.prefix, self.function, self.names, self.assigned, True)
                    yield from within.body(part, "body", part.body)
                elif isinstance(part, ast.AST):
                    yield from self.expression(part, node, name, index, shown)

    def expression(
        self, node: ast.AST, parent: ast.AST, name: str, index: int | None, shown: ast.AST | None
    ) -> Iterator[Change]:
        if makes_an_error(node) or (isinstance(node, ast.keyword) and node.arg == "strict"):
            return
        for kind, new in replacements(node, is_condition=name in {"test", "ifs"}):
            yield self.change(kind, parent, name, index, new, node, shown or (parent if name == "value" else node))
        # Of a place in an array one wants to see which array.
        within = shown if shown is not None and isinstance(node, ast.Slice | ast.Tuple | ast.UnaryOp) else node
        for inner, value in ast.iter_fields(node):
            if inner not in LEFT_ALONE:
                yield from self.parts(node, inner, value, within)

    def change(
        self, kind: str, parent: ast.AST, name: str, index: int | None, new: ast.AST, old: ast.AST, shown: ast.AST
    ) -> Change:
        return Change(kind, parent, name, index, ast.copy_location(new, old), old, self.function, self.names, shown)


def replacements(node: ast.AST, *, is_condition: bool) -> Iterator[tuple[str, ast.expr]]:
    """What may stand in the place of an expression, each with its kind."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not (isinstance(node.left, ast.Constant) and isinstance(node.left.value, str)):
            yield "arithmetic", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Compare):
        for at, operator in enumerate(node.ops):
            for kind, others in (("boundary", BOUNDARIES), ("comparison", OPPOSITES)):
                if type(operator) in others:
                    operators = [*node.ops[:at], others[type(operator)](), *node.ops[at + 1 :]]
                    yield kind, ast.Compare(node.left, operators, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "boolean", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp):
        if not isinstance(node.operand, ast.Constant):
            yield ("boolean" if isinstance(node.op, ast.Not) else "arithmetic"), node.operand
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool):
            yield "boolean", ast.Constant(not node.value)
        elif isinstance(node.value, int | float):
            yield "constant", ast.Constant(node.value + 1)
            yield "constant", ast.Constant(node.value - 1)
    elif is_condition and isinstance(node, ast.expr):
        yield "boolean", ast.UnaryOp(ast.Not(), node)


def makes_an_error(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called.endswith("Error")


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_block(node: ast.AST) -> bool:
    return isinstance(node, BLOCKS)


def is_stored(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def names_given(node: ast.stmt, prefix: str) -> tuple[str, ...]:
    """What a statement of a module or class gives a value to; of a class, the class."""
    if prefix:
        return (prefix.split(".")[0],)
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return (node.name,)
    return tuple(part.id for part in ast.walk(node) if is_stored(part))
