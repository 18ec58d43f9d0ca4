// The audit log as Go's own packages and those of transparency-dev see it: checks what Holdfast wrote, and writes a
// log that Holdfast must be able to check.
//
//	foreign check-log DIRECTORY VKEY...
//	foreign check-proof FILE ENTRY-FILE VKEY [WITNESS-VKEY...]
//	foreign make DIRECTORY ORIGIN < one entry per line
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/transparency-dev/formats/log"
	fnote "github.com/transparency-dev/formats/note"
	tproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const width = 256

func main() {
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "check-log":
		checkLog(arguments[0], arguments[1:])
	case "check-proof":
		checkProof(arguments[0], arguments[1], arguments[2:])
	case "make":
		makeLog(arguments[0], arguments[1])
	}
}

func checkLog(directory string, vkeys []string) {
	raw := must(os.ReadFile(filepath.Join(directory, "checkpoint")))
	for _, vkey := range vkeys {
		verifier := must(fnote.NewVerifier(vkey))
		checkpoint, _, _, err := log.ParseCheckpoint(raw, verifier.Name(), verifier)
		check(err)
		files := client.FileFetcher{Root: directory}
		check(fsck.New(verifier.Name(), verifier, files, hashes, fsck.Opts{N: 1}).Check(context.Background()))
		checkTiles(directory, checkpoint)
	}
	fmt.Println("verified")
}

// checkTiles proves each record and each older tree from the tiles, with Go's tlog.
func checkTiles(directory string, checkpoint *log.Checkpoint) {
	size, root := int64(checkpoint.Size), tlog.Hash(checkpoint.Hash)
	if size == 0 {
		return
	}
	reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, &tiles{directory})
	for index := int64(0); index < size; index++ {
		stored := must(reader.ReadHashes([]int64{tlog.StoredHashIndex(0, index)}))
		check(tlog.CheckRecord(must(tlog.ProveRecord(size, index, reader)), size, root, index, stored[0]))
		older := must(tlog.TreeHash(index+1, reader))
		check(tlog.CheckTree(must(tlog.ProveTree(size, index+1, reader)), size, root, index+1, older))
	}
}

func checkProof(file string, entryFile string, vkeys []string) {
	var found tproof.TLogProof
	check(found.Unmarshal(must(os.ReadFile(file))))
	verifier := must(fnote.NewVerifier(vkeys[0]))
	var witnesses []note.Verifier
	for _, vkey := range vkeys[1:] {
		witnesses = append(witnesses, must(fnote.NewVerifier(vkey)))
	}
	checkpoint, _, opened, err := log.ParseCheckpoint(found.Checkpoint, verifier.Name(), verifier, witnesses...)
	check(err)
	if len(opened.Sigs) != len(vkeys) {
		check(fmt.Errorf("%d of %d keys signed", len(opened.Sigs), len(vkeys)))
	}
	path := make([][]byte, len(found.Hashes))
	for n := range found.Hashes {
		path[n] = found.Hashes[n][:]
	}
	leaf := rfc6962.DefaultHasher.HashLeaf(must(os.ReadFile(entryFile)))
	check(proof.VerifyInclusion(rfc6962.DefaultHasher, found.Index, checkpoint.Size, leaf, path, checkpoint.Hash))
	fmt.Println("verified")
}

func makeLog(directory string, origin string) {
	var stored memory
	var entries [][]byte
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		entry := bytes.Clone(lines.Bytes())
		more := must(tlog.StoredHashes(int64(len(entries)), entry, stored))
		stored = append(stored, more...)
		entries = append(entries, entry)
	}
	size := int64(len(entries))
	for _, tile := range tlog.NewTiles(8, 0, size) {
		if tile.W == width || tile.W == int(size>>(8*tile.L))%width {
			write(directory, tilePath(tile), must(tlog.ReadTileData(tile, stored)))
		}
	}
	for first := 0; first < len(entries); first += width {
		last := min(first+width, len(entries))
		tile := tlog.Tile{H: 8, L: 0, N: int64(first / width), W: last - first}
		path := strings.Replace(tilePath(tile), "tile/0/", "tile/entries/", 1)
		var bundle []byte
		for _, entry := range entries[first:last] {
			bundle = append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
		}
		write(directory, path, bundle)
	}
	root := must(tlog.TreeHash(size, stored))
	text := log.Checkpoint{Origin: origin, Size: uint64(size), Hash: root[:]}.Marshal()
	skey, vkey, err := note.GenerateKey(rand.Reader, origin)
	check(err)
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	spki := must(x509.MarshalPKIXPublicKey(private.Public()))
	ec := &ecdsaSigner{origin, binary.BigEndian.Uint32(sum(spki)), private}
	witnessKey, witnessVkey, err := note.GenerateKey(rand.Reader, "witness.example")
	check(err)
	signed := must(note.Sign(&note.Note{Text: string(text)},
		must(note.NewSigner(skey)), ec, must(fnote.NewSignerForCosignatureV1(witnessKey))))
	write(directory, "checkpoint", signed)
	for index := range size {
		path := must(tlog.ProveRecord(size, index, stored))
		made := tproof.TLogProof{Index: uint64(index), Checkpoint: signed, ExtraData: entries[index]}
		for _, hash := range path {
			made.Hashes = append(made.Hashes, hash)
		}
		write(directory, fmt.Sprintf("proofs/%d.tlog-proof", index), made.Marshal())
	}
	fmt.Println(vkey)
	fmt.Printf("%s+%08x+%s\n", origin, ec.hash, base64.StdEncoding.EncodeToString(append([]byte{2}, spki...)))
	fmt.Println(must(fnote.VKeyToCosignatureV1(witnessVkey)))
}

type ecdsaSigner struct {
	name string
	hash uint32
	key  *ecdsa.PrivateKey
}

func (s *ecdsaSigner) Name() string    { return s.name }
func (s *ecdsaSigner) KeyHash() uint32 { return s.hash }
func (s *ecdsaSigner) Sign(message []byte) ([]byte, error) {
	return s.key.Sign(rand.Reader, sum(message), crypto.SHA256)
}

// memory holds the hashes of a log as Go's tlog numbers them.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for n, index := range indexes {
		hashes[n] = m[index]
	}
	return hashes, nil
}

// tiles reads the tiles of a directory laid out as C2SP tlog-tiles says, whose paths lack the height.
type tiles struct{ directory string }

func (t *tiles) Height() int { return 8 }

func (t *tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(wanted))
	for n, tile := range wanted {
		data[n] = must(os.ReadFile(filepath.Join(t.directory, tilePath(tile))))
	}
	return data, nil
}

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func tilePath(tile tlog.Tile) string { return strings.Replace(tile.Path(), "tile/8/", "tile/", 1) }

func hashes(bundle []byte) ([][]byte, error) {
	var entries api.EntryBundle
	if err := entries.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	leaves := make([][]byte, 0, len(entries.Entries))
	for _, entry := range entries.Entries {
		leaves = append(leaves, rfc6962.DefaultHasher.HashLeaf(entry))
	}
	return leaves, nil
}

func sum(data []byte) []byte {
	digest := sha256.Sum256(data)
	return digest[:]
}

func write(directory string, path string, data []byte) {
	full := filepath.Join(directory, path)
	check(os.MkdirAll(filepath.Dir(full), 0o755))
	check(os.WriteFile(full, data, 0o644))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
