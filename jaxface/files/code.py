"""Which files of a package decide what one of its modules does, found by following imports."""

import ast
import importlib.util
from pathlib import Path


def imported_files(module: str) -> list[Path]:
    """The source files of a module and of all that it imports from its own package, directly or through others.

    Imports inside functions count. Nothing is run, and only the package itself is imported to find its folder.

    Args:
        module: its full name, such as "jaxface.synthetic.source".

    Returns:
        Files in alphabetical order.
    """
    package = module.partition(".")[0]
    found: dict[str, Path] = {}
    open_names = [module]
    while open_names:
        name = open_names.pop()
        path = None if name in found else _source(name)
        if path is None:
            continue
        found[name] = path
        # A folder's own file is run before what is in it; the package's, which imports lazily, decides nothing.
        folder = name.rpartition(".")[0]
        if folder not in ("", package):
            open_names.append(folder)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            else:
                continue
            open_names += [one for one in names if one.startswith(f"{package}.")]
    return sorted(set(found.values()))


def _source(module: str) -> Path | None:
    """The file of a module or package; None for a name that is neither (a function, say)."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent if spec is not None and spec.origin else Path()
    path = folder.joinpath(*rest)
    candidates = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)
