from __future__ import annotations

import pytest
import torch

from fastguide.protein import ALPHABET, UNKNOWN, decode, encode


def test_tokens_are_positions_in_the_alphabet_and_x_is_unknown():
    assert encode("ACY").tolist() == [0, 1, 19]
    assert encode("X").tolist() == [UNKNOWN] == [20]


def test_decode_undoes_encode():
    assert decode(encode(ALPHABET + "X")) == ALPHABET + "X"
    assert decode(torch.tensor([], dtype=torch.int64)) == ""


def test_a_letter_that_is_no_amino_acid_is_refused():
    with pytest.raises(ValueError, match="'B' is no amino acid"):
        encode("AB")
