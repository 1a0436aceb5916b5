from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastguide.protein import parse_addresses


@pytest.fixture(scope="module")
def antibody(toy):
    """Two chains with negative numbers, insertion codes and gaps, and one that is named in small letters."""
    return toy({"A": "-5 -4 -3 -1 0 1 5 10", "B": "51 52 52A 52B 53 60", "a": "1 2"})


def names(text, structure):
    return [str(structure.labels[i]) for i in parse_addresses(text, structure)]


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("A10", "A10"),
        ("A5-10", "A5 A10"),
        ("A-3", "A-3"),
        ("A-3-5", "A-3 A-1 A0 A1 A5"),
        ("A-5--3", "A-5 A-4 A-3"),
        ("A-100-100", "A-5 A-4 A-3 A-1 A0 A1 A5 A10"),
        ("B52", "B52"),
        ("B52A", "B52A"),
        ("B52-53", "B52 B52A B52B B53"),
        ("B51-52", "B51 B52"),
        ("B52A-53", "B52A B52B B53"),
        ("B51-52A", "B51 B52 B52A"),
        ("B52A-B60", "B52A B52B B53 B60"),
        ("a", "a1 a2"),
        ("A:10,a:", "A10 a1 a2"),
        ("B60,A0-1,B52B", "B60 A0 A1 B52B"),
        ("A0, A1  A5,", "A0 A1 A5"),
        ("A1,A0-1", "A1 A0"),
    ],
)
def test_what_addresses_select(text, selected, antibody):
    assert names(text, antibody) == selected.split()


def test_a_list_of_addresses_is_as_good_as_one_text(antibody):
    assert parse_addresses(["A10,B52A", "a"], antibody) == parse_addresses("A10,B52A,a", antibody)


def test_the_chain_may_be_left_out_where_there_is_one(toy):
    structure = toy({"H": "-2 -1 1 2 3 3A"})
    assert names("2-3,-1,3A", structure) == ["H2", "H3", "H-1", "H3A"]
    assert names("-2--1", structure) == ["H-2", "H-1"]
    assert names("H", structure) == [f"H{n}" for n in ("-2", "-1", "1", "2", "3", "3A")]


def test_a_blank_chain_name_is_addressed_by_number(toy):
    assert parse_addresses("2-3", toy({"": "1 2 3"})) == [1, 2]


def test_long_chain_names_are_read_to_their_end(toy):
    structure = toy({"A": "1 2", "AA": "12 13", "Heavy": "1", "A-2": "5"})
    assert names("AA12", structure) == ["AA12"]
    assert names("AA12-13,Heavy1", structure) == ["AA12", "AA13", "Heavy1"]
    assert names("A-25", structure) == ["A-25"]
    assert parse_addresses("A-2", structure) == [5]


def test_chain_names_with_digits_are_told_apart_by_what_they_select(toy):
    structure = toy({"A": "10 12", "A1": "0 1", "1": "7"})
    assert parse_addresses("A12", structure) == [1]
    assert parse_addresses("A11", structure) == [3]
    assert parse_addresses("17", structure) == [4]
    with pytest.raises(ValueError, match="'A10' is ambiguous, as a chain name contains digits; write A1:0 or A:10"):
        parse_addresses("A10", structure)
    assert parse_addresses("A1:0,A:10", structure) == [2, 0]


def test_a_chain_named_like_a_residue_is_ambiguous(toy):
    structure = toy({"1": "1 11"})
    assert parse_addresses("1", structure) == [0, 1]
    with pytest.raises(ValueError, match="ambiguous"):
        parse_addresses("11", structure)
    assert parse_addresses("1:1", structure) == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A2", r"'A2' selects no residue; chain A of toy is numbered -5 to 10"),
        ("A100-200", r"selects no residue; chain A of toy is numbered -5 to 10"),
        ("A2-4", r"selects no residue"),
        ("B52C", r"selects no residue; chain B of toy is numbered 51 to 60"),
        ("A10-5", r"the range 'A10-5' runs backwards"),
        ("B52B-52A", r"runs backwards"),
        ("C", r"'C' names no chain of toy, which has A, B, a \(case matters\)"),
        ("b52", r"'b52' names no chain"),
        ("10", r"'10' names no chain, and toy has A, B, a; write A10"),
        ("A10-", r"cannot read 'A10-'; write residues such as"),
        ("A1.5", r"cannot read"),
        ("A10-B20", r"cannot read"),
        ("A10+5", r"cannot read"),
        ("*", r"cannot read"),
        ("", r"no address given"),
        (" , ", r"no address given"),
        ([], r"no address given"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_mend(text, message, antibody):
    with pytest.raises(ValueError, match=message) as caught:
        parse_addresses(text, antibody, argument="fix")
    assert str(caught.value).startswith("fix: ")
    assert "\n" not in str(caught.value)


numbers = st.tuples(st.integers(-30, 30), st.sampled_from(["", "A", "B"])).map(lambda pair: f"{pair[0]}{pair[1]}")
numberings = st.lists(numbers, min_size=1, max_size=12, unique=True)
structures = st.dictionaries(st.sampled_from(["A", "b", "AA", "Zz", "L1", "2"]), numberings, min_size=1, max_size=4)


def selected_or_error(text, structure):
    try:
        return parse_addresses(text, structure)
    except ValueError as error:
        return str(error)


@given(chains=structures)
def test_every_label_selects_its_own_residue(chains, toy):
    structure = toy(chains)
    for i, label in enumerate(structure.labels):
        explicit = f"{label.chain}:{label.number}{label.insertion}"
        assert parse_addresses(explicit, structure) == [i]
        short = selected_or_error(str(label), structure)
        assert short == [i] or "ambiguous" in short


@given(chains=structures, data=st.data())
def test_a_range_selects_all_between_its_ends(chains, data, toy):
    structure = toy(chains)
    chain = data.draw(st.sampled_from(structure.chain_ids))
    keys = {i: (structure.labels[i].number, structure.labels[i].insertion) for i in structure.residues_of(chain)}
    first, last = sorted(
        data.draw(st.tuples(st.sampled_from(list(keys.values())), st.sampled_from(list(keys.values()))))
    )
    text = f"{chain}:{first[0]}{first[1]}-{last[0]}{last[1]}"
    assert parse_addresses(text, structure) == [i for i, key in keys.items() if first <= key <= last]


@given(text=st.text(alphabet="ABab0129-:,; .=", max_size=12))
def test_any_text_selects_something_or_says_what_is_wrong(text, antibody):
    selected = selected_or_error(text, antibody)
    if isinstance(selected, str):
        assert selected.startswith("address: ")
    else:
        assert selected
        assert len(set(selected)) == len(selected)
