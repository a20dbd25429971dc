package identity_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/identity"
)

// The vectors of the protocol digest: node seed 00..1f, root seed 20..3f, intermediate seed 40..5f.
const (
	vectorClaims = "a76c637265645f76657273696f6e01696973737565725f696464726f6f74696e6f745f61667465721a713fc1106a6e6f745f6265666f7265" +
		"1a713fb2f6707375626a6563745f6167656e745f69646961693a6c65616465726e7375626a6563745f7075626b6579582003a107bff3ce10" +
		"be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b86c74727573745f646f6d61696e6d666c6565742e6578616d706c65"
	vectorRootLeaf = "v1=omZjbGFpbXNYpKdsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRkcm9vdGlub3RfYWZ0ZXIacT/BEGpub3RfYmVmb3JlGnE/svZwc3ViamVjdF9hZ2VudF9pZGlhaTpsZWFkZXJuc3ViamVjdF9wdWJrZXlYIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4bHRydXN0X2RvbWFpbm1mbGVldC5leGFtcGxlY3NpZ1hAYSp5m/2ao50GO5ee0zxpx2sUV7f/gMikTvlNMCXgALIyqeSBTmzCIJdmmG4c4f9wHN/J1WaodbFgmz+te3QdCw=="
	vectorLeaf     = "v1=omZjbGFpbXNYq6dsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRrcmVnaW9uL2EvY2Fpbm90X2FmdGVyGnE/wRBqbm90X2JlZm9yZRpxP7L2cHN1YmplY3RfYWdlbnRfaWRpYWk6bGVhZGVybnN1YmplY3RfcHVia2V5WCADoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuGx0cnVzdF9kb21haW5tZmxlZXQuZXhhbXBsZWNzaWdYQLf2VjhbL16MvMIqR8DLyUuJbqsESnBCiWW+dqduMI6dgmhjsbyH/hC/ndwIZl4b7SDj71YGlgbj41G0Cul2CQk="
	vectorChain    = "v1=gVj2omZjbGFpbXNYpqdsY3JlZF92ZXJzaW9uAWlpc3N1ZXJfaWRkcm9vdGlub3RfYWZ0ZXIacT/BEGpub3RfYmVmb3JlGnE/svZwc3ViamVjdF9hZ2VudF9pZGtyZWdpb24vYS9jYW5zdWJqZWN0X3B1YmtleVggJUO5L/EJVRFHatyDadtt3JM2ZaEZeN2hQE7hBmypVZ1sdHJ1c3RfZG9tYWlubWZsZWV0LmV4YW1wbGVjc2lnWEAf1DSqFSwqAlG+5CSGzPpkaeiTOqVwzlSsYyd0RsPAcokkBQshD0Nx9scQ2927vLyunOaNuofskxo6gi3eYuUG"
)

// seeded returns the key whose seed is the 32 bytes from first on.
func seeded(first byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	for i := range seed {
		seed[i] = first + byte(i)
	}
	return ed25519.NewKeyFromSeed(seed)
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey {
	public, _ := key.Public().(ed25519.PublicKey)
	return public
}

func nodeKey() ed25519.PrivateKey  { return seeded(0x00) }
func rootKey() ed25519.PrivateKey  { return seeded(0x20) }
func interKey() ed25519.PrivateKey { return seeded(0x40) }

// claims are those of the vectors: root -> ai:leader.
func claims() identity.Claims {
	return identity.Claims{
		CredVersion: 1, IssuerID: "root", SubjectAgentID: "ai:leader", SubjectKey: publicOf(nodeKey()), TrustDomain: "fleet.example",
		NotBefore: time.Unix(1899999990, 0).UTC(), NotAfter: time.Unix(1900003600, 0).UTC(),
	}
}

// interClaims are root -> region/a/ca.
func interClaims() identity.Claims {
	c := claims()
	c.SubjectAgentID, c.SubjectKey = "region/a/ca", publicOf(interKey())
	return c
}

// leafClaims are region/a/ca -> ai:leader.
func leafClaims() identity.Claims {
	c := claims()
	c.IssuerID = "region/a/ca"
	return c
}

func issue(tb testing.TB, key ed25519.PrivateKey, claims identity.Claims) identity.Credential {
	tb.Helper()
	credential, err := identity.Issue(key, claims)
	if err != nil {
		tb.Fatal(err)
	}
	return credential
}

func TestVectorKeys(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		key  ed25519.PrivateKey
		want string
	}{
		{"node", nodeKey(), "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"},
		{"root", rootKey(), "29acbae141bccaf0b22e1a94d34d0bc7361e526d0bfe12c89794bc9322966dd7"},
		{"intermediate", interKey(), "2543b92ff1095511476adc8369db6ddc933665a11978dda1404ee1066ca9559d"},
	} {
		if got := hex.EncodeToString(publicOf(test.key)); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// Credentials and chains, byte for byte, and back.
func TestVectorCredentials(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		key    ed25519.PrivateKey
		claims identity.Claims
		want   string
	}{
		{"leaf of the root", rootKey(), claims(), vectorRootLeaf},
		{"leaf of the intermediate", interKey(), leafClaims(), vectorLeaf},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, issue(t, test.key, test.claims).Header()); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			parsed, err := identity.Parse(test.want)
			if err != nil {
				t.Fatalf("Parse: %v", err)
			}
			if diff := cmp.Diff(test.claims, parsed.Claims()); diff != "" {
				t.Errorf("claims (-want +got):\n%s", diff)
			}
			if parsed.Header() != test.want {
				t.Errorf("parsed and written again: got %s, want %s", parsed.Header(), test.want)
			}
		})
	}
	if got := (identity.Chain{issue(t, rootKey(), interClaims())}).Header(); got != vectorChain {
		t.Errorf("chain: got %s, want %s", got, vectorChain)
	}
	chain, err := identity.ParseChain(vectorChain)
	if err != nil {
		t.Fatalf("ParseChain: %v", err)
	}
	if diff := cmp.Diff(interClaims(), chain[0].Claims()); diff != "" || len(chain) != 1 || chain.Header() != vectorChain {
		t.Errorf("chain of %d (-want +got):\n%s", len(chain), diff)
	}
}

// The claims lie in the envelope as they were signed.
func TestVectorClaims(t *testing.T) {
	t.Parallel()
	want, err := hex.DecodeString(vectorClaims)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(issue(t, rootKey(), claims()).Header(), "v1="))
	if err != nil {
		t.Fatal(err)
	}
	// a2, "claims", a byte string of 164; "sig", a byte string of 64.
	got := slicedBetween(envelope, []byte("\xa2\x66claims\x58\xa4"), []byte("\x63sig\x58\x40"))
	if !bytes.Equal(got, want) {
		t.Errorf("claims: got %x, want %x", got, want)
	}
	if !ed25519.Verify(publicOf(rootKey()), want, envelope[len(envelope)-64:]) {
		t.Error("the signature does not verify over the claims")
	}
}

func slicedBetween(content, before, after []byte) []byte {
	rest, ok := bytes.CutPrefix(content, before)
	if !ok {
		return nil
	}
	inner, _, _ := bytes.Cut(rest, after)
	return inner
}

func TestVectorsVerify(t *testing.T) {
	t.Parallel()
	leaf, err := identity.Parse(vectorLeaf)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := identity.ParseChain(vectorChain)
	if err != nil {
		t.Fatal(err)
	}
	rootLeaf, err := identity.Parse(vectorRootLeaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := identity.Verify(rootLeaf, nil, options()); err != nil {
		t.Errorf("leaf of the root: %v", err)
	}
	if err := identity.Verify(leaf, chain, options()); err != nil {
		t.Errorf("leaf of the intermediate: %v", err)
	}
}

// options trust the root of the vectors, in their window.
func options() identity.Options {
	return identity.Options{
		Bundle: map[string]ed25519.PublicKey{"root": publicOf(rootKey())}, TrustDomain: "fleet.example", Now: time.Unix(1900000000, 0),
	}
}
