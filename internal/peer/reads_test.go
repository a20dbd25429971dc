package peer_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
	"quorumbox/internal/secret"
)

// answering answers every request with one body.
func answering(body string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, body) }
}

func TestReads(t *testing.T) {
	t.Parallel()
	page := peer.Page{Namespace: "a/b &c", Limit: 2, Offset: 4, AsAgent: "ai:x"}
	for _, tt := range []struct {
		name, answer, path string
		read               func(*peer.Client) (any, error)
		want               any
	}{
		{
			"memories", `{"count":1,"memories":[{"id":"m","namespace":"n","title":"t","tags":["a"],"metadata":{"k":1},"new":null}]}`,
			"/api/v1/memories?limit=2&namespace=a%2Fb+%26c&offset=4",
			func(c *peer.Client) (any, error) { return c.Memories(t.Context(), page) },
			[]peer.StoredMemory{{ID: "m", Namespace: "n", Title: "t", Tags: []byte(`["a"]`), Metadata: []byte(`{"k":1}`)}},
		},
		{
			"archive", `{"archived":[{"id":"m","namespace":"n"}]}`, "/api/v1/archive?limit=3&offset=0",
			func(c *peer.Client) (any, error) { return c.Archive(t.Context(), peer.Page{Limit: 3, AsAgent: "ai:x"}) },
			[]peer.ArchivedMemory{{ID: "m", Namespace: "n"}},
		},
		{
			"pendings", `{"pending":[{"id":"p","memory_id":null,"status":"pending"},{"id":"q","decided_by":"ai:y"}]}`,
			"/api/v1/pending?limit=2&namespace=a%2Fb+%26c&offset=4",
			func(c *peer.Client) (any, error) { return c.Pendings(t.Context(), page) },
			[]peer.StoredPending{{ID: "p", Status: "pending"}, {ID: "q", DecidedBy: "ai:y"}},
		},
		{
			"links", `{"links":[{"source_id":"m","target_id":"o","relation":"related_to"}]}`, "/api/v1/links/m@1",
			func(c *peer.Client) (any, error) { return c.Links(t.Context(), "m@1", "ai:x") },
			[]peer.StoredLink{{SourceID: "m", TargetID: "o", Relation: "related_to"}},
		},
		{
			"standard", `{"namespace":"n","standard_id":"m","parent_namespace":null}`, "/api/v1/namespaces?namespace=n%2Fo",
			func(c *peer.Client) (any, error) { return c.Standard(t.Context(), "n/o", "ai:x") },
			peer.Standard{StandardID: "m"},
		},
		{
			"namespaces", `{"namespaces":["a",{"namespace":"b","count":2},{}]}`, "/api/v1/namespaces",
			func(c *peer.Client) (any, error) { return c.Namespaces(t.Context(), "ai:x") },
			[]string{"a", "b"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, answering(tt.answer))
			got, err := tt.read(newClient(t, rec.URL, signed, func(cfg *peer.Config) { cfg.APIKey = secret.New("k") }))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
			request := rec.all()[0]
			if request.method != http.MethodGet || request.path != tt.path || request.length != 0 {
				t.Errorf("got %s %s with %d bytes, want GET %s", request.method, request.path, request.length, tt.path)
			}
			for name, want := range map[string]string{"X-Peer-Id": senderID, "X-Agent-Id": "ai:x", "X-Api-Key": "k", "X-Memory-Sig": "", "Content-Type": ""} {
				if got := request.header.Get(name); got != want {
					t.Errorf("%s: got %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestReadMemory(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/api/v1/memories/m":
			_, _ = io.WriteString(w, `{"memory":{"id":"m"},"links":[{"source_id":"m"}]}`)
		case "/base/api/v1/memories/other":
			_, _ = io.WriteString(w, `{"memory":{"id":"m"},"links":[]}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	client := newClient(t, rec.URL+"/base/")
	m, links, found, err := client.Memory(t.Context(), "m", "")
	if err != nil || !found || m.ID != "m" || len(links) != 1 {
		t.Errorf("got %v, %v, %t, %v, want m with its link", m, links, found, err)
	}
	if _, given := rec.all()[0].header["X-Agent-Id"]; given {
		t.Error("x-agent-id was sent for nobody")
	}
	if _, _, found, err = client.Memory(t.Context(), "none", ""); found || err != nil {
		t.Errorf("absent: got %t, %v, want neither", found, err)
	}
	_, _, _, err = client.Memory(t.Context(), "other", "")
	checkClass(t, err, peer.ClassMalformedAnswer, peer.Unknown)
	if links, err := client.Links(t.Context(), "none", ""); len(links) != 0 || err != nil {
		t.Errorf("links of an absent one: got %v, %v, want none", links, err)
	}
	if s, err := client.Standard(t.Context(), "none", ""); s != (peer.Standard{}) || err != nil {
		t.Errorf("no standard: got %v, %v, want none", s, err)
	}
}

// What a peer answers gets neither into errors nor, without bound, into memory.
func TestReadsOfHostilePeers(t *testing.T) {
	t.Parallel()
	const theirs = "sent-by-the-peer"
	for _, tt := range []struct {
		name   string
		answer func(w http.ResponseWriter)
		class  peer.Class
		long   bool
	}{
		{"HTML", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>"+theirs) }, peer.ClassMalformedAnswer, false},
		{"empty", func(http.ResponseWriter) {}, peer.ClassMalformedAnswer, false},
		{"another object", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"`+theirs+`":[]}`) }, peer.ClassMalformedAnswer, false},
		{"no list", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"memories":"`+theirs+`"}`) }, peer.ClassMalformedAnswer, false},
		{"wrong element", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"memories":[{"id":5}]}`) }, peer.ClassMalformedAnswer, false},
		{"cut", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"memories":[{"id":"a"}`) }, peer.ClassMalformedAnswer, false},
		{"two objects", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"memories":[]}{}`) }, peer.ClassMalformedAnswer, false},
		{"twice", func(w http.ResponseWriter) { _, _ = io.WriteString(w, `{"memories":[],"memories":[]}`) }, peer.ClassMalformedAnswer, false},
		{"more than asked for", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"memories":[{}`+strings.Repeat(",{}", 10)+`]}`)
		}, peer.ClassMalformedAnswer, false},
		{"deep", func(w http.ResponseWriter) {
			_, _ = io.WriteString(w, `{"memories":`+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`}`)
		}, peer.ClassMalformedAnswer, false},
		{"compressed", func(w http.ResponseWriter) { w.Header().Set("Content-Encoding", "gzip") }, peer.ClassMalformedAnswer, false},
		{"endless", func(w http.ResponseWriter) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
		}, peer.ClassMalformedAnswer, true},
		{"announced as too long", func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", fmt.Sprint(peer.MaxReadBytes+1))
			_, _ = io.WriteString(w, "{")
		}, peer.ClassMalformedAnswer, true},
		{"redirect", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/"+theirs)
			w.WriteHeader(http.StatusFound)
		}, peer.ClassRedirect, false},
		{"forbidden", func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, peer.ClassForbidden, false},
		{"not there", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, peer.ClassNotFound, false},
		{"away", func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, peer.ClassUnavailable, false},
		{"without a key", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, theirs+" missing or invalid API key")
		}, peer.ClassUnauthorized, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rec := newRecorder(t, func(_ int, w http.ResponseWriter, _ *http.Request) { tt.answer(w) })
			_, err := newClient(t, rec.URL).Memories(t.Context(), peer.Page{Limit: 10})
			e := asError(t, err)
			if e.Class != tt.class || errors.Is(err, peer.ErrLongAnswer) != tt.long || strings.Contains(fmt.Sprint(err), theirs) {
				t.Errorf("got %s (%v), too long %t, want %s, %t and nothing of the answer", e.Class, err, errors.Is(err, peer.ErrLongAnswer), tt.class, tt.long)
			}
			if len(rec.all()) != 1 {
				t.Errorf("got %d requests, want 1", len(rec.all()))
			}
		})
	}
}

func TestReadIsCut(t *testing.T) {
	t.Parallel()
	raw := newRawPeer(t, func(_ int, conn net.Conn, in *bufio.Reader) {
		if _, err := http.ReadRequest(in); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
		}
	})
	_, err := newClient(t, raw.url()).Memories(t.Context(), peer.Page{Limit: 1})
	checkClass(t, err, peer.ClassConnectionLost, peer.Unknown)
}

// What keeps pushes from leaving keeps reads, too.
func TestReadsAreGuarded(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t, answering(`{"memories":[]}`))
	page := peer.Page{Limit: 1}
	_, err := newClient(t, rec.URL, func(cfg *peer.Config) { cfg.AllowNets = nil }).Memories(t.Context(), page)
	checkClass(t, err, peer.ClassBlocked, peer.Fail)
	_, err = newClient(t, rec.URL, func(cfg *peer.Config) {
		cfg.Gate = func(string, string) error { return errors.New("not today") }
	}).Memories(t.Context(), page)
	checkClass(t, err, peer.ClassBlocked, peer.Fail)
	for _, bad := range []peer.Page{{}, {Limit: 1001}, {Limit: 1, Offset: -1}, {Limit: 1, AsAgent: "a\nb"}, {Limit: 1, AsAgent: strings.Repeat("a", 129)}} {
		_, err = newClient(t, rec.URL).Memories(t.Context(), bad)
		checkClass(t, err, peer.ClassInvalidRequest, peer.Fail)
	}
	if n := len(rec.all()); n != 0 {
		t.Errorf("%d requests got through", n)
	}
}
