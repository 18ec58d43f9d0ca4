import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.audit.logs import MemoryLog, entries

from holdfast.audit.faults import Kind, LogDamaged, Malformed
from holdfast.audit.merkle import inclusion_proof, leaf_hash, root_of, verify_inclusion
from holdfast.audit.tiles import (
    MAX_ENTRY,
    WIDTH,
    Edge,
    Tiles,
    bundle_path,
    decode_bundle,
    encode_bundle,
    partial_directory,
    tile_path,
)

ENTRIES = st.lists(st.binary(max_size=20), max_size=WIDTH)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (tile_path(0, 0), "tile/0/000"),
        (tile_path(0, 273, 112), "tile/0/273.p/112"),
        (tile_path(3, 1234067), "tile/3/x001/x234/067"),
        (tile_path(1, 1000, 1), "tile/1/x001/000.p/1"),
        (bundle_path(999999), "tile/entries/x999/999"),
        (bundle_path(1000000, 255), "tile/entries/x001/x000/000.p/255"),
    ],
)
def test_paths_are_those_of_the_specification(path: str, expected: str) -> None:
    assert path == expected


def test_the_tiles_of_70000_entries_are_those_of_the_specification() -> None:
    edge = Edge()
    for number in range(70_000):
        edge.append_leaf(leaf_hash(b"%d" % number))
    full = [(tile.level, tile.index) for tile in edge.full_tiles()]
    assert sorted(full) == [*((0, n) for n in range(273)), (1, 0)]
    assert [(t.level, t.index, len(t.hashes)) for t in edge.partial_tiles()] == [(0, 273, 112), (1, 1, 17), (2, 0, 1)]


def test_256_entries_make_a_full_tile_and_a_hash_above_it() -> None:
    log = MemoryLog().append(*entries(256))
    assert {path for path in log.files if path.startswith("tile/")} == {
        "tile/0/000",
        "tile/1/000.p/1",
        "tile/entries/000",
    }


@settings(deadline=None)
@given(ENTRIES)
def test_a_bundle_reads_back(values: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(values)) == values


@settings(deadline=None)
@given(ENTRIES.filter(bool), st.data())
def test_a_bundle_that_ends_inside_an_entry_is_malformed(values: list[bytes], data: st.DataObject) -> None:
    raw = encode_bundle(values)
    ends = {len(encode_bundle(values[:count])) for count in range(len(values))}
    cut = data.draw(st.sampled_from(sorted(set(range(len(raw))) - ends)))
    with pytest.raises(Malformed, match="ends inside"):
        decode_bundle(raw[:cut])


def test_a_bundle_of_more_than_256_entries_is_malformed() -> None:
    with pytest.raises(Malformed, match="257"):
        decode_bundle(encode_bundle([b""] * 257))


def test_an_entry_too_long_is_refused_before_anything_is_taken() -> None:
    edge = Edge()
    with pytest.raises(ValueError, match="65536"):
        edge.append([b"short", b"x" * (MAX_ENTRY + 1)])
    assert edge.size == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 600), max_size=4))
def test_a_log_that_grows_in_steps_is_the_log_made_at_once(steps: list[int]) -> None:
    """Loaded again between the steps, as after a restart."""
    edge, files, made = Edge(), dict[str, bytes](), 0
    for step in steps:
        files |= edge.append(entries(step, first=made))
        files |= {tile.path: tile.content for tile in (*edge.full_tiles(), *edge.partial_tiles())}
        made += step
        edge = Edge.load(Tiles(files.get, made))
    assert edge.root() == root_of(leaf_hash(entry) for entry in entries(made))
    at_once = MemoryLog().append(*entries(made)).files
    assert {path: files.get(path) for path in at_once if path != "checkpoint"} == {
        path: content for path, content in at_once.items() if path != "checkpoint"
    }


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 66_000), st.data())
def test_a_proof_from_tiles_holds(size: int, data: st.DataObject) -> None:
    edge, files = Edge(), dict[str, bytes]()
    tree = [leaf_hash(b"%d" % number) for number in range(size)]
    for leaf in tree:
        edge.append_leaf(leaf)
    files = {tile.path: tile.content for tile in (*edge.full_tiles(), *edge.partial_tiles())}
    tiles = Tiles(files.get, size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, tiles.node)
    verify_inclusion(leaf=tree[index], index=index, size=size, proof=proof, root=edge.root())


def test_a_full_tile_stands_in_for_its_partial_version() -> None:
    """A log may delete partial files once the full one exists; the holder of an older checkpoint still reads."""
    log = MemoryLog().append(*entries(100))
    root = log.edge.root()
    log.append(*entries(200, first=100))
    for path in [
        path for path in log.files if path.startswith((partial_directory("tile/0/000"), "tile/entries/000.p"))
    ]:
        del log.files[path]
    older = Tiles(log.files.get, 100)
    assert Edge.load(older).root() == root
    assert older.entry(99) == list(entries(100))[99]


@pytest.mark.parametrize(
    ("path", "change", "kind"),
    [
        ("tile/0/001.p/44", None, Kind.REMOVED),
        ("tile/0/001.p/44", slice(0, 32), Kind.TRUNCATED),
        ("tile/1/000.p/1", slice(0, 31), Kind.TRUNCATED),
        ("tile/entries/001.p/44", None, Kind.REMOVED),
        ("tile/entries/001.p/44", slice(0, -1), Kind.TRUNCATED),
    ],
)
def test_an_edge_is_not_loaded_from_damaged_files(path: str, change: slice | None, kind: Kind) -> None:
    log = MemoryLog().append(*entries(300))
    raw = log.files.pop(path)
    if change is not None:
        log.files[path] = raw[change]
    with pytest.raises(LogDamaged) as caught:
        Edge.load(Tiles(log.files.get, 300))
    assert [(finding.kind, finding.path) for finding in caught.value.findings] == [(kind, path)]


def test_an_entry_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no entry 3"):
        Tiles(MemoryLog().append(*entries(3)).files.get, 3).entry(3)
