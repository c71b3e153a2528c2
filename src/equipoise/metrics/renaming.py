"""Python trees without what does not change a function: docstrings, annotations, and the names of its locals."""

import ast
from collections.abc import Iterable, Iterator

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Strip(ast.NodeTransformer):
    """Drop docstrings and annotations, which change nothing that a function returns."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: Function) -> ast.AST:
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.returns = node.type_comment = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = node.type_comment = None
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is None:
            return ast.Pass()
        return ast.Assign(targets=[node.target], value=self.visit(node.value), lineno=node.lineno)


class Rename(ast.NodeTransformer):
    """Number the names that a function binds, in the order in which they are met; no identifier is called `0`.

    Names bound by an import keep their meaning and so their name. So does any name that is also written as a keyword of
    a call, where a parameter's name is part of what the code does.
    """

    def __init__(self, tree: ast.AST):
        self.scopes: list[dict[str, str | None]] = []
        self.count = 0
        self.kept = {node.arg for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg}

    def _name(self, name: str) -> str:
        for scope in reversed(self.scopes):
            if name in scope:
                if scope[name] is None:
                    scope[name], self.count = str(self.count), self.count + 1
                return scope[name] or name
        return name

    def _open(self, bound: Iterable[str]) -> None:
        self.scopes.append({name: name if name in self.kept else None for name in bound})

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._name(node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self._name(node.arg)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = node.name and self._name(node.name)
        return self.generic_visit(node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = sorted(self._name(name) for name in node.names)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: Function) -> ast.AST:
        node.name = self._name(node.name)
        node.decorator_list = [self.visit(decorator) for decorator in node.decorator_list]
        self._defaults(node.args)
        self._open({*_parameters(node.args), *_bound(node.body)} - _declared(node.body))
        self._visit_parameters(node.args)
        node.body = [self.visit(statement) for statement in node.body]
        self.scopes.pop()
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        self._defaults(node.args)
        self._open(_parameters(node.args))
        self._visit_parameters(node.args)
        node.body = self.visit(node.body)
        self.scopes.pop()
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.name = self._name(node.name)
        self.scopes.append({name: name for name in _bound(node.body)})
        self.generic_visit(node)
        self.scopes.pop()
        return node

    def _defaults(self, args: ast.arguments) -> None:
        args.defaults = [self.visit(value) for value in args.defaults]
        args.kw_defaults = [value and self.visit(value) for value in args.kw_defaults]

    def _visit_parameters(self, args: ast.arguments) -> None:
        for arg in _arguments(args):
            self.visit(arg)

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        return self._comprehension(node)

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        return self._comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        return self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        return self._comprehension(node)

    def _comprehension(self, node: Comprehension) -> ast.AST:
        node.generators[0].iter = self.visit(node.generators[0].iter)  # evaluated in the scope around it
        first, *rest = node.generators
        self._open(name for generator in node.generators for name in _stored(generator.target))
        first.target, first.ifs = self.visit(first.target), [self.visit(test) for test in first.ifs]
        node.generators = [first, *(self.visit(generator) for generator in rest)]
        for field in ("key", "value", "elt"):
            if hasattr(node, field):
                setattr(node, field, self.visit(getattr(node, field)))
        self.scopes.pop()
        return node


def _arguments(args: ast.arguments) -> list[ast.arg]:
    every = [*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg]
    return [arg for arg in every if arg is not None]


def _parameters(args: ast.arguments) -> list[str]:
    return [arg.arg for arg in _arguments(args)]


def _stored(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _own(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk the nodes of a scope without those of the scopes inside it; what `:=` binds in a comprehension is here."""
    waiting = list(statements)
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Comprehension):
            waiting += [inner.target for inner in ast.walk(node) if isinstance(inner, ast.NamedExpr)]
        elif not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)


def _bound(statements: Iterable[ast.AST]) -> set[str]:
    names = set()
    for node in _own(statements):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, Function | ast.ClassDef) or (isinstance(node, ast.ExceptHandler) and node.name):
            names.add(node.name)
    return names - _imported(statements)


def _imported(statements: Iterable[ast.AST]) -> set[str]:
    nodes = [node for node in _own(statements) if isinstance(node, ast.Import | ast.ImportFrom)]
    return {alias.asname or alias.name.partition(".")[0] for node in nodes for alias in node.names}


def _declared(statements: Iterable[ast.AST]) -> set[str]:
    """Name what `global` and `nonlocal` take out of a scope."""
    return {name for node in _own(statements) if isinstance(node, ast.Global | ast.Nonlocal) for name in node.names}
