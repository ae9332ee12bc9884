"""Put the type stubs of TensorRT where mypy and the tests look for them: .venv/stubs.

    .venv/bin/python scripts/type_stubs.py

Not installed like a package: it would bring the whole of TensorRT 10.13 with it, and a folder `tensorrt` of nothing
but stubs, which Python imports without a word. As published they are no valid Python, so a few lines are mended.
"""

import ast
import subprocess
import sys
import tempfile
from pathlib import Path

STUBS = Path(sys.prefix) / "stubs"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
MENDS = {  # what the generator wrote -> what can be parsed
    "self, in: ": "self, in_: ",
    "self: IPluginV3, in: ": "self: IPluginV3, in_: ",
    "power: Weights = None, channel_axis: int)": "power: Weights = None, channel_axis: int = ...)",
}


def mended(text: str) -> str:
    """A stub file that can be parsed; SyntaxError when more is wrong with it than is known."""
    for wrong, right in MENDS.items():
        text = text.replace(wrong, right)
    ast.parse(text)
    return text


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="mixprof-stubs-") as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, "-c", str(CONSTRAINTS), "tensorrt-stubs"], check=True)
        files = {path.relative_to(folder): mended(path.read_text()) for path in Path(folder).glob("tensorrt*/*.pyi")}
    for name, text in files.items():
        (STUBS / name).parent.mkdir(parents=True, exist_ok=True)
        (STUBS / name).write_text(text)


if __name__ == "__main__":
    main()
