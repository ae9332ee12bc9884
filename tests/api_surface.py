"""Which names of TensorRT our code touches, from its syntax trees: the variables' classes are followed."""

import ast
from dataclasses import dataclass
from pathlib import Path

MODULES = ("trt", "package")  # what our functions call the module
RETURNS = {  # what TensorRT's own functions make
    "create_network": "INetworkDefinition",
    "create_builder_config": "IBuilderConfig",
    "create_optimization_profile": "IOptimizationProfile",
    "build_serialized_network": "IHostMemory",
    "create_timing_cache": "ITimingCache",
    "get_timing_cache": "ITimingCache",
    "get_error": "ParserError",
    "deserialize_cuda_engine": "ICudaEngine",
    "create_engine_inspector": "EngineInspector",
    "create_runtime_config": "IRuntimeConfig",
    "create_execution_context": "IExecutionContext",
    "get_tensor_dtype": "DataType",
}


@dataclass(frozen=True)
class Use:
    """One name that is touched: an attribute of a class, or with `owner` "" of the module itself."""

    owner: str
    name: str
    guarded: bool  # hasattr or getattr asks for it, or for what it comes with
    where: str


def uses_of(source: str, file: str = "") -> set[Use]:
    """Every name of TensorRT that a source file touches."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    makes = {each.name: _annotated(each.returns) for each in functions}
    known: dict[str, str] = {}
    found: set[Use] = set()
    for _ in range(3):  # an attribute of self may be set below where it is used
        for function in functions:
            found |= _Function(function, makes, known, file).uses()
    return found


def _annotated(node: ast.expr | None) -> str:
    """ "IBuilderConfig" of the annotation `stubs.IBuilderConfig`."""
    stub = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "stubs"
    return node.attr if stub and isinstance(node, ast.Attribute) else ""


def _asked(node: ast.AST) -> set[str]:
    """Names that hasattr or getattr asks for somewhere below a node."""
    return {
        str(call.args[1].value)
        for call in ast.walk(node)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("hasattr", "getattr")
        if len(call.args) > 1 and isinstance(call.args[1], ast.Constant)
    }


class _Function:
    """One function's names. known: "self.x" -> class, shared by the functions of a file."""

    def __init__(self, node: ast.FunctionDef, makes: dict[str, str], known: dict[str, str], file: str):
        self.node, self.makes, self.known, self.file = node, makes, known, file
        self.local = {each.arg: _annotated(each.annotation) for each in node.args.args}
        self.asked = _asked(node)
        branches = [each for each in ast.walk(node) if isinstance(each, ast.If) and _asked(each.test)]
        self.within = {id(part) for branch in branches for each in branch.body for part in ast.walk(each)}

    def uses(self) -> set[Use]:
        for node in ast.walk(self.node):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._learn(target, node.value)
            elif isinstance(node, ast.AnnAssign) and node.value is not None:
                self._learn(node.target, node.value)
        return {use for node in ast.walk(self.node) if isinstance(node, ast.Attribute) for use in self._use(node)}

    def _learn(self, target: ast.expr, value: ast.expr) -> None:
        names = [part for part in ast.walk(target) if isinstance(part, (ast.Name, ast.Attribute))]
        if (kind := self._instance(value)) and len(names) in (1, 2):
            (self.known if isinstance(target, ast.Attribute) else self.local)[ast.unparse(target)] = kind

    def _instance(self, node: ast.expr) -> str:
        """The class of TensorRT that an expression is an instance of; "" for any other."""
        if isinstance(node, (ast.Name, ast.Attribute)):
            text = ast.unparse(node)
            return self.local.get(text, "") or self.known.get(text, "")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = node.func.value, node.func.attr
            if isinstance(owner, ast.Name) and owner.id in MODULES:
                return name
            if self._instance(owner):
                return RETURNS.get(name, "")
            return self.makes.get(name, "")
        return ""

    def _use(self, node: ast.Attribute) -> list[Use]:
        owner = node.value
        if isinstance(owner, ast.Name) and owner.id in MODULES:
            return [self._of("", node)]
        if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id in MODULES:
            return [self._of(owner.attr, node)]
        kind = self._instance(owner)
        return [self._of(kind, node)] if kind else []

    def _of(self, owner: str, node: ast.Attribute) -> Use:
        guarded = node.attr in self.asked or id(node) in self.within
        return Use(owner, node.attr, guarded, f"{self.file}:{node.lineno}")


def stub_names(folder: Path) -> dict[str, set[str]]:
    """Class -> its names, inherited ones included, of TensorRT's type stubs; "" -> those of the module."""
    bodies = {
        node.name: node
        for file in ("tensorrt_bindings/tensorrt.pyi", "tensorrt_bindings/__init__.pyi")
        for node in ast.parse((folder / file).read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    top = ast.parse((folder / "tensorrt/__init__.pyi").read_text()).body
    names = {alias.asname or alias.name for node in top if isinstance(node, ast.ImportFrom) for alias in node.names}
    return {"": names | _declared(top), **{name: _inherited(name, bodies) for name in bodies}}


def _inherited(name: str, bodies: dict[str, ast.ClassDef]) -> set[str]:
    bases = [each.id for each in bodies[name].bases if isinstance(each, ast.Name) and each.id in bodies]
    return _declared(bodies[name].body).union(*(_inherited(each, bodies) for each in bases))


def _declared(body: list[ast.stmt]) -> set[str]:
    found = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Assign):
            found |= {each.id for each in node.targets if isinstance(each, ast.Name)}
    return found
