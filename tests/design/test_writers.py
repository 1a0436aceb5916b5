"""Headers, separators and columns of the files, on two chains of which one is partly kept."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
import torch

from fastguide.design.writers import DesignRow, FastaContext, designs_csv, fasta, manifest_json, residues_csv
from fastguide.protein import Design, ResidueLabel, Structure


@pytest.fixture(scope="module")
def design() -> Design:
    tokens = torch.tensor([0, 1, 2, 3, 4])
    labels = tuple(
        ResidueLabel(c, n, i, "ALA")
        for c, n, i in [("A", 7, ""), ("A", 8, ""), ("A", 8, "B"), ("B", 1, ""), ("B", 2, "")]
    )
    structure = Structure(
        name="toy",
        coordinates=torch.zeros(5, 4, 3),
        tokens=tokens,
        chain=torch.tensor([0, 0, 0, 1, 1]),
        chain_ids=("A", "B"),
        residue_index=torch.tensor([0, 1, 2, 103, 104]),
        labels=labels,
    )
    return Design.create(structure, fix="A7")


ROW = DesignRow(
    rank=1,
    name="toy_0001",
    tokens=torch.tensor([0, 5, 2, 3, 7]),
    reward=91.23456789,
    log_weight=-0.5,
    scores={"plddt_v6": 88.5},
    nll=1.25,
    recovery=0.5,
    mutations=2,
)
CONTEXT = FastaContext(temperature=0.1, seed=7, model="v_48_020", native_nll=1.5)


def test_our_headers_are_key_value_pairs_after_the_name(design: Design) -> None:
    header, sequence = fasta([ROW], design, "fastguide", CONTEXT).splitlines()
    name, *pairs = header.removeprefix(">").split(" ")
    values = dict(pair.split("=") for pair in pairs)
    assert name == "toy_0001"
    assert float(values["confidence"]) == pytest.approx(math.exp(-1.25), abs=1e-5)
    assert values["reward"] == "91.2346"
    assert values["seed"] == "7"
    assert sequence == "AGD/EI"


def test_proteinmpnn_headers_read_as_its_scripts_expect(design: Design) -> None:
    lines = fasta([ROW], design, "proteinmpnn", CONTEXT).splitlines()
    assert lines[0].startswith(">toy, score=1.5000, ")
    assert "designed_chains=['A', 'B']" in lines[0]
    assert lines[1] == "ACD/EF"
    assert lines[2] == ">T=0.1, sample=1, score=1.2500, global_score=nan, seq_recovery=0.5000"
    assert lines[3] == "AGD/EI"


def test_ligandmpnn_headers_and_separator(design: Design) -> None:
    lines = fasta([ROW], design, "ligandmpnn", CONTEXT).splitlines()
    assert lines[1] == "ACD:EF"
    keys = re.findall(r"(\w+)=", lines[2])
    assert keys == ["id", "T", "seed", "overall_confidence", "ligand_confidence", "seq_rec"]
    assert lines[3] == "AGD:EI"


def test_without_a_native_numbers_are_empty_or_nan(design: Design) -> None:
    row = DesignRow(**{**ROW.__dict__, "recovery": None, "mutations": None})
    assert "seq_recovery=nan" in fasta([row], design, "proteinmpnn", CONTEXT)
    assert "recovery" not in fasta([row], design, "fastguide", CONTEXT)
    (found,) = csv.DictReader(io.StringIO(designs_csv([row], design, ["plddt_v6"])))
    assert found["recovery"] == found["mutations"] == ""


def test_the_csv_has_one_sequence_column_a_chain(design: Design) -> None:
    (found,) = csv.DictReader(io.StringIO(designs_csv([ROW], design, ["plddt_v6"])))
    assert found["sequence_A"] == "AGD"
    assert found["sequence_B"] == "EI"
    assert list(found)[:2] == ["rank", "name"]
    assert found["plddt_v6"] == "88.5"


def test_the_residue_table_maps_author_numbers_to_columns(design: Design) -> None:
    rows = list(csv.DictReader(io.StringIO(residues_csv(design, [None, 0.5, 0.25, 0.125, 1.0]))))
    assert [row["label"] for row in rows] == ["A7", "A8", "A8B", "B1", "B2"]
    assert rows[0]["state"] == "fixed"
    assert rows[0]["mean_confidence"] == rows[0]["variable"] == ""
    assert rows[2]["mean_confidence"] == "0.25"


def test_the_manifest_is_strict_json() -> None:
    text = manifest_json({"a": math.nan, "b": [math.inf, Path("x")], "c": {"d": None}})
    assert json.loads(text) == {"a": None, "b": [None, "x"], "c": {"d": None}}
