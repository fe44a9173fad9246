"""The GitHub Action's scripts and the pre-commit hooks, on repositories with good and bad specs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from environments import ROOT, environment, output, run
from ruamel.yaml import YAML

ACTION = YAML(typ="safe").load(ROOT / "action.yml")
HOOKS = {hook["id"]: hook for hook in YAML(typ="safe").load(ROOT / ".pre-commit-hooks.yaml")}
GOOD = """name: good
mixer: {type: window_attention, head_dim: 8, window_size: 4}
stages: [{dim: 16, depth: 1}, {dim: 32, depth: 1}]
"""
QUADRATIC = GOOD.replace("good", "slow").replace(
    "{type: window_attention, head_dim: 8, window_size: 4}", "{type: global_attention, head_dim: 8}"
)
BAD = GOOD.replace("depth: 1}]", "deepth: 1}]")


@pytest.fixture
def repository(tmp_path):
    """A folder with a good spec, and a YAML file that is none and in another place."""
    (tmp_path / "specs" / "deep").mkdir(parents=True)
    (tmp_path / "specs" / "deep" / "good net.yaml").write_text(GOOD)
    (tmp_path / "mkdocs.yaml").write_text("site_name: no spec\n")
    return tmp_path


# the action


class Action:
    """Runs the steps of action.yml as GitHub does: `bash -eo pipefail` on each script."""

    def __init__(self, programs):
        self.programs = programs

    def steps(self, **inputs):
        """Each step that is not left out, as its script and its environment."""
        said = {name: about["default"] for name, about in ACTION["inputs"].items()} | inputs
        known = {f"inputs.{name}": value for name, value in said.items()}
        known["github.action_path"] = str(ROOT)
        for step in ACTION["runs"]["steps"]:
            assert step["shell"] == "bash"
            if "if" in step:
                name, wanted = re.fullmatch(r"(inputs\.\w+) == '(\w+)'", step["if"]).groups()
                if known[name] != wanted:
                    continue
            variables = {
                name: re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found[1]], value)
                for name, value in step["env"].items()
            }
            assert "${{" not in step["run"]
            yield step["run"], variables

    def bash(self, script, folder, variables):
        path = f"{self.programs}:/usr/bin:/bin"
        command = ("bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
        return run(*command, cwd=folder, PATH=path, **variables)

    def __call__(self, folder, **inputs):
        """(status, stdout, stderr) of the steps after the installation, up to one that fails."""
        out = err = ""
        for script, variables in [*self.steps(**inputs)][1:]:
            done = self.bash(script, folder, variables)
            out, err = out + done.stdout, err + done.stderr
            if done.returncode:
                return done.returncode, out, err
        return 0, out, err


@pytest.fixture(scope="module")
def action(tmp_path_factory):
    """The action, after its first step: hierarch is installed from the action's own folder."""
    folder = tmp_path_factory.mktemp("action")
    action = Action(environment(folder / "env"))
    script, variables = next(action.steps())
    done = action.bash(script, folder, variables)
    assert done.returncode == 0, done.stderr
    return action


def test_the_action_passes_a_repository_of_good_specs(action, repository):
    status, out, err = action(repository)
    assert (status, err) == (0, "")
    assert "specs/deep/good net.yaml: ok, good, 2 stages, 2 blocks" in out
    assert "linear: the claimed cost per token stays bounded" in out
    assert "no spec" not in out


def test_the_action_fails_for_a_mistake_and_says_where(action, repository):
    (repository / "specs" / "bad.yaml").write_text(BAD)
    status, _, err = action(repository)
    assert status == 2
    assert "specs/bad.yaml:3:41: stages[1].deepth: unknown key 'deepth'" in err


def test_the_action_fails_for_a_cost_that_is_not_linear_unless_told_otherwise(action, repository):
    (repository / "specs" / "slow.yaml").write_text(QUADRATIC)
    status, _, err = action(repository, sizes="64,128")
    assert status == 1
    assert "slow is superlinear" in err
    assert action(repository, linear="false")[0] == 0


def test_the_action_fails_where_no_file_matches(action, repository):
    status, _, err = action(repository, specs="spec/**/*.yaml")
    assert (status, err) == (1, "no file matches: spec/**/*.yaml\n")
    status, _, err = action(repository, specs="specs/gone.yaml")
    assert status == 2
    assert "specs/gone.yaml: no such file" in err


def test_inputs_of_the_action_are_no_scripts(action, repository):
    text = "$(touch ran) `touch ran` ; touch ran ' \" --plugin"
    assert action(repository, specs=text)[0] == 2
    status, _, err = action(repository, sizes=text)
    assert status == 2
    assert "--sizes" in err
    assert not (repository / "ran").exists()
    (repository / "--help.yaml").write_text(GOOD)
    _, out, _ = action(repository, specs="--help.yaml", linear="false")
    assert out == "--help.yaml: ok, good, 2 stages, 2 blocks\n"


# the hooks


@pytest.fixture(scope="module")
def hooks(tmp_path_factory):
    """A git repository with what the hooks are installed from."""
    source = tmp_path_factory.mktemp("hooks")
    for name in ("hierarch", "specs", "recipes"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".pre-commit-hooks.yaml"):
        shutil.copy(ROOT / name, source)
    commit(source)
    return source


def commit(folder):
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    output(*git, "init", "-q", cwd=folder)
    output(*git, "add", "-A", cwd=folder)
    output(*git, "commit", "-qm", "test", cwd=folder)


def test_pre_commit_runs_the_hooks_on_a_repositorys_specs(hooks, repository, tmp_path_factory):
    home = tmp_path_factory.mktemp("pre-commit")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    revision = output("git", "rev-parse", "HEAD", cwd=hooks).strip()
    config = {"repo": str(hooks), "rev": revision, "hooks": [{"id": name} for name in HOOKS]}
    (repository / ".pre-commit-config.yaml").write_text(json.dumps({"repos": [config]}))

    def tried(*arguments):
        """What they are installed in is made once."""
        return run(
            *(sys.executable, "-m", "pre_commit", "run", *arguments, "--all-files"),
            cwd=repository,
            PRE_COMMIT_HOME=home,
            PYTHONPATH=packages,  # so that pip finds there what hierarch needs
        )

    commit(repository)
    done = tried("--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("Passed") == 2
    assert "no spec" not in done.stdout
    (repository / "specs" / "bad.yaml").write_text(BAD)
    (repository / "specs" / "slow.yaml").write_text(QUADRATIC)
    output("git", "add", "-A", cwd=repository)
    done = tried("hierarch-validate")
    assert done.returncode == 1
    assert "specs/bad.yaml:3:41: stages[1].deepth: unknown key 'deepth'" in done.stdout
    output("git", "rm", "-qf", "specs/bad.yaml", cwd=repository)
    done = tried("hierarch-linear")
    assert done.returncode == 1
    assert "slow is superlinear" in done.stdout


# the page


def test_the_page_shows_hooks_and_inputs_that_there_are():
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    yaml = YAML(typ="safe")
    configs = [yaml.load(text) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    [hooks] = [config["repos"][0]["hooks"] for config in configs if "repos" in config]
    [step] = [config["steps"][0] for config in configs if "steps" in config]
    assert {hook["id"] for hook in hooks} == HOOKS.keys()
    assert step["with"].keys() <= ACTION["inputs"].keys()
    for name, about in ACTION["inputs"].items():
        assert f"| `{name}` |" in page
        assert about["description"]


def test_pre_commit_accepts_the_manifest():
    check = (sys.executable, "-m", "pre_commit", "validate-manifest")
    file = str(ROOT / ".pre-commit-hooks.yaml")
    assert subprocess.run([*check, file], capture_output=True).returncode == 0
