"""The shape of the repository: light to import, no shadowed packages, code and revisions in step."""

import json
import subprocess
import sys

import pytest
import revisions
from helpers import ROOT

ROLES = {
    "schemas": "sid_schemas",
    "tokenizers": "sid_tokenizers",
    "warehouse": "sid_warehouse",
    "pipelines": "sid_pipelines",
    "flows": "sid_flows",
}


@pytest.mark.parametrize(("role", "package"), ROLES.items())
def test_a_role_folder_holds_one_package_and_is_none_itself(role: str, package: str) -> None:
    assert not (ROOT / role / "__init__.py").exists()
    assert [path.parent.name for path in (ROOT / role).glob("*/__init__.py")] == [package]
    assert (ROOT / role / package / "py.typed").exists()


def test_hugging_face_tokenizers_is_not_shadowed_from_the_root() -> None:
    code = "import tokenizers; assert tokenizers.Tokenizer; assert 'site-packages' in tokenizers.__file__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "code",
    [
        "import sidmill",
        "import sidmill; sidmill.Warehouse",
        "import sid_warehouse, sid_tokenizers, sid_schemas",
        "import sid_flows.plan",
        "import sidmill.cli",
    ],
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    heavy = "{'torch', 'prefect', 'apache_beam', 'great_expectations', 'sentence_transformers', 'pandas'}"
    code += f"; import sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_sidmill_loads_hardly_anything() -> None:
    code = "import sys; before = set(sys.modules); import sidmill; print(len(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50  # numpy alone is three times that


def test_the_deployments_name_a_flow_and_its_parameters() -> None:
    import yaml
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = [deployment["name"] for deployment in deployments]
    assert names == ["build", "append", "retokenize", "export", "verify"]
    for deployment in deployments:
        flow = load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))
        assert set(deployment["parameters"]) <= set(flow.parameters.properties)
        assert (ROOT / deployment["parameters"].get("recipe_path", "")).exists()


def test_no_stage_changed_without_a_new_revision() -> None:
    locked, now = json.loads(revisions.LOCK.read_text()), revisions.current()
    assert not revisions.problems(locked, now)
    assert locked == now, "a revision was raised: run `make lock` to record the new code"


def test_the_revision_check_sees_code_but_not_words(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = revisions._parse
    now = revisions.current()

    def edited(old: str, new: str) -> dict[str, dict[str, object]]:
        def parse_edited(name: str) -> revisions.ast.Module:
            tree = parse(name)
            if name != "sid_pipelines.clean":
                return tree
            text = revisions.ast.unparse(tree)
            assert old in text
            return revisions.ast.parse(text.replace(old, new))

        monkeypatch.setattr(revisions, "_parse", parse_edited)
        return revisions.current()

    assert edited("step by step;", "one by one;") == now  # a docstring
    changed = edited("ts >= {params.until}", "ts > {params.until}")
    named = [line.split("'")[1] for line in revisions.problems(now, changed)]
    assert named == ["clean", "extend"]  # which judges by the same rules
    for name in named:
        changed[name]["revision"] = now[name]["revision"] + 1
    assert not revisions.problems(now, changed)
