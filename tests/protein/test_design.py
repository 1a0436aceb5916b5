from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from fastguide.protein import ALPHABET, Design, encode, read_structure


@pytest.fixture(scope="module")
def dimer(toy):
    """A homodimer whose copies are numbered differently, and a third chain of another length."""
    return toy({"A": "1 2 3 4", "B": "101 102 103 104", "C": "1 2"}, letters="MKVL" * 2 + "GG")


def names(indices, structure):
    return " ".join(str(structure.labels[i]) for i in indices)


def ties(design):
    return [names(variable, design.structure) for variable in design.variables if len(variable) > 1]


def test_everything_is_designed_by_default(dimer):
    design = Design.create(dimer)
    assert design.variables == tuple((i,) for i in range(10))
    assert design.length == 10
    assert design.bias.tolist() == torch.zeros(10, 20).tolist()
    assert design.bias.dtype == torch.float32
    assert design.output.tolist() == list(range(10))
    assert design.fixed == ()
    assert design.header() == "10 designed, 0 fixed, 0 tied, 0 biased, 0 omitted, 0 without backbone"


@pytest.mark.parametrize("chains", ["B", " B ", ["B"], ("B",)])
def test_other_chains_are_context(chains, dimer):
    design = Design.create(dimer, chains=chains)
    assert names(design.output, dimer) == names(design.free, dimer) == "B101 B102 B103 B104"
    assert design.chain_lengths == (4,)
    assert design.to_string(design.native) == "MKVL"


def test_fix_and_redesign_are_complements(dimer):
    by_fix = Design.create(dimer, fix="A2-3,B,C")
    by_redesign = Design.create(dimer, redesign="A1,A4")
    for design in (by_fix, by_redesign):
        assert names(design.free, dimer) == "A1 A4"
        assert names(design.fixed, dimer) == "A2 A3 B101 B102 B103 B104 C1 C2"
        assert design.to_string(design.native) == "MKVL/MKVL/GG"


def test_whole_chains_tie_by_position_whatever_their_numbers(dimer):
    assert ties(Design.create(dimer, tie="A=B")) == ["A1 B101", "A2 B102", "A3 B103", "A4 B104"]


@pytest.mark.parametrize(
    ("tie", "sets"),
    [
        ("A1,B101;A2,B104", ["A1 B101", "A2 B104"]),
        ([["A1", "B101"], ["A2", "B104"]], ["A1 B101", "A2 B104"]),
        (["A1,B101", ["A2", "B104"]], ["A1 B101", "A2 B104"]),
        ("A1-2=C", ["A1 C1", "A2 C2"]),
        ("A1-2=B101,B103=C1-2", ["A1 B101 C1", "A2 B103 C2"]),
        ("A1-3", ["A1 A2 A3"]),
        ("A1,A2;A2,A3;C1,C2", ["A1 A2 A3", "C1 C2"]),
        (["A1-2=C", "A2,A3", "B101,C1"], ["A1 B101 C1", "A2 A3 C2"]),
    ],
)
def test_tie_sets_overlapping_ones_merge(tie, sets, dimer):
    design = Design.create(dimer, tie=tie)
    assert ties(design) == sets
    assert sorted(i for variable in design.variables for i in variable) == list(range(10))
    assert list(design.variables) == sorted(design.variables)


def test_ties_among_fixed_residues_that_agree_are_harmless(dimer):
    design = Design.create(dimer, tie="A=B", fix="A1,B101,C")
    assert ties(design) == ["A2 B102", "A3 B103", "A4 B104"]
    assert names(design.fixed, dimer) == "A1 B101 C1 C2"


@pytest.mark.parametrize(
    ("omit", "expected"),
    [
        ("CM", {"A1": "CM", "A2": "CM"}),
        ("A1:PG", {"A1": "PG"}),
        ("A1-2:P;C", {"A1": "PC", "A2": "PC", "A3": "C"}),
        ("A1,A3:P", {"A1": "P", "A3": "P"}),
        ({"A1": "P", "A2-3": "W"}, {"A1": "P", "A2": "W", "A3": "W"}),
        (["C", {"A1": "P"}, "A2:W"], {"A1": "CP", "A2": "CW", "A3": "C"}),
    ],
)
def test_omit(omit, expected, dimer):
    design = Design.create(dimer, chains="A", omit=omit)
    for label, omitted in expected.items():
        row = design.bias[names(design.free, dimer).split().index(label)]
        assert {ALPHABET[i] for i in row.isneginf().nonzero().flatten().tolist()} == set(omitted)
    assert not design.bias[design.bias.isfinite()].any()


@pytest.mark.parametrize(
    ("bias", "expected"),
    [
        ("A=0.5,K=-1", {("A1", "A"): 0.5, ("A4", "K"): -1.0}),
        ("A1:W=2", {("A1", "W"): 2.0, ("A2", "W"): 0.0}),
        ("A1-2:W=2,F=1;A=0.5", {("A2", "W"): 2.0, ("A2", "F"): 1.0, ("A2", "A"): 0.5, ("A3", "F"): 0.0}),
        ({"A": 0.5}, {("A3", "A"): 0.5}),
        ({"A2-3": {"A": 1.0}, "K": -1}, {("A2", "A"): 1.0, ("A1", "A"): 0.0, ("A1", "K"): -1.0}),
        (["A=1", "A=1", {"A2": {"A": 0.25}}], {("A1", "A"): 2.0, ("A2", "A"): 2.25}),
        ({"W": -math.inf}, {("A1", "W"): -math.inf}),
    ],
)
def test_bias(bias, expected, dimer):
    design = Design.create(dimer, chains="A", bias=bias)
    labels = names(design.free, dimer).split()
    for (label, letter), amount in expected.items():
        assert design.bias[labels.index(label), ALPHABET.index(letter)] == amount


def test_a_tied_variable_has_the_mean_bias_and_all_omissions_of_its_residues(dimer):
    design = Design.create(dimer, tie="A=B", bias="A1:W=2;K=1", omit={"B101": "C"})
    first = design.bias[0]
    assert first[ALPHABET.index("W")] == 1.0
    assert first[ALPHABET.index("K")] == 1.0
    assert first[ALPHABET.index("C")] == -math.inf


def test_all_wishes_together(dimer):
    design = Design.create(
        dimer, chains=["A", "B"], fix="A2,B102", tie="A=B", omit=["C", {"A3": "P"}], bias={"A1": {"W": 1.0}}
    )
    assert [names(variable, dimer) for variable in design.variables] == ["A1 B101", "A3 B103", "A4 B104"]
    assert design.header() == "6 designed, 2 fixed, 6 tied, 2 biased, 6 omitted, 0 without backbone"


def test_residues_without_backbone_are_kept_and_named(toy):
    structure = toy({"A": "1 2 3 4"}, letters="MKVL", broken="A2")
    design = Design.create(structure, redesign="A1-3")
    assert names(design.free, structure) == "A1 A3"
    assert names(design.fixed, structure) == "A2 A4"
    assert design.header() == "2 designed, 2 fixed, 0 tied, 0 biased, 0 omitted, 1 without backbone"
    assert design.notes == ("kept, as backbone atoms are missing: A2",)
    assert [row.state for row in design.table()] == ["designed", "no backbone", "designed", "fixed"]


def test_unknown_residues_are_designed_or_left_out_of_the_output(toy):
    structure = toy({"A": "1 2 3 4"}, letters="MXXL")
    design = Design.create(structure, fix="A2,A4")
    assert names(design.free, structure) == "A1 A3"
    assert names(design.output, structure) == "A1 A3 A4"
    assert design.native.tolist() == [ALPHABET.index("M"), 20, ALPHABET.index("L")]
    assert design.notes == ("left out of the output, as the amino acid is unknown: A2 (UNK)",)


def test_the_table_maps_author_names_to_columns(dimer):
    design = Design.create(dimer, chains=["A", "C"], tie="A1,A3", fix="A2")
    rows = design.table()
    assert [(row.label, row.column, row.chain, row.native, row.state, row.variable) for row in rows] == [
        ("A1", 0, "A", "M", "tied", 0),
        ("A2", 1, "A", "K", "fixed", None),
        ("A3", 2, "A", "V", "tied", 0),
        ("A4", 3, "A", "L", "designed", 1),
        ("C1", 4, "C", "G", "designed", 2),
        ("C2", 5, "C", "G", "designed", 3),
    ]


@pytest.fixture(scope="module")
def design(dimer):
    return Design.create(dimer, chains=["A", "B"], tie="A=B", fix="A2,B102", omit="C")


class TestExpandAndCheck:
    def test_expand_puts_variables_and_natives_in_their_columns(self, design):
        sequences = design.expand(torch.stack([encode("DEF"), encode("WWX")]))
        assert [design.to_string(row) for row in sequences] == ["DKEF/DKEF", "WKWX/WKWX"]

    def test_what_expand_makes_passes_the_check(self, design):
        design.check(design.expand(torch.tensor([[0, 2, 19], [3, 4, 5]])))
        design.check(torch.empty(0, 8, dtype=torch.int64))

    @pytest.mark.parametrize(
        ("sequence", "message"),
        [
            ("DKEFDKE", r"expected int64 \[n, 8\], got int64 \[1, 7\]"),
            ("DKEXDKEX", "sequence 0 has no amino acid at A4"),
            ("DWEFDKEF", "changes a fixed residue at A2"),
            ("DKEFDKEW", r"has another amino acid than its tied residues at B104 \(column 7\)"),
            ("CKEFCKEF", "holds an omitted amino acid at A1"),
        ],
    )
    def test_what_breaks_a_wish_is_refused(self, sequence, message, design):
        with pytest.raises(ValueError, match=message):
            design.check(encode(sequence)[None])

    def test_float_tokens_are_refused(self, design):
        with pytest.raises(ValueError, match=r"x: expected int64 \[n, 3\], got float32"):
            design.expand(torch.zeros(2, 3))


LABELS = ["A1", "A2", "A3", "A4", "B101", "B102", "B103", "B104", "C1", "C2"]
residues = st.sampled_from(LABELS)


@given(
    tie=st.lists(st.lists(residues, min_size=2, max_size=4, unique=True), min_size=1, max_size=4),
    fix=st.sets(residues, max_size=4),
)
def test_any_ties_partition_the_free_residues(tie, fix, dimer):
    whole = set(fix).union(*(tied for tied in tie if fix.intersection(tied)))
    for _ in tie:
        whole = whole.union(*(tied for tied in tie if whole.intersection(tied)))
    assume(whole != set(LABELS))
    natives = dict(zip(LABELS, dimer.tokens.tolist(), strict=True))
    assume(all(len({natives[label] for label in tied}) == 1 for tied in tie if whole.intersection(tied)))
    design = Design.create(dimer, fix=sorted(whole) or None, tie=tie)
    assert sorted(design.free + design.fixed) == list(range(10))
    assert sorted(i for variable in design.variables for i in variable) == sorted(design.free)
    variable_of = dict(zip(LABELS, design.variable_of.tolist(), strict=True))
    assert all(len({variable_of[label] for label in tied}) == 1 for tied in tie)
    design.check(design.expand(torch.randint(20, (3, design.length), generator=torch.Generator().manual_seed(0))))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"fix": "A1", "redesign": "A2"}, "give one of them"),
        ({"fix": "A,B,C"}, "nothing to design"),
        ({"fix": "A9"}, "fix: 'A9' selects no residue; chain A of toy is numbered 1 to 4"),
        ({"fix": "X3"}, "fix: 'X3' names no chain"),
        ({"redesign": ""}, "redesign: no address given"),
        ({"chains": "D"}, "has no such chain; it has A, B, C"),
        ({"chains": []}, "chains: none given"),
        ({"chains": "A", "redesign": "A1,B101"}, "redesign: B101 is in chain B, which is not designed"),
        ({"tie": "A,B"}, "tie: 'A,B' would make all 8 residues one amino acid; write A=B"),
        ({"bias": "A=1e39"}, "bias: A=1e39: expected a number of logit units"),
        ({"tie": "A=C"}, r"tie: 'A=C' ties selections of different lengths \(A 4, C 2 residues\)"),
        ({"tie": "A=B", "fix": "A1"}, "tie: B101 is tied to A1, which is fixed; fix B101 as well"),
        ({"tie": "A=B", "chains": "A"}, "A1 is tied to B101, which is in a chain that is not designed"),
        ({"tie": "A1,A2", "fix": "A1-2"}, "A1 and A2 are both fixed, to M and K"),
        ({"tie": "A1"}, "tie: A1 alone"),
        ({"tie": "A=A"}, "tie: A1 alone"),
        ({"tie": ""}, "tie: nothing to tie"),
        ({"tie": "A=Q"}, "tie: 'Q' names no chain"),
        ({"omit": "CZ"}, "omit: unknown amino acid 'Z' in 'CZ'"),
        ({"omit": "A1:c"}, "unknown amino acid 'c'"),
        ({"omit": ""}, "omit: nothing given"),
        ({"omit": "A1:"}, "omit: no amino acid given"),
        ({"omit": ALPHABET}, "omit: every amino acid is omitted at A1"),
        ({"omit": [ALPHABET[:10], {"A3": ALPHABET[10:]}]}, "every amino acid is omitted at A3"),
        ({"omit": {"A1": ALPHABET[:10], "B101": ALPHABET[10:]}, "tie": "A=B"}, "is omitted at A1, B101"),
        ({"omit": "A9:P"}, "omit: 'A9' selects no residue"),
        ({"omit": "A1:P,A2:G"}, "separate selections by ';'"),
        ({"omit": "A1:P", "fix": "A1"}, "omit: 'A1:P' concerns only kept residues"),
        ({"bias": "A"}, "bias: cannot read 'A'"),
        ({"bias": "J=1"}, "bias: unknown amino acid 'J'"),
        ({"bias": "AC=1"}, "bias: 'AC' is more than one amino acid"),
        ({"bias": "A=much"}, "bias: A=much: expected a number"),
        ({"bias": "A=nan"}, "expected a number"),
        ({"bias": {"A": math.inf}}, "expected a number"),
        ({"bias": "A1:W=2,A2:K=1"}, "separate selections by ';'"),
        ({"bias": {"A1": {}}}, "bias: nothing given"),
        ({"bias": "A1:W=2", "fix": "A1"}, "bias: 'A1:W=2' concerns only kept residues"),
    ],
)
def test_bad_wishes_are_refused_in_one_line(wishes, message, dimer):
    with pytest.raises(ValueError, match=message) as caught:
        Design.create(dimer, **wishes)
    assert "\n" not in str(caught.value)


def test_a_tie_to_a_residue_without_backbone_is_refused(toy):
    structure = toy({"A": "1 2", "B": "1 2"}, letters="MKMK", broken="B2")
    with pytest.raises(ValueError, match="A2 is tied to B2, which lacks backbone atoms"):
        Design.create(structure, tie="A=B")
    assert ties(Design.create(structure, tie="A=B", fix="A2")) == ["A1 B1"]


@pytest.mark.parametrize(("name", "residues"), [("1UBI", 76), ("1EJG", 46), ("1AKE", 214)])
def test_real_backbones(name, residues, backbones):
    pytest.importorskip("gemmi")
    design = Design.create(read_structure(backbones[name]), fix="A1-10", omit="C")
    assert design.length == residues - 10
    assert len(design.output) == residues
    design.check(design.expand(torch.zeros(1, design.length, dtype=torch.int64)))
