package refpeer

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// TestLinkBytes checks the signed bytes of a link made elsewhere (protocol
// test vectors), and texts of every length.
func TestLinkBytes(t *testing.T) {
	t.Parallel()
	l := link{
		source: "m-1", target: "m-2", relation: "related_to", observedBy: text{"ai:leader", true},
		validFrom: text{"2026-06-15T00:00:00+00:00", true},
	}
	const want = "a6666473745f6964636d2d326b6f627365727665645f62796961693a6c65616465726872656c6174696f6e6a72656c617465645f746f" +
		"667372635f6964636d2d316a76616c69645f66726f6d7819323032362d30362d31355430303a30303a30302b30303a30306b76616c69645f756e74696cf6"
	if got := hex.EncodeToString(l.signedBytes()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, n := range []int{0, 23, 24, 255, 256, 65535, 65536} {
		s := strings.Repeat("x", n)
		want, err := cbor.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendCBORText(nil, s); !bytes.Equal(got, want) {
			t.Errorf("text of %d bytes: got % x..., want % x...", n, got[:min(len(got), 6)], want[:min(len(want), 6)])
		}
	}
}

func TestUnit(t *testing.T) {
	t.Parallel()
	inf := float32(math.Inf(1))
	for _, tt := range []struct {
		name      string
		have, out []float32
	}{
		{"norm 1", []float32{0.6, 0.8}, []float32{0.6, 0.8}},
		{"nearly 1 stays", []float32{1.0009, 0}, []float32{1.0009, 0}},
		{"off by more is scaled", []float32{1.0011, 0}, []float32{1, 0}},
		{"long", []float32{3, 4}, []float32{0.6, 0.8}},
		{"huge", []float32{math.MaxFloat32, 0}, []float32{1, 0}},
		{"zero", []float32{0, 0}, nil},
		{"empty", nil, nil},
		{"infinite", []float32{inf, 0}, nil},
		{"infinite both ways", []float32{inf, -inf}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := unit(tt.have); !reflect.DeepEqual(got, tt.out) {
				t.Errorf("got %v, want %v", got, tt.out)
			}
		})
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, namespace string
		want               bool
	}{
		{"a", "a", true},
		{"a", "a/b", false},
		{"a/b", "a", false},
		{"*", "a", true},
		{"*", "a/b", false},
		{"a/*", "a/b", true},
		{"a/*", "a", false},
		{"a/*", "a/b/c", false},
		{"a/*/c", "a/b/c", true},
		{"team-*", "team-x", true},
		{"team-*", "team-x/y", false},
		{"**", "a", true},
		{"**", "a/b/c", true},
		{"a/**", "a/b", true},
		{"a/**", "a/b/c", true},
		{"a/**", "a", false},
		{"a/**", "b/a", false},
		{"a/**", "ab/c", false},
	} {
		if got := matches(tt.pattern, tt.namespace); got != tt.want {
			t.Errorf("%s for %s: got %t, want %t", tt.pattern, tt.namespace, got, tt.want)
		}
	}
}

func TestKeyWindow(t *testing.T) {
	t.Parallel()
	var w keyWindow
	for i := range keysRemembered + 2 {
		if w.repeats(fmt.Sprint(i)) {
			t.Fatalf("key %d counts as known", i)
		}
	}
	for _, tt := range []struct {
		key  int
		want bool
	}{{2, true}, {keysRemembered + 1, true}, {1, false}, {3, true}, {2, false}} {
		if got := w.repeats(fmt.Sprint(tt.key)); got != tt.want {
			t.Errorf("key %d: got known %t, want %t", tt.key, got, tt.want)
		}
	}
}

// The protocol's test vectors of credentials. They are valid in 2030.
const (
	vectorByRoot = "v1=omZjbGFpbXNYpKdsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRkcm9vdGlub3RfYWZ0ZXIacT/BEGpub3RfYmVmb3JlGnE/svZwc3ViamVjdF9hZ2VudF9pZGlhaTpsZWFkZXJuc3ViamVjdF9wdWJrZXlYIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4bHRydXN0X2RvbWFpbm1mbGVldC5leGFtcGxlY3NpZ1hAYSp5m/2ao50GO5ee0zxpx2sUV7f/gMikTvlNMCXgALIyqeSBTmzCIJdmmG4c4f9wHN/J1WaodbFgmz+te3QdCw=="
	vectorLeaf   = "v1=omZjbGFpbXNYq6dsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRrcmVnaW9uL2EvY2Fpbm90X2FmdGVyGnE/wRBqbm90X2JlZm9yZRpxP7L2cHN1YmplY3RfYWdlbnRfaWRpYWk6bGVhZGVybnN1YmplY3RfcHVia2V5WCADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuGx0cnVzdF9kb21haW5tZmxlZXQuZXhhbXBsZWNzaWdYQLf2VjhbL16MvMIqR8DLyUuJbqsESnBCiWW+dqduMI6dgmhjsbyH/hC/ndwIZl4b7SDj71YGlgbj41G0Cul2CQk="
	vectorChain  = "v1=gVj2omZjbGFpbXNYpqdsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRkcm9vdGlub3RfYWZ0ZXIacT/BEGpub3RfYmVmb3JlGnE/svZwc3ViamVjdF9hZ2VudF9pZGtyZWdpb24vYS9jYW5zdWJqZWN0X3B1YmtleVggJUO5L/EJVRFHatyDadtt3JM2ZaEZeN2hQE7hBmypVZ1sdHJ1c3RfZG9tYWlubWZsZWV0LmV4YW1wbGVjc2lnWEAf1DSqFSwqAlG+5CSGzPpkaeiTOqVwzlSsYyd0RsPAcokkBQshD0Nx9scQ2927vLyunOaNuofskxo6gi3eYuUG"

	vectorStart, vectorEnd = 1899999990, 1900003600
)

// TestCredentialVectors checks credentials made elsewhere, at the edges of
// their time.
func TestCredentialVectors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, err := hex.DecodeString("29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "root.pub"), root, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle, err := openKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bundle.close() }()
	for _, tt := range []struct {
		name        string
		cred, chain string
		domain      string
		peer        string
		at          int64
		want        error // nil: it counts
	}{
		{"signed by the root", vectorByRoot, "", "", "ai:leader", vectorStart, nil},
		{"in its last second", vectorByRoot, "", "fleet.example", "ai:leader", vectorEnd, nil},
		{"through an intermediate", vectorLeaf, vectorChain, "fleet.example", "ai:leader", vectorStart + 10, nil},
		{"too early", vectorByRoot, "", "", "ai:leader", vectorStart - 1, errNotYetValid},
		{"too late", vectorByRoot, "", "", "ai:leader", vectorEnd + 1, errExpired},
		{"chain too late", vectorLeaf, vectorChain, "", "ai:leader", vectorEnd + 1, errExpired},
		{"another domain", vectorByRoot, "", "other.example", "ai:leader", vectorStart, errTrustDomain},
		{"another peer", vectorByRoot, "", "", "ai:other", vectorStart, errOtherSubject},
		{"leaf without its chain", vectorLeaf, "", "", "ai:leader", vectorStart, errUnknownIssuer},
		{"chain that is not its own", vectorByRoot, vectorChain, "", "ai:leader", vectorStart, errChainName},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, err := trust{bundle: bundle, domain: tt.domain}.key(tt.cred, tt.chain, tt.peer, time.Unix(tt.at, 0))
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			const node = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
			if tt.want == nil && hex.EncodeToString(key) != node {
				t.Errorf("got the key %x, want %s", key, node)
			}
		})
	}
}
