"""What the names in a piece of Python stand for: imports, aliases, variables, and the dotted path of an expression."""

import ast
import builtins
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Path = tuple[str, ...]

CALLED, ITEM, UNKNOWN = "()", "[]", "*"
BUILTINS = frozenset(dir(builtins))
_DEPTH = 8  # of variables that stand for variables

_ALIASES: dict[str, Path] = {
    alias: tuple(path.split("."))
    for alias, path in {
        "np": "numpy", "pd": "pandas", "plt": "matplotlib.pyplot", "mpl": "matplotlib", "sns": "seaborn",
        "tf": "tensorflow", "nx": "networkx", "pl": "polars", "jnp": "jax.numpy", "sm": "statsmodels.api",
        "F": "torch.nn.functional", "nn": "torch.nn", "st": "streamlit", "sp": "scipy", "xr": "xarray",
        "da": "dask.array", "dd": "dask.dataframe", "sk": "sklearn", "sa": "sqlalchemy", "bs4": "bs4",
        "cv2": "cv2", "px": "plotly.express", "go": "plotly.graph_objects", "lgb": "lightgbm", "xgb": "xgboost",
    }.items()
}  # fmt: skip
# Packages, and sub-modules that are imported by name (`from scipy import signal`); an unknown root is a variable.
_PACKAGES_TEXT = """
    numpy pandas scipy sklearn torch tensorflow keras matplotlib seaborn networkx polars jax flax dask xarray flask
    werkzeug django fastapi pydantic sqlalchemy requests httpx urllib3 aiohttp transformers datasets evaluate peft
    trl accelerate huggingface_hub tokenizers openai langchain nltk spacy gensim statsmodels attr attrs click
    marshmallow pymongo redis yaml jinja2 bs4 lxml selenium webdriver boto boto3 plotly chart_studio bokeh streamlit
    pyspark psutil pyparsing pytest markupsafe imageio pkg_resources packaging setuptools distutils imp PIL sympy
    mlab integrate signal stats special misc linalg optimize interpolate ndimage sparse spatial fftpack cluster
    cross_validation model_selection grid_search preprocessing impute decomposition metrics ensemble linear_model
    feature_extraction pipes cgi commands urllib2 optim models fields forms exceptions
"""
_PACKAGES = frozenset(_PACKAGES_TEXT.split())
# Modules of the standard library whose names are also common names of variables.
_ALSO_VARIABLES_TEXT = """
    array calendar cmd code copy email numbers profile queue resource select site stat string symbol test this token
    trace types parser
"""
_ALSO_VARIABLES = frozenset(_ALSO_VARIABLES_TEXT.split())


_TYPES: dict[str, type] = {kind.__name__: kind for kind in (list, dict, set, tuple, str, bytes)}
_LITERALS: tuple[tuple[tuple[type[ast.expr], ...], type], ...] = (
    ((ast.List, ast.ListComp), list),
    ((ast.Dict, ast.DictComp), dict),
    ((ast.Set, ast.SetComp), set),
    ((ast.Tuple,), tuple),
    ((ast.JoinedStr,), str),
)


@dataclass
class Names:
    """What names stand for in one answer.

    Attributes:
        imports: the path of each imported name.
        stars: modules whose names were all imported.
        values: the expression that a variable was last set to.
        own: functions and classes that the code defines.
    """

    imports: dict[str, Path] = field(default_factory=dict)
    stars: list[Path] = field(default_factory=list)
    values: dict[str, ast.expr | None] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)

    def read(self, tree: ast.AST) -> None:
        """Take over what a tree imports, defines and sets."""
        for node in _nodes(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.own.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.withitem):
                self._assign(node)
            elif isinstance(node, ast.arg):
                self.values[node.arg] = None

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            path = tuple(alias.name.split("."))
            self.imports[alias.asname or path[0]] = path if alias.asname else path[:1]

    def _import_from(self, node: ast.ImportFrom) -> None:
        module = tuple((node.module or "").split(".")) if node.module else ()
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
            else:
                self.imports[alias.asname or alias.name] = (*module, alias.name)

    def _assign(self, node: ast.Assign | ast.AnnAssign | ast.NamedExpr | ast.withitem) -> None:
        if isinstance(node, ast.withitem):
            targets, value = [node.optional_vars], node.context_expr
        else:
            targets, value = (node.targets if isinstance(node, ast.Assign) else [node.target]), node.value
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                mine = any(isinstance(each, ast.Name) and each.id == target.id for each in ast.walk(value))
                self.values[target.id] = None if mine else value
            elif isinstance(target, ast.Tuple | ast.List):
                self.values.update({each.id: None for each in target.elts if isinstance(each, ast.Name)})

    def value(self, node: ast.expr) -> ast.expr:
        """The expression that a variable stands for; any other expression is itself."""
        for _ in range(_DEPTH):
            found = self.values.get(node.id) if isinstance(node, ast.Name) else None
            if found is None:
                break
            node = found
        return node

    def builtin_type(self, node: ast.AST) -> type | None:
        """The builtin type of an expression that is, or stands for, a literal or a call of that type."""
        value = self.value(node) if isinstance(node, ast.expr) else node
        if isinstance(value, ast.Constant):
            return type(value.value)
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            return _TYPES.get(value.func.id)
        return next((kind for forms, kind in _LITERALS if isinstance(value, forms)), None)

    def path(self, node: ast.AST, depth: int = 0) -> Path:
        """The dotted path of an expression, with `()` and `[]` where it calls or indexes, from `*` if nameless."""
        parts: list[str] = []
        while True:
            if isinstance(node, ast.Attribute):
                parts.append(node.attr)
                node = node.value
            elif isinstance(node, ast.Call):
                parts.append(CALLED)
                node = node.func
            elif isinstance(node, ast.Subscript):
                parts.append(ITEM)
                node = node.value
            elif isinstance(node, ast.Await):
                node = node.value
            else:
                break
        root = self._root(node, depth) if isinstance(node, ast.Name) else (UNKNOWN,)
        return (*root, *reversed(parts))

    def _root(self, node: ast.Name, depth: int) -> Path:
        name = node.id
        if name in self.own:
            return ("<own>", name)
        if name in self.imports:
            return self.imports[name]
        if name in self.values:
            value = self.values[name]
            if value is None or depth > _DEPTH:
                return (UNKNOWN, name)
            path = self.path(value, depth + 1)
            return path if path[0] != UNKNOWN or len(path) > 1 else (UNKNOWN, name)
        return _ALIASES.get(name, (name,))

    def is_imported(self, path: Path) -> bool:
        """Whether the code itself imports what a path begins at."""
        return any(path[0] == each[0] for each in self.imports.values() if each)

    def is_module(self, path: Path) -> bool:
        """Whether a path begins at a module or an imported name."""
        return self.is_imported(path) or is_package(path[0])


def clean(path: Path) -> Path:
    """The names of a path."""
    return tuple(part for part in path if part not in (CALLED, ITEM))


def is_package(root: str) -> bool:
    """Whether a root is the name of a package that is known, and hardly that of a variable."""
    return root in _PACKAGES or (root in sys.stdlib_module_names and root not in _ALSO_VARIABLES)


def is_class(name: str) -> bool:
    """Whether a name is written like a class."""
    return name[:1].isupper() and any(char.islower() for char in name)


def names_of(trees: Iterable[ast.AST]) -> Names:
    """Read the names of several trees in order."""
    names = Names()
    for tree in trees:
        names.read(tree)
    return names


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree in the order of its text, so that a later assignment replaces an earlier one."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(list(ast.iter_child_nodes(node)))
