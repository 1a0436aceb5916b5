from __future__ import annotations

import sys

import pytest
import torch

from fastguide.rewards import PLDDT, ProtParam, Weighted, resolve, wrap

pytest.importorskip("Bio")


@pytest.fixture
def context():
    return {"nll": wrap(lambda x0: -x0.float().mean(dim=1), name="likelihood"), "zero": wrap(lambda x0: x0[:, 0] * 0)}


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "my-reward.py"
    path.write_text("def score(x0):\n    return x0.sum(dim=1).float()\n\nlimit = 3\n\nclass Thing:\n    pass\n")
    return path


@pytest.fixture(autouse=True)
def forget_loaded_files():
    yield
    for name in [name for name in sys.modules if name.startswith("fastguide_reward_")]:
        del sys.modules[name]


def terms(reward):
    return [(weight, term.name) for weight, term in reward.terms]


def test_a_name_alone_is_that_reward(context):
    gravy = resolve("gravy")
    assert isinstance(gravy, ProtParam)
    assert gravy.name == "gravy"
    assert resolve(" nll ", context=context) is context["nll"]


@pytest.mark.weights
@pytest.mark.usefixtures("alphapredict")
def test_networks_get_the_chains():
    plddt, held_out = resolve("plddt", chains=(5, 7)), resolve("plddt_v6")
    assert isinstance(plddt, PLDDT)
    assert (plddt.version, plddt.chains) == ("V7", (5, 7))
    assert (held_out.version, held_out.chains) == ("V6", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nll+0.1*charge", [(1, "likelihood"), (0.1, "charge")]),
        ("nll - 2 * gravy", [(1, "likelihood"), (-2, "gravy")]),
        ("-gravy", [(-1, "gravy")]),
        ("1e-2*gravy+.5*aromaticity-1e+1*charge", [(0.01, "gravy"), (0.5, "aromaticity"), (-10, "charge")]),
        ("gravy+isoelectric_point@6.5", [(1, "gravy"), (1, "isoelectric_point@6.5")]),
        ("gravy-charge@-2+instability", [(1, "gravy"), (-1, "charge@-2"), (1, "instability")]),
    ],
)
def test_sums(text, expected, context):
    reward = resolve(text, context=context)
    assert isinstance(reward, Weighted)
    assert terms(reward) == expected
    assert reward.name == text.replace(" ", "")


def test_the_sum_is_that_of_its_parts(random_tokens, context):
    x0 = random_tokens(4, 20)
    value = resolve("nll-2*gravy", context=context)(x0)
    torch.testing.assert_close(value, context["nll"](x0).double() - 2 * ProtParam("gravy")(x0))


def test_a_function_of_a_file(own_file, random_tokens):
    x0 = random_tokens(3, 5)
    reward = resolve(f"{own_file}:score")
    assert reward.name == "score"
    assert torch.equal(reward(x0), x0.sum(dim=1).float())
    mixed = resolve(f"gravy-0.5*{own_file}:score+charge")
    assert terms(mixed) == [(1, "gravy"), (-0.5, "score"), (1, "charge")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pldt", r"cannot read 'pldt' in 'pldt'; names are plddt, plddt_v6, .*nll, zero and file.py:function"),
        ("", "cannot read 'nothing'"),
        ("gravy+", r"cannot read '\+'"),
        ("gravy charge", "cannot read 'gravy charge'"),
        ("gravy++charge", r"cannot read '\+\+charge'"),
        ("2gravy", "cannot read '2gravy'"),
        ("gravy*2", r"cannot read 'gravy\*2'"),
        ("nll@3", "only isoelectric_point, .* take a target"),
        ("gravy+gravy", "two terms of .* are named 'gravy'"),
        ("score.py", "cannot read 'score.py'"),
    ],
)
def test_what_cannot_be_read_is_refused(text, message, context):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(text, context=context)
    assert "\n" not in str(caught.value)


def test_faults_of_a_file_are_told_in_one_line(own_file, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"reward: nowhere.py: no such file"):
        resolve("nowhere.py:score")
    with pytest.raises(ValueError, match=r"has no function 'scor'; it has score, Thing"):
        resolve(f"{own_file}:scor")
    with pytest.raises(ValueError, match="has no function 'limit'"):
        resolve(f"{own_file}:limit")
    with pytest.raises(ValueError, match=r"Thing in .* is a class"):
        resolve(f"{own_file}:Thing")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raises.py").write_text("import torch\n\n1 / 0\n")
    with pytest.raises(ValueError, match=r"raises.py fails to load \(line 3\): ZeroDivisionError"):
        resolve("raises.py:score")
    (tmp_path / "broken.py").write_text("def score(:\n")
    with pytest.raises(ValueError, match=r"broken.py fails to load \(line 1\): SyntaxError"):
        resolve("broken.py:score")
    assert not [name for name in sys.modules if name in ("fastguide_reward_raises", "fastguide_reward_broken")]
