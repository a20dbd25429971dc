package demo

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"quorumbox/internal/importer"
	"quorumbox/internal/peer"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

// An event goes above the panel, which is drawn again below it, and nothing of the panel is left at the end.
func TestScreenLive(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out, Live)
	s.print("one\n")
	s.panel([]string{"a", "b"})
	s.print("two\n")
	s.panel([]string{"c"})
	s.stop()
	s.print("three\n")
	s.panel([]string{"late"})
	rule := strings.Repeat("─", 72) + "\n"
	want := "one\n" +
		noWrap + rule + "a\nb\n" + wrap +
		"\x1b[3A\r\x1b[J" + "two\n" + noWrap + rule + "a\nb\n" + wrap +
		"\x1b[3A\r\x1b[J" + noWrap + rule + "c\n" + wrap +
		"\x1b[2A\r\x1b[J" +
		"three\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestScreenLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := newScreen(&out, Lines)
	s.print("one\n")
	s.panel([]string{"a"})
	s.print("two\n")
	s.stop()
	if got, want := out.String(), "one\ntwo\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 8423: "8,423", 123456: "123,456", 1234567: "1,234,567"} {
		if got := count(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

func TestPanelAndLine(t *testing.T) {
	t.Parallel()
	imported := importer.Summary{Lines: 6, Verdicts: &importer.Verdicts{Met: 4, Pruned: 1, NotMet: map[outbox.Reason]int64{outbox.ReasonTimeout: 1}}}
	report := status.Report{
		Peers: []status.Peer{
			{ID: "peer-a", InStep: true},
			{ID: "peer-b", EntriesLagging: 1204, OldestAge: 3.25, NextTry: 1.5, LastError: &status.LastError{Class: peer.ClassRefusedConnection}},
			{ID: "peer-c", EntriesLagging: 2, OldestAge: 1, Pushing: true},
		},
		Undispatched: status.Undispatched{Entries: 2},
		Undecided:    status.Undecided{Entries: 1},
	}
	alive := map[string]bool{"peer-a": true, "peer-c": true}
	want := []string{
		"import   ████████████░░░░░░░░░░░░ 6 of 12",
		"quorum   met 5, not met 1, undecided 3",
		"peer-a   up    in step",
		"peer-b   DEAD  misses 1,204 for 3.2s, next try in 1.5s (refused_connection)",
		"peer-c   up    misses 2 for 1.0s, pushing",
	}
	if diff := cmp.Diff(want, panel(12, imported, report, alive)); diff != "" {
		t.Errorf("panel (-want +got)\n%s", diff)
	}
	wantLine := "imported 6 of 12 | met 5, not met 1, undecided 3 | peer-a in step | " +
		"peer-b dead, misses 1,204 for 3.2s, next try in 1.5s (refused_connection) | peer-c misses 2 for 1.0s, pushing"
	if diff := cmp.Diff(wantLine, line(12, imported, report, alive)); diff != "" {
		t.Errorf("line (-want +got)\n%s", diff)
	}
	if got, want := panel(1, importer.Summary{Lines: 5}, status.Report{}, nil)[0], "import   ████████████████████████ 5 of 1"; got != want {
		t.Errorf("more lines than counted: got %q, want %q", got, want)
	}
}

func TestSettled(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		report status.Report
		want   bool
	}{
		"all in step":  {status.Report{Peers: []status.Peer{{InStep: true}}}, true},
		"one lags":     {status.Report{Peers: []status.Peer{{InStep: true}, {}}}, false},
		"in flight":    {status.Report{Peers: []status.Peer{{InStep: true, InFlight: 1}}}, false},
		"undispatched": {status.Report{Undispatched: status.Undispatched{Entries: 1}}, false},
		"undecided":    {status.Report{Undecided: status.Undecided{Entries: 1}}, false},
	}
	for name, test := range tests {
		if got := settled(test.report); got != test.want {
			t.Errorf("%s: got %t, want %t", name, got, test.want)
		}
	}
}

func equalSummary() Summary {
	peers := make([]PeerResult, 0, 3)
	for _, id := range peerIDs() {
		peers = append(peers, PeerResult{ID: id, Rows: 10, Equal: 9, ByProtocol: 1, First: []Difference{}})
	}
	return Summary{Source: "the sample", Store: 10, Peers: peers, Took: 2 * time.Second}
}

func TestSummaryEqual(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		change func(*Summary)
		want   bool
	}{
		"equal":             {func(*Summary) {}, true},
		"a different row":   {func(s *Summary) { s.Peers[1].Equal--; s.Peers[1].Different++ }, false},
		"a missing row":     {func(s *Summary) { s.Peers[2].Rows--; s.Peers[2].Equal--; s.Peers[2].Missing++ }, false},
		"an extra row":      {func(s *Summary) { s.Peers[0].Rows++; s.Peers[0].Extra++ }, false},
		"rows fell short":   {func(s *Summary) { s.Store++ }, false},
		"a peer was left":   {func(s *Summary) { s.Peers = s.Peers[:2] }, false},
		"nothing to see":    {func(s *Summary) { *s = Summary{} }, false},
		"an empty database": {func(s *Summary) { s.Store = 0; s.Peers = []PeerResult{{}, {}, {}} }, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := equalSummary()
			test.change(&s)
			if got := s.Equal(); got != test.want {
				t.Errorf("got %t, want %t", got, test.want)
			}
		})
	}
}

func TestSummaryText(t *testing.T) {
	t.Parallel()
	s := equalSummary()
	s.Changes = outbox.Verdict{Met: 2, NotMet: map[outbox.Reason]int{outbox.ReasonTimeout: 1}}
	s.Import = importer.Summary{Lines: 11, Inserted: 10, Bad: 1, Took: time.Second, Verdicts: &importer.Verdicts{Met: 10, NotMet: map[outbox.Reason]int64{}}}
	var out bytes.Buffer
	s.print(newScreen(&out, Lines))
	for _, want := range []string{
		"peer-b  10    9      1            0          0        0\n", "by protocol: equal but for",
		"verdicts: met 12, not met 1 (timeout 1)", "10 memories in 1.0s (10/s), bad lines 1", "All 3 peers equal the store",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	s.Peers[1].Equal, s.Peers[1].Different, s.Peers[1].First = 8, 1, []Difference{{"m1", "title"}}
	out.Reset()
	s.print(newScreen(&out, Lines))
	for _, want := range []string{"peer-b differs in m1: title", "The peers DIFFER"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

func TestSummaryJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(Summary{})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"equal", "source", "store_rows", "peers", "import", "met", "not_met", "verdict_p50_seconds", "verdict_p99_seconds",
		"catch_up_seconds", "seconds",
	} {
		if _, ok := got[key]; !ok {
			t.Errorf("no %s in %s", key, text)
		}
	}
	if _, ok := got["peers"].([]any); !ok {
		t.Errorf("peers is %v, want a list", got["peers"])
	}
}
