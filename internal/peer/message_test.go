package peer_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/peer"
)

func TestMessageEncode(t *testing.T) {
	t.Parallel()
	one := json.RawMessage(`{"id":"m-1"}`)
	two := json.RawMessage(`{"id":"m-2","title":"é"}`)
	tests := []struct {
		name    string
		message peer.Message
		want    string
		items   int
	}{
		{"empty", peer.Message{}, `{"dry_run":false,"memories":[],"sender_agent_id":"ai:leader"}`, 0},
		{
			"one memory",
			peer.Message{Memories: []json.RawMessage{one}},
			`{"dry_run":false,"memories":[{"id":"m-1"}],"sender_agent_id":"ai:leader"}`, 1,
		},
		{
			"memories keep their order",
			peer.Message{Memories: []json.RawMessage{two, one}},
			`{"dry_run":false,"memories":[{"id":"m-2","title":"é"},{"id":"m-1"}],"sender_agent_id":"ai:leader"}`, 2,
		},
		{
			"deletions only",
			peer.Message{Deletions: []string{"m-1", "m-2"}},
			`{"deletions":["m-1","m-2"],"dry_run":false,"memories":[],"sender_agent_id":"ai:leader"}`, 2,
		},
		{
			"every list",
			peer.Message{
				Memories: []json.RawMessage{one}, Deletions: []string{"d"}, Archives: []string{"a"}, Restores: []string{"r"},
				Embeddings: []json.RawMessage{[]byte(`{"e":1}`)},
				Links:      []json.RawMessage{[]byte(`{"l":1}`)}, Pendings: []json.RawMessage{[]byte(`{"p":1}`)},
				PendingDecisions: []json.RawMessage{[]byte(`{"pd":1}`)}, NamespaceMeta: []json.RawMessage{[]byte(`{"n":1}`)},
				NamespaceMetaClears: []string{"x", "y"},
			},
			`{"archives":["a"],"deletions":["d"],"dry_run":false,"embeddings":[{"e":1}],"links":[{"l":1}],"memories":[{"id":"m-1"}],` +
				`"namespace_meta":[{"n":1}],"namespace_meta_clears":["x","y"],"pending_decisions":[{"pd":1}],"pendings":[{"p":1}],` +
				`"restores":["r"],"sender_agent_id":"ai:leader"}`, 10,
		},
		{
			"embeddings are no items",
			peer.Message{Memories: []json.RawMessage{one}, Embeddings: []json.RawMessage{[]byte(`{"e":1}`), []byte(`{"e":2}`)}, Deletions: []string{"d"}},
			`{"deletions":["d"],"dry_run":false,"embeddings":[{"e":1},{"e":2}],"memories":[{"id":"m-1"}],"sender_agent_id":"ai:leader"}`, 2,
		},
		{
			"escapes as serde_json does",
			peer.Message{Deletions: []string{"\"\\\n\r\t\b\f\x01\x1f</é\xff"}},
			`{"deletions":["\"\\\n\r\t\b\f\u0001\u001f</é` + "\uFFFD" + `"],"dry_run":false,"memories":[],"sender_agent_id":"ai:leader"}`, 1,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := string(test.message.Encode("ai:leader"))
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not JSON: %s", got)
			}
			if got := test.message.Items(); got != test.items {
				t.Errorf("items: got %d, want %d", got, test.items)
			}
		})
	}
}

func TestMessageEncodeAllocatesOnce(t *testing.T) {
	message := peer.Message{
		Memories:   []json.RawMessage{[]byte(`{"id":"m-1","content":"` + strings.Repeat("x", 5000) + `"}`)},
		Deletions:  []string{"m-2", "m-3"},
		Embeddings: []json.RawMessage{[]byte(`{"memory_id":"m-1","vector":[0.5]}`)},
	}
	var sink []byte
	allocs := testing.AllocsPerRun(100, func() { sink = message.Encode(senderID) })
	if allocs != 1 {
		t.Errorf("allocations: got %v, want 1", allocs)
	}
	if waste := cap(sink) - len(sink); waste > 1024 {
		t.Errorf("unused capacity: got %d bytes, want less than 1024", waste)
	}
}

// FuzzEncode checks that whatever text goes in comes out of a JSON parser, with encoding/json as the oracle.
func FuzzEncode(f *testing.F) {
	f.Add("m-1", "ai:leader")
	f.Add("\x00\"\\\u2028<>&", "é\xff\xfe")
	f.Fuzz(func(t *testing.T, id, sender string) {
		var got struct {
			Deletions []string `json:"deletions"`
			Sender    string   `json:"sender_agent_id"`
			Memories  []any    `json:"memories"`
		}
		if err := json.Unmarshal(peer.Message{Deletions: []string{id}}.Encode(sender), &got); err != nil {
			t.Fatalf("not JSON: %v", err)
		}
		if want := string([]rune(sender)); got.Sender != want {
			t.Errorf("sender: got %q, want %q", got.Sender, want)
		}
		if want := string([]rune(id)); got.Deletions[0] != want {
			t.Errorf("id: got %q, want %q", got.Deletions[0], want)
		}
	})
}
