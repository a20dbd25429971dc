package refpeer_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/refpeer"
)

// every is a push with an item in each list.
func every(t *testing.T) string {
	t.Helper()
	return bodyOf(t, fields{
		"memories":  []any{json.RawMessage(memoryJSON(t, fields{"id": "store", "title": "store"}))},
		"deletions": []string{"delete"}, "archives": []string{"archive"}, "restores": []string{"restore"},
		"links": []any{linkOf("source", "related_to", "target")}, "pendings": []any{pendingOf("pending", nil)},
		"pending_decisions": []any{decisionOf("decision", true)}, "namespace_meta": []any{standardOf("set", "standard", nil)},
		"namespace_meta_clears": []string{"clear", "other"},
	})
}

// TestFaultsPassOver wants a fault to leave pushes alone that do not meet its
// condition, and its count with them.
func TestFaultsPassOver(t *testing.T) {
	t.Parallel()
	body := every(t)
	for fault, want := range map[string]int{
		`{"status":503,"id":"store"}`:                                                 503,
		`{"status":503,"id":"delete"}`:                                                503,
		`{"status":503,"id":"archive"}`:                                               503,
		`{"status":503,"id":"restore"}`:                                               503,
		`{"status":503,"id":"source"}`:                                                503,
		`{"status":503,"id":"target"}`:                                                503,
		`{"status":503,"id":"pending"}`:                                               503,
		`{"status":503,"id":"decision"}`:                                              503,
		`{"status":503,"id":"set"}`:                                                   503,
		`{"status":503,"id":"clear"}`:                                                 503,
		`{"status":503,"id":"standard"}`:                                              200,
		`{"status":503,"id":"title"}`:                                                 200,
		`{"status":503,"above_items":9}`:                                              503,
		`{"status":503,"above_items":10}`:                                             200,
		`{"status":503,"list":"archives"}`:                                            503,
		`{"status":503,"list":"embeddings"}`:                                          200,
		fmt.Sprintf(`{"status":503,"above_bytes":%d}`, len(body)-1):                   503,
		fmt.Sprintf(`{"status":503,"above_bytes":%d}`, len(body)):                     200,
		fmt.Sprintf(`{"status":503,"id":"store","above_bytes":%d}`, len(body)):        200,
		`{"status":503,"id":"store","list":"embeddings"}`:                             200,
		`[{"status":503,"id":"x"},{"status":500,"id":"store"},{"status":502}]`:        500,
		`[{"status":503,"id":"x"},{"status":502}]`:                                    502,
		`[{"status":503,"id":"x"},{"status":502,"count":1},{"mode":"down","id":"y"}]`: 502,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			faults, err := refpeer.ParseFaults([]byte(fault))
			if err != nil {
				t.Fatal(err)
			}
			for i := range faults {
				faults[i].Count = 1
			}
			peer := openPeer(t, refpeer.Config{Faults: faults})
			if a := send(t, peer, body); a.status != want {
				t.Fatalf("got %d %s, want %d", a.status, a.body, want)
			}
			left := len(faults)
			if want != http.StatusOK {
				left--
			}
			if got := peer.Faults(); len(got) != left {
				t.Errorf("got faults %v, want %d left", got, left)
			}
		})
	}
}

// TestFaultOfMalformedBody wants conditions on what is in a body not to meet
// one that cannot be read.
func TestFaultOfMalformedBody(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{
		{Mode: refpeer.ModeStatus, Status: 503, ID: "x"}, {Mode: refpeer.ModeStatus, Status: 413, AboveBytes: 5},
	}})
	if a := send(t, peer, "{"); a.status != http.StatusBadRequest {
		t.Errorf("short: got %d, want 400", a.status)
	}
	if a := send(t, peer, "{{{{{{"); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("long: got %d, want 413", a.status)
	}
}

// TestRefuseID wants the item with the id left alone in every list, again and
// again, and the others applied.
func TestRefuseID(t *testing.T) {
	t.Parallel()
	for id, list := range map[string]string{
		"store": "applied", "source": "links_applied", "target": "links_applied", "pending": "pendings_applied",
		"set": "namespace_meta_applied",
	} {
		t.Run(id, func(t *testing.T) {
			t.Parallel()
			peer := openPeer(t, refpeer.Config{})
			storeAll(t, peer, "source", "target", "standard")
			if err := peer.SetFaults(refpeer.Faults{{Mode: refpeer.ModeRefuseID, ID: id}}); err != nil {
				t.Fatal(err)
			}
			got := send(t, peer, every(t)).json(t)
			for _, name := range []string{"applied", "links_applied", "pendings_applied", "namespace_meta_applied"} {
				want := 1.0
				if name == list {
					want = 0
				}
				if got[name] != want {
					t.Errorf("%s: got %v, want %v", name, got[name], want)
				}
			}
			if got["skipped"] != 1.0 || send(t, peer, every(t)).json(t)["skipped"] != 1.0 {
				t.Errorf("got skipped %v, want 1, and 1 again", got["skipped"])
			}
			if got := send(t, peer, emptyPush).json(t); got["skipped"] != 0.0 {
				t.Errorf("a push without it: got %v, want nothing skipped", got)
			}
		})
	}
}

// TestRefuseIDs wants several refused ids to count at once, each for as long as
// its own count says.
func TestRefuseIDs(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{
		{Mode: refpeer.ModeRefuseID, ID: "a"},
		{Mode: refpeer.ModeRefuseID, ID: "absent"},
		{Mode: refpeer.ModeRefuseID, ID: "b", Count: 1},
		{Mode: refpeer.ModeStatus, Status: 503, ID: "d"},
	}})
	push := func(ids ...string) answer {
		var memories []string
		for _, id := range ids {
			memories = append(memories, memoryJSON(t, fields{"id": id, "title": id}))
		}
		return send(t, peer, pushBody(t, memories))
	}
	for i, want := range []float64{2, 1, 1} {
		if got := push("a", "b", "c").json(t); got["skipped"] != want || got["applied"] != 3-want {
			t.Errorf("push %d: got %v, want %v skipped and the others applied", i+1, got, want)
		}
	}
	if a := push("d"); a.status != http.StatusServiceUnavailable {
		t.Errorf("another fault: got %d, want 503", a.status)
	}
	if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"b", "c"}) {
		t.Errorf("got rows %v, want b and c", got)
	}
}

// TestIDs wants the key of every item, as the protocol names them.
func TestIDs(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeIDs}}})
	want := []any{
		"store", "delete", "archive", "restore", "sourcetarget", "pending", "decision", "set", "clear", "other", "clear,other",
	}
	if diff := cmp.Diff(want, send(t, peer, every(t)).json(t)["ids"]); diff != "" {
		t.Errorf("ids (-want +got):\n%s", diff)
	}
}

// TestDisguises wants what lies under a compressed or a cut answer to be the
// usual one.
func TestDisguises(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{{Mode: refpeer.ModeGzip, Count: 1}, {Mode: refpeer.ModeTruncated}}})
	zip, err := gzip.NewReader(bytes.NewReader(send(t, peer, emptyPush).body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(zip)
	if err != nil || !json.Valid(plain) {
		t.Errorf("got %s (%v), want JSON", plain, err)
	}
	if cut := send(t, peer, emptyPush).body; json.Valid(cut) || !bytes.HasPrefix(plain, cut) {
		t.Errorf("got %s, want the beginning of %s", cut, plain)
	}
}

// TestQuotaFault wants a fault's quota to count what was really applied, over
// several pushes, and to end when it is back.
func TestQuotaFault(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		peer, err := refpeer.Open(t.Context(), refpeer.Config{
			DataDir: dir, Faults: refpeer.Faults{{Mode: refpeer.ModeQuota, After: 3, ResetIn: 90 * time.Second}},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := peer.Close(); err != nil {
				t.Error(err)
			}
		}()
		memory := func(id string, priority int) string {
			return memoryJSON(t, fields{"id": id, "title": id, "priority": priority})
		}
		push := func(memories ...string) answer { return send(t, peer, pushBody(t, memories, "a")) }
		if got := push(memory("a", 1), memory("bad", 99)).json(t); got["applied"] != 1.0 || got["skipped"] != 1.0 || got["deleted"] != 1.0 {
			t.Errorf("first: got %v, want applied 1, skipped 1, deleted 1", got)
		}
		if n := peer.Counters().Faults[refpeer.ModeQuota]; n != 0 {
			t.Errorf("got the fault %d times, want 0: it has refused nothing", n)
		}
		a := push(memory("a", 1), memory("b", 1), memory("c", 1), memory("d", 1))
		got := a.json(t)
		back := time.Now().UTC().Add(90 * time.Second)
		if a.status != 429 || got["applied_before_refusal"] != 2.0 || got["quota_refused"] != 2.0 {
			t.Errorf("second: got %d %v, want 429 with 2 applied and 2 refused", a.status, got)
		}
		if want := back.Format(time.RFC3339); got["reset_at"] != want || a.header.Get("X-Quota-Reset-At") != want {
			t.Errorf("reset_at: got %v and %v, want %s", got["reset_at"], a.header.Get("X-Quota-Reset-At"), want)
		}
		if got := ids(rows(t, peer)); !cmp.Equal(got, []string{"a", "b"}) {
			t.Errorf("got rows %v, want a and b: nothing after the refusal", got)
		}
		if a := send(t, peer, pushBody(t, nil, "a")); a.status != 200 {
			t.Errorf("without memories: got %d, want 200", a.status)
		}
		time.Sleep(time.Until(back) - time.Nanosecond)
		if a := push(memory("c", 1)); a.status != 429 || a.json(t)["reset_at"] != back.Format(time.RFC3339) {
			t.Errorf("just before: got %d %s, want 429 with the same time", a.status, a.body)
		}
		time.Sleep(time.Nanosecond)
		if a := push(memory("c", 1)); a.status != 200 {
			t.Errorf("at reset_at: got %d %s, want 200", a.status, a.body)
		}
		if n := peer.Counters().Faults[refpeer.ModeQuota]; n != 2 || len(peer.Faults()) != 0 {
			t.Errorf("got the fault %d times and %v left, want 2 and none", n, peer.Faults())
		}
	})
}

// TestDuplicateKeys wants keys counted that an applied push had before.
func TestDuplicateKeys(t *testing.T) {
	t.Parallel()
	peer := openPeer(t, refpeer.Config{Faults: refpeer.Faults{
		{Mode: refpeer.ModeStatus, Status: 503, Count: 1}, {Mode: refpeer.ModeLoseAnswer, Count: 1},
	}})
	push := func(key string) {
		r := pushRequest(t.Context(), emptyPush)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		serve(peer.Handler(), r)
	}
	for i, tt := range []struct {
		key  string
		want int64
	}{
		{"refused", 0}, {"lost", 0}, {"refused", 0}, {"lost", 1}, {"other", 1}, {"", 1}, {"", 1}, {"lost", 2},
	} {
		push(tt.key)
		if got := peer.Counters().DuplicateKeys; got != tt.want {
			t.Errorf("push %d: got %d duplicate keys, want %d", i+1, got, tt.want)
		}
	}
}
