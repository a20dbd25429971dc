//go:build unix

package identity_test

import (
	"crypto/ed25519"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/identity"
	"quorumbox/internal/peer"
)

// current returns claims that are valid at the time of the test.
func current(claims identity.Claims) identity.Claims {
	claims.NotBefore, claims.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	return claims
}

func expired(claims identity.Claims) identity.Claims {
	claims.NotBefore, claims.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	return claims
}

// put puts a file into place as an operator should.
func put(tb testing.TB, path, text string) {
	tb.Helper()
	if err := identity.WriteFile(path, []byte(text)); err != nil {
		tb.Fatal(err)
	}
}

// headers is what a holder gives, with the text of the warning.
type headers struct{ Cred, Chain, Warn string }

func headersFor(h *identity.Holder, signer ed25519.PublicKey) headers {
	cred, chain, warn := h.Headers(signer)
	got := headers{Cred: cred, Chain: chain}
	if warn != nil {
		got.Warn = warn.Error()
	}
	return got
}

// headersOf are those of a push whose signer does not count.
func headersOf(h *identity.Holder) headers { return headersFor(h, nil) }

// want compares headers; of the warning the wanted text must be a part, and none be there if none is wanted.
func (got headers) want(tb testing.TB, want headers) {
	tb.Helper()
	if strings.Contains(got.Warn, want.Warn) && want.Warn != "" {
		got.Warn = want.Warn
	}
	if diff := cmp.Diff(want, got); diff != "" {
		tb.Errorf("headers (-want +got):\n%s", diff)
	}
}

func TestHolderHeaders(t *testing.T) {
	t.Parallel()
	leaf, chain := issue(t, interKey(), current(leafClaims())).Header(), identity.Chain{issue(t, rootKey(), current(interClaims()))}.Header()
	rootLeaf := issue(t, rootKey(), current(claims())).Header()
	old, oldChain := issue(t, interKey(), expired(leafClaims())).Header(), identity.Chain{issue(t, rootKey(), expired(interClaims()))}.Header()
	future := current(claims())
	future.NotBefore = future.NotAfter
	notYet := issue(t, rootKey(), future).Header()
	for _, test := range []struct {
		name        string
		cred, chain string // the files' texts; "-" for a file that is not there, "" for no such setting
		want        headers
	}{
		{name: "nothing set"},
		{name: "root-signed leaf", cred: rootLeaf, want: headers{Cred: rootLeaf}},
		{name: "blanks around it", cred: "\n " + rootLeaf + " \r\n", want: headers{Cred: rootLeaf}},
		{name: "leaf and intermediate", cred: leaf, chain: chain + "\n", want: headers{Cred: leaf, Chain: chain}},
		{name: "chain without a credential", chain: chain, want: headers{Warn: "a chain is set and no credential"}},
		{name: "missing credential", cred: "-", chain: chain, want: headers{Warn: "no such file"}},
		{name: "empty credential", cred: "\n", want: headers{Warn: "is empty"}},
		{name: "malformed credential", cred: "v1=", chain: chain, want: headers{Warn: "is left out: credential_malformed"}},
		{name: "two lines", cred: rootLeaf + "\n" + rootLeaf, want: headers{Warn: "is left out: credential_malformed"}},
		{name: "credential of another version", cred: "v2=oA==", want: headers{Warn: "is left out: credential_unsupported_version"}},
		{name: "huge credential", cred: strings.Repeat("x", 8<<10+1), want: headers{Warn: "is larger than 8192 bytes"}},
		{name: "missing chain", cred: leaf, chain: "-", want: headers{Cred: leaf, Warn: "no such file"}},
		{name: "empty chain", cred: leaf, chain: "v1=gA==", want: headers{Cred: leaf, Warn: "is left out: chain_empty"}},
		{name: "malformed chain", cred: leaf, chain: leaf, want: headers{Cred: leaf, Warn: "is left out: credential_malformed"}},
		{name: "expired credential", cred: old, chain: chain, want: headers{Cred: old, Chain: chain, Warn: "is sent, and peers will refuse it: credential_expired"}},
		{name: "credential of the future", cred: notYet, want: headers{Cred: notYet, Warn: "credential_not_yet_valid"}},
		{name: "expired chain", cred: leaf, chain: oldChain, want: headers{Cred: leaf, Chain: oldChain, Warn: "is sent, and peers will refuse it: credential_expired"}},
		{name: "chain of another leaf", cred: rootLeaf, chain: chain, want: headers{Cred: rootLeaf, Chain: chain, Warn: "chain_name_mismatch"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := func(name, text string) string {
				if text == "" {
					return ""
				}
				file := filepath.Join(dir, name)
				if text != "-" {
					put(t, file, text)
				}
				return file
			}
			h := identity.NewHolder(path("cred", test.cred), path("chain", test.chain))
			headersOf(h).want(t, test.want)
			test.want.Warn = ""
			headersOf(h).want(t, test.want) // the warning comes once
		})
	}
}

func TestHolderRefusesFiles(t *testing.T) {
	t.Parallel()
	text := issue(t, rootKey(), current(claims())).Header()
	for _, test := range []struct {
		name string
		make func(t *testing.T, path string)
		want string // of the warning; "" for none
	}{
		{"group can read", func(t *testing.T, path string) { t.Helper(); chmod(t, path, 0o640) }, ""},
		{"all can read", func(t *testing.T, path string) { t.Helper(); chmod(t, path, 0o444) }, ""},
		{"group can write", func(t *testing.T, path string) { t.Helper(); chmod(t, path, 0o664) }, "run chmod go-w"},
		{"others can write", func(t *testing.T, path string) { t.Helper(); chmod(t, path, 0o602) }, "run chmod go-w"},
		{"symbolic link", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Rename(path, path+".target"); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(path+".target", path); err != nil {
				t.Fatal(err)
			}
		}, ""},
		{"folder", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "no regular file"},
		{"named pipe", func(t *testing.T, path string) {
			t.Helper()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "no regular file"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "cred")
			put(t, path, text)
			test.make(t, path)
			want := headers{Cred: text}
			if test.want != "" {
				want = headers{Warn: test.want}
			}
			headersOf(identity.NewHolder(path, "")).want(t, want)
		})
	}
}

func chmod(tb testing.TB, path string, mode os.FileMode) {
	tb.Helper()
	if err := os.Chmod(path, mode); err != nil {
		tb.Fatal(err)
	}
}

// A warning comes when a fault begins, when it becomes another one, and when it begins again.
func TestHolderWarnsOncePerChange(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cred")
	h := identity.NewHolder(path, "")
	good := issue(t, rootKey(), current(claims())).Header()
	missing := func() {
		headersOf(h).want(t, headers{Warn: "no such file"})
		headersOf(h).want(t, headers{})
	}
	missing()
	put(t, path, "v1=")
	headersOf(h).want(t, headers{Warn: "credential_malformed"})
	headersOf(h).want(t, headers{})
	put(t, path, good)
	headersOf(h).want(t, headers{Cred: good})
	chmod(t, path, 0o666)
	headersOf(h).want(t, headers{Warn: "chmod go-w"})
	headersOf(h).want(t, headers{})
	chmod(t, path, 0o644)
	headersOf(h).want(t, headers{Cred: good})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	missing()
	put(t, path, good)
	headersOf(h).want(t, headers{Cred: good})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	missing() // the same fault as before, begun again
}

func TestHolderExpects(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cred")
	text := issue(t, rootKey(), current(claims())).Header()
	put(t, path, text)
	for _, test := range []struct {
		name   string
		sender string
		key    ed25519.PublicKey
		want   headers
	}{
		{"nothing", "", nil, headers{Cred: text}},
		{"this sender", "ai:leader", publicOf(nodeKey()), headers{Cred: text}},
		{"another sender", "ai:other", nil, headers{Warn: `it is for "ai:leader" and the sender is "ai:other"`}},
		{"another key", "ai:leader", publicOf(rootKey()), headers{Warn: "it is for another key"}},
	} {
		h := identity.NewHolder(path, "")
		h.Expect(test.sender)
		t.Run(test.name, func(t *testing.T) { headersFor(h, test.key).want(t, test.want) })
	}
}

// A credential that was put into place between two pushes is that of the second: checklist row 13.
func TestHolderRotation(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var seen []headers
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, headers{Cred: r.Header.Get("X-Memory-Cred"), Chain: r.Header.Get("X-Memory-Cred-Chain")})
		_, _ = io.WriteString(w, `{"applied":0}`)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	credFile, chainFile := filepath.Join(dir, "cred"), filepath.Join(dir, "chain")
	holder := identity.NewHolder(credFile, chainFile)
	client, err := peer.New(peer.Config{
		ID: "peer-a", URL: server.URL, SenderID: "ai:leader", SigningKey: nodeKey(),
		AllowNets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Credential: func(signer ed25519.PublicKey) (string, string) {
			cred, chain, _ := holder.Headers(signer)
			return cred, chain
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdle)
	push := func() {
		t.Helper()
		if err := client.Post(t.Context(), peer.Request{Body: peer.Message{}.Encode("ai:leader")}); err != nil {
			t.Fatal(err)
		}
	}
	chain := identity.Chain{issue(t, rootKey(), current(interClaims()))}.Header()
	put(t, chainFile, chain)
	want := []headers{{}}
	push() // no credential yet
	for i := range 3 {
		// Of the same length and time each time, so that nothing tells but that it is another file.
		next := current(leafClaims())
		next.NotAfter = next.NotAfter.Add(time.Duration(i) * time.Second)
		cred := issue(t, interKey(), next).Header()
		put(t, credFile, cred)
		if err := os.Chtimes(credFile, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		want = append(want, headers{Cred: cred, Chain: chain})
		push()
	}
	if err := os.Remove(chainFile); err != nil {
		t.Fatal(err)
	}
	push()
	want = append(want, headers{Cred: want[3].Cred})
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// While a file is replaced again and again, every push has a whole credential, and none that is older than one it had before.
func TestHolderConcurrently(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "cred")
	texts := make([]string, 50)
	age := map[string]int{}
	for i := range texts {
		c := current(claims())
		c.TrustDomain = strings.Repeat("x", i+1)
		texts[i] = issue(t, rootKey(), c).Header()
		age[texts[i]] = i
	}
	put(t, path, texts[0])
	h := identity.NewHolder(path, "")
	var done atomic.Bool
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			last := 0
			for !done.Load() {
				got := headersOf(h)
				now, known := age[got.Cred]
				if !known || now < last || got.Warn != "" {
					t.Errorf("got %.40q of age %d after %d, warning %q", got.Cred, now, last, got.Warn)
					return
				}
				last = now
			}
		})
	}
	for _, text := range texts[1:] {
		put(t, path, text)
	}
	done.Store(true)
	group.Wait()
	headersOf(h).want(t, headers{Cred: texts[len(texts)-1]})
}
