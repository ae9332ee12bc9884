"""Repositories as people keep them: src layouts, editable installs, namespaces, submodules, git-lfs."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from toy_repository import AXES, ROOT, Repository, environment, net

pytestmark = pytest.mark.slow  # real processes, seconds each

OURS = Path(sysconfig.get_path("purelib"))
EXACT = ("--exact-only", "--json", *AXES)
SETUP = "from setuptools import find_packages, setup\nsetup(name='{name}', packages=find_packages({where!r}), {more})\n"
PART = """from torch import nn


def part(channels):
    return nn.Sequential(*(nn.Linear(channels, channels) for _ in range({})))
"""
PRODUCT = 14 * 14 * 32 * 32  # MACs of one linear layer


class Installed(Repository):
    """A repository, and an environment of its own that its packages are installed in."""

    def __init__(self, folder):
        super().__init__(folder / "repository")
        self.write({".gitignore": "__pycache__/\n*.egg-info/\nbuild/\nruns/\nweights/\n"})
        self.environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.environment], check=True)
        self.packages = self.environment / OURS.relative_to(sys.prefix)
        # Behind its own packages: torch, and what installs.
        (self.packages / "outer.pth").write_text(f"{OURS}\n")

    def write(self, files):
        for name, text in files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_text(text)

    def at(self, name, files):
        self.write(files)
        return self.commit(name)

    def install(self, *arguments):
        """By pip, from what is here: nothing is fetched."""
        options = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
        self.python("-m", "pip", "install", *options, *arguments).check_returncode()

    def python(self, *arguments, folder=None, **more):
        return subprocess.run(
            [self.environment / "bin" / "python", *map(str, arguments)], cwd=folder or self.folder,
            env=environment(**more), capture_output=True, text=True, timeout=600,
        )  # fmt: skip

    def ab(self, *arguments, folder=None, **more):
        return self.python("-m", "mixprof", "ab", *arguments, *EXACT, folder=folder, **more)


def judged(done):
    assert done.stdout, done.stderr
    (case,) = json.loads(done.stdout)["cases"]
    return case


def same_code_is_refused(done, *said):
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert [each for each in said if str(each) not in done.stderr] == [], done.stderr


def doubled(done):
    """HEAD's product is done twice: what it says where each side ran its own code."""
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert judged(done)["exact"]["macs"] == [PRODUCT, 2 * PRODUCT]


def two(folder, where="src", files=None, install=("-e", ".")):
    """Commits one and two, of which the second one does a product more; two is checked out and installed."""
    repository = Installed(folder)
    path = f"{where}/" if where else ""
    setup = SETUP.format(name="pkg", where=where or ".", more=f"package_dir={{'': {where!r}}}" if where else "")
    own = {"setup.py": setup, f"{path}pkg/__init__.py": "", **(files or {})}
    repository.at("one", {**own, f"{path}pkg/zoo.py": net()})
    repository.at("two", {f"{path}pkg/zoo.py": net(products=2)})
    repository.install(*install)
    return repository


@pytest.fixture(scope="module")
def src(tmp_path_factory):
    return two(tmp_path_factory.mktemp("src"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Packages in a folder whose name says nothing."""
    return two(tmp_path_factory.mktemp("odd"), "code/packages")


def test_an_editable_src_layout_is_found_by_itself(src):
    doubled(src.ab("one", "two", "--models", "pkg.zoo:mixer"))


def test_it_is_found_from_a_folder_below_and_where_the_path_names_the_users_own(src):
    (src.folder / "below").mkdir(exist_ok=True)
    doubled(src.ab("one", "--models", "pkg.zoo:mixer", folder=src.folder / "below"))
    path = os.pathsep.join((str(src.folder / "src"), str(ROOT / "src")))
    doubled(src.ab("one", "two", "--models", "pkg.zoo:mixer", PYTHONPATH=path))


def test_an_installed_copy_hides_no_difference(tmp_path):
    doubled(two(tmp_path, install=(".",)).ab("one", "two", "--models", "pkg.zoo:mixer"))


def test_what_is_imported_from_elsewhere_is_refused_by_name(odd):
    done = odd.ab("one", "two", "--models", "pkg.zoo:mixer")
    file = odd.folder / "code" / "packages" / "pkg" / "zoo.py"
    same_code_is_refused(done, f"pkg.zoo from {file}", "of BASE, one", "--pythonpath code/packages", "--prepare")


def test_the_remedies_work(odd):
    doubled(odd.ab("one", "two", "--models", "pkg.zoo:mixer", "--pythonpath", "code/packages"))
    # As `pip install -e .` would, which fetches what it builds with.
    done = odd.ab("one", "two", "--models", "pkg.zoo:mixer", "--prepare", "python setup.py --quiet develop --no-deps")
    doubled(done)


def test_bisect_takes_the_same_remedy(odd):
    arguments = ("one", "two", "--models", "pkg.zoo:mixer", "--pythonpath", "code/packages", *EXACT)
    done = odd.python("-m", "mixprof", "bisect", *arguments)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)["found"]
    assert answer["subject"] == "toy: two"
    assert answer["judged"]["exact"]["macs"] == [PRODUCT, 2 * PRODUCT]


WORDS = """
from torch import nn


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(100, 16), nn.Linear(16, 100)

    def forward(self, ids):
        return [self.head(self.table(ids)) for _ in range(TIMES)][0]


def net():
    return Words()
"""


def test_bisect_feeds_a_model_as_ab_does(tmp_path):
    repository = Installed(tmp_path)
    for times, name in ((1, "one"), (2, "two")):
        repository.at(name, {"zoo.py": WORDS.replace("TIMES", str(times))})
    arguments = ("one", "two", "--models", "zoo:net", "--input", "ids:2x7:int64", "--devices", "cpu", "--exact-only")
    done = repository.python("-m", "mixprof", "bisect", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    product = 2 * 7 * 16 * 100
    assert json.loads(done.stdout)["found"]["judged"]["exact"]["macs"] == [product, 2 * product]


@pytest.mark.parametrize("folder", ["/tmp", "../..", "nowhere"])
def test_a_module_path_that_is_no_folder_of_the_sides_is_one_line(odd, folder):
    done = odd.ab("one", "two", "--models", "pkg.zoo:mixer", "--pythonpath", folder)
    same_code_is_refused(done, "--pythonpath", "expected a folder")


def test_a_finder_that_goes_first_is_seen_through(src, tmp_path):
    """What scikit-build-core and meson-python install: not even the module path comes before it."""
    finder = src.packages / "first.pth"
    lines = (
        "import sys, importlib.machinery as m",
        f"class First:\n    find_spec = lambda self, name, path=None, target=None: (\n"
        f"        m.PathFinder.find_spec(name, [{str(src.folder / 'src')!r}]) if name == 'pkg' else None)",
        "sys.meta_path.insert(0, First())",
    )
    (src.packages / "first_finder.py").write_text("\n".join(lines))
    finder.write_text("import first_finder\n")
    try:
        done = src.ab("one", "two", "--models", "pkg.zoo:mixer")
    finally:
        finder.unlink()
    same_code_is_refused(done, src.folder / "src" / "pkg" / "zoo.py", "--prepare")


def test_a_helper_package_from_the_users_checkout_is_refused(tmp_path):
    repository = Installed(tmp_path)
    helper = {"libs/two/setup.py": SETUP.format(name="pkg2", where=".", more=""), "libs/two/pkg2/__init__.py": ""}
    user = (
        "def net(channels):\n    from pkg2.parts import part\n    return part(channels)\n"  # imported when it is built
    )
    repository.at("one", {**helper, "zoo.py": user, "libs/two/pkg2/parts.py": PART.format(1)})
    repository.at("two", {"libs/two/pkg2/parts.py": PART.format(2)})
    repository.install("-e", "libs/two")
    file = repository.folder / "libs" / "two" / "pkg2" / "__init__.py"
    same_code_is_refused(
        repository.ab("one", "two", "--models", "zoo:net"), f"pkg2 from {file}", "--pythonpath libs/two"
    )
    doubled(repository.ab("one", "two", "--models", "zoo:net", "--pythonpath", "libs/two"))
    # '.' is where it is installed from: only BASE has to be told.
    same_code_is_refused(repository.ab("one", "--models", "zoo:net"), "of BASE, one")


def test_a_copy_of_a_helper_is_refused_where_the_sides_differ_in_it(tmp_path):
    repository = Installed(tmp_path)
    helper = {
        "libs/two/setup.py": SETUP.format(name="pkg2", where=".", more=""),
        "libs/two/pkg2/__init__.py": PART.format(1),
    }
    user = "from pkg2 import part\n\n\ndef net(channels):\n    return part(channels)\n"
    repository.at("one", {**helper, "zoo.py": user})
    shutil.copytree(repository.folder / "libs" / "two" / "pkg2", repository.packages / "pkg2")  # as a wheel would
    repository.at("two", {"zoo.py": user + "# of no consequence\n"})
    done = repository.ab("one", "two", "--models", "zoo:net")  # in neither is the helper another one
    assert (done.returncode, judged(done)["verdict"]) == (0, "same"), done.stderr
    repository.at("three", {"libs/two/pkg2/__init__.py": PART.format(2)})
    same_code_is_refused(repository.ab("two", "three", "--models", "zoo:net"), repository.packages / "pkg2")


def test_parts_of_a_namespace_are_told_apart(tmp_path):
    """company.zoo is of the side, company.parts of another project, company.more of the user's checkout."""
    repository = Installed(tmp_path)
    (repository.packages / "company" / "parts").mkdir(parents=True)
    (repository.packages / "company" / "parts" / "__init__.py").write_text(PART.format(1))
    user = "from company.parts import part\n\n\ndef net(channels):\n    return {}\n"
    repository.at("one", {"src/company/zoo.py": user.format("part(channels)")})
    repository.at("two", {"src/company/zoo.py": user.format("part(channels).append(part(channels))")})
    doubled(repository.ab("one", "two", "--models", "company.zoo:net"))
    more = {"other/company/more.py": PART.format(1), "src/company/zoo.py": "from company.more import part as net\n"}
    repository.at("three", more)
    repository.at("four", {"other/company/more.py": PART.format(2)})
    (repository.packages / "other.pth").write_text(f"{repository.folder / 'other'}\n")
    done = repository.ab("three", "four", "--models", "company.zoo:net")
    same_code_is_refused(done, repository.folder / "other" / "company" / "more.py", "--pythonpath other")


def test_a_factory_that_is_handed_on_is_judged_by_where_its_code_lies(tmp_path):
    repository = Installed(tmp_path)
    (repository.packages / "strangers.py").write_text(PART.format(1))
    repository.at("one", {"zoo.py": "from strangers import part as net\n"})
    repository.at("two", {"zoo.py": "from strangers import part as net\n# of no consequence\n"})
    done = repository.ab("one", "two", "--models", "zoo:net")
    assert (done.returncode, judged(done)["verdict"]) == (0, "same"), done.stderr
    repository.at("three", {"tools/handed.py": PART.format(1), "zoo.py": "from handed import part as net\n"})
    (repository.packages / "tools.pth").write_text(f"{repository.folder / 'tools'}\n")
    same_code_is_refused(repository.ab("two", "three", "--models", "zoo:net"), "handed from", "of HEAD, three")


def test_a_model_of_neither_tree_would_be_the_same_code_twice(src):
    (src.packages / "strangers.py").write_text(PART.format(1))
    done = src.ab("one", "two", "--models", "strangers:part")
    same_code_is_refused(done, src.packages / "strangers.py", "the same code twice")
    done = src.ab("one", "two", "--models", "strangers:part", "--head-set", "lowering=compile")
    assert done.returncode == 0, done.stderr  # here the setting is what differs
    done = src.ab("one", "two", "--models", "depthwise_conv")
    assert done.returncode == 0, done.stderr
    assert "mixprof's own" in " ".join(json.loads(done.stdout)["notes"])


def test_a_package_that_base_has_not_is_new_though_it_is_installed(src):
    src.at("three", {"src/fresh/__init__.py": net()})
    src.install("-e", ".")
    done = src.ab("two", "three", "--models", "pkg.zoo:mixer,fresh:mixer")
    assert (done.returncode, judged(done)["verdict"]) == (0, "same"), done.stderr
    assert "fresh:mixer is not in BASE" in " ".join(json.loads(done.stdout)["notes"])
    done = src.ab("three", "two", "--models", "fresh:mixer")
    assert (done.returncode, judged(done)["verdict"]) == (1, "missing"), done.stderr


def incomparable(done, *said):
    assert done.returncode == 4, (done.stdout, done.stderr)
    assert judged(done)["verdict"] == "incomparable"
    reason = judged(done)["reason"]
    assert [each for each in said if str(each) not in reason] == [], reason


def test_a_model_that_base_cannot_import_is_no_pass(tmp_path):
    repository = Installed(tmp_path)
    repository.at("broken", {"zoo.py": "import a_module_that_nobody_has\n" + net()})
    repository.at("mended", {"zoo.py": net()})
    incomparable(repository.ab("broken", "mended", "--models", "zoo:mixer"), "a_module_that_nobody_has")
    done = repository.ab("broken", "mended", "--models", "zoo:mixer", "--on-incomparable", "pass")
    assert done.returncode == 0, done.stderr  # whoever says so
    # A function that the file of BASE does not name is new.
    repository.at("more", {"zoo.py": net() + "\n\ndef added(channels):\n    return mixer(channels)\n"})
    done = repository.ab("mended", "more", "--models", "zoo:mixer,zoo:added")
    assert (done.returncode, judged(done)["verdict"]) == (0, "same"), done.stderr


def test_an_ignored_checkpoint_is_named_and_how_to_get_it(tmp_path):
    repository = Installed(tmp_path)
    user = "import torch\nfrom torch import nn\n\n\ndef net(channels):\n    module = nn.Linear(channels, channels)\n"
    user += "    module.load_state_dict(torch.load('weights/net.pt'))\n    return module\n"
    repository.at("one", {"zoo.py": user})
    save = "import torch; torch.save(torch.nn.Linear(32, 32).state_dict(), 'weights/net.pt')"
    (repository.folder / "weights").mkdir()
    repository.python("-c", save).check_returncode()
    (repository.folder / "zoo.py").write_text(user + "# of no consequence\n")
    done = repository.ab("one", "--models", "zoo:net")
    remedy = f"mkdir -p weights && cp {repository.folder / 'weights' / 'net.pt'} weights"
    incomparable(done, "'weights/net.pt' is not in this commit", remedy)
    done = repository.ab("one", "--models", "zoo:net", "--prepare", remedy)
    assert (done.returncode, judged(done)["verdict"]) == (0, "same"), done.stderr


def test_an_ignored_module_is_not_new(tmp_path):
    repository = Installed(tmp_path)
    repository.at("one", {".gitignore": "generated.py\n__pycache__/\n", "other.py": ""})
    (repository.folder / "generated.py").write_text(net())
    incomparable(repository.ab("one", "--models", "generated:mixer"), "No module named 'generated'")


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    repository = Installed(tmp_path)
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4242\n"
    user = "import torch\n\n\ndef net(channels):\n"
    user += "    torch.load('net.bin')\n    return torch.nn.Linear(channels, channels)\n"
    repository.at("one", {"net.bin": pointer, "zoo.py": user})
    repository.python("-c", "import torch; torch.save({}, 'net.bin')").check_returncode()
    incomparable(repository.ab("one", "--models", "zoo:net"), "'net.bin' is a pointer of git-lfs")


@pytest.fixture
def with_submodule(tmp_path):
    """The factory is in a submodule, which differs between one and two."""
    part = Repository(tmp_path / "part")
    (part.folder / "part.py").write_text(PART.format(1))
    part.commit("one")
    repository = Installed(tmp_path)
    repository.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", part.folder, "vendor/part")
    repository.at("one", {"zoo.py": "from vendor.part.part import part as net\n"})
    inner = Repository(repository.folder / "vendor" / "part")
    (inner.folder / "part.py").write_text(PART.format(2))
    inner.commit("two")
    repository.commit("two")
    return repository


def test_a_submodule_is_checked_out_from_the_users_own_clone(with_submodule):
    before = with_submodule.state()
    doubled(with_submodule.ab("one", "two", "--models", "zoo:net"))
    doubled(with_submodule.ab("one", "--models", "vendor.part.part:part"))
    assert with_submodule.state() == before
    inner = Repository(with_submodule.folder / "vendor" / "part")
    assert (inner.git("status", "--porcelain"), len(inner.work_trees())) == ("", 1)


def test_a_submodule_that_this_machine_has_not_is_named(with_submodule):
    clone = with_submodule.folder / ".git" / "modules" / "vendor" / "part"
    with_submodule.git("checkout", "--quiet", "-b", "other")
    clone.rename(clone.with_name("elsewhere"))
    (with_submodule.folder / "vendor" / "part" / ".git").unlink()
    said = ("submodule 'vendor/part' is not checked out", "git submodule update --init")
    incomparable(with_submodule.ab("one", "--models", "zoo:net"), *said)
    incomparable(with_submodule.ab("one", "--models", "vendor.part.part:part"), *said)  # not new
