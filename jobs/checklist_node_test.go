package jobs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"quorumbox/internal/refpeer"
)

// node is a reference peer that keeps the requests it got.
type node struct {
	peer   *refpeer.Peer
	server *httptest.Server

	mu       sync.Mutex
	requests []request
	held     chan struct{} // closed to let requests go on; nil: they do
}

// request is one push as it arrived.
type request struct {
	at     time.Time
	header http.Header
	body   []byte
}

func newNode(t *testing.T, cfg refpeer.Config) *node {
	t.Helper()
	cfg.DataDir = t.TempDir()
	n := &node{}
	var err error
	if n.peer, err = refpeer.Open(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.peer.Close(); err != nil {
			t.Errorf("close peer: %v", err)
		}
	})
	n.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.requests = append(n.requests, request{at: time.Now(), header: r.Header.Clone(), body: body})
		held := n.held
		n.mu.Unlock()
		if held != nil {
			select {
			case <-held:
			case <-r.Context().Done():
				return
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		n.peer.Handler().ServeHTTP(w, r)
	}))
	n.server.Config.ErrorLog = log.New(t.Output(), "", 0)
	n.server.Start()
	t.Cleanup(n.server.Close)
	return n
}

// fault sets what goes wrong at the node; nothing clears it.
func (n *node) fault(t *testing.T, faults ...refpeer.Fault) {
	t.Helper()
	if err := n.peer.SetFaults(faults); err != nil {
		t.Fatal(err)
	}
}

// hold keeps requests waiting until release is called, so that what the node answers comes after something else.
func (n *node) hold() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.held = make(chan struct{})
}

func (n *node) release() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.held != nil {
		close(n.held)
		n.held = nil
	}
}

// got is the requests so far.
func (n *node) got() []request {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.requests)
}

// forget drops them.
func (n *node) forget() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.requests = nil
}

// shown is requests as texts: see [request.String].
func shown(requests []request) []string {
	list := make([]string, len(requests))
	for i, r := range requests {
		list[i] = r.String()
	}
	return list
}

// String is the idempotency key, then every field of the body in the order of the names: "m-1: deletions=m-1 dry_run=false …".
func (r request) String() string {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(r.body, &body); err != nil {
		return fmt.Sprintf("%v: %s", err, r.body)
	}
	var fields []string
	for name, value := range body {
		fields = append(fields, name+"="+show(value))
	}
	slices.Sort(fields)
	return r.header.Get("Idempotency-Key") + ": " + strings.Join(fields, " ")
}

// show is a field: the texts of a list, of objects what tells them apart.
func show(value json.RawMessage) string {
	var list []json.RawMessage
	if err := json.Unmarshal(value, &list); err != nil {
		return strings.Trim(string(value), `"`)
	}
	var parts []string
	for _, element := range list {
		var object struct {
			ID        string
			MemoryID  string `json:"memory_id"`
			Source    string `json:"source_id"`
			Target    string `json:"target_id"`
			Namespace string
			Standard  string `json:"standard_id"`
			Parent    string `json:"parent_namespace"`
			Approved  *bool
		}
		if err := json.Unmarshal(element, &object); err != nil {
			parts = append(parts, strings.Trim(string(element), `"`))
			continue
		}
		switch {
		case object.Standard != "":
			parts = append(parts, object.Namespace+"<"+object.Standard+"^"+object.Parent)
		case object.Source != "":
			parts = append(parts, object.Source+">"+object.Target)
		case object.Approved != nil:
			parts = append(parts, fmt.Sprintf("%s:%t", object.ID, *object.Approved))
		case object.ID != "":
			parts = append(parts, object.ID)
		default:
			parts = append(parts, object.MemoryID)
		}
	}
	return strings.Join(parts, ",")
}

// sent is the text of a request with nothing else than these lists.
func sent(key string, lists ...string) string {
	fields := append([]string{"dry_run=false", "sender_agent_id=" + leader}, lists...)
	if !slices.ContainsFunc(lists, func(l string) bool { return strings.HasPrefix(l, "memories=") }) {
		fields = append(fields, "memories=")
	}
	slices.Sort(fields)
	return key + ": " + strings.Join(fields, " ")
}

// holdings is what a peer has.
type holdings struct{ Live, Vectors, Archived, Links, Pendings, Standards []string }

func (n *node) holds(t *testing.T) (h holdings) {
	t.Helper()
	idOf := func(text []byte) string {
		var m struct{ ID string }
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return m.ID
	}
	var live bytes.Buffer
	if err := n.peer.Memories(t.Context(), &live); err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(live.Bytes()) {
		h.Live = append(h.Live, idOf(line))
	}
	state, err := n.peer.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range state.Embeddings {
		h.Vectors = append(h.Vectors, v.MemoryID)
	}
	for _, a := range state.Archived {
		h.Archived = append(h.Archived, idOf(a))
	}
	for _, l := range state.Links {
		h.Links = append(h.Links, l.SourceID+">"+l.TargetID)
	}
	for _, p := range state.Pendings {
		h.Pendings = append(h.Pendings, p.ID+" "+p.Status)
	}
	for _, s := range state.NamespaceMeta {
		parent := ""
		if s.ParentNamespace != nil {
			parent = *s.ParentNamespace
		}
		h.Standards = append(h.Standards, s.Namespace+"<"+s.StandardID+"^"+parent)
	}
	return h
}
