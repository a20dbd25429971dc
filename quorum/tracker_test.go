package quorum_test

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"quorumbox/quorum"
)

func newTracker(tb testing.TB, w int, peers ...string) *quorum.Tracker {
	tb.Helper()
	tr, err := quorum.NewTracker(quorum.Policy{N: 1 + len(peers), W: w}, peers)
	if err != nil {
		tb.Fatal(err)
	}
	return tr
}

func record(tb testing.TB, tr *quorum.Tracker, peer string, o quorum.Outcome) {
	tb.Helper()
	if err := tr.Record(peer, o); err != nil {
		tb.Fatal(err)
	}
}

func TestNewTrackerRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		policy quorum.Policy
		peers  []string
		want   error
	}{
		{"no members", quorum.Policy{}, nil, quorum.ErrNoMembers},
		{"peers missing", quorum.Policy{N: 3, W: 2}, []string{"a"}, quorum.ErrPeerCount},
		{"too many peers", quorum.Policy{N: 1, W: 1}, []string{"a"}, quorum.ErrPeerCount},
		{"peer named twice", quorum.Policy{N: 4, W: 2}, []string{"a", "b", "a"}, quorum.ErrDuplicatePeer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := quorum.NewTracker(tt.policy, tt.peers); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestNewTrackerCopiesPeersAndClamps(t *testing.T) {
	t.Parallel()
	peers := []string{"b", "a"}
	tr, err := quorum.NewTracker(quorum.Policy{N: 3, W: 7}, peers)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(peers, []string{"b", "a"}) {
		t.Errorf("peers of the caller changed: %v", peers)
	}
	peers[0] = "x"
	if got, want := tr.Waiting(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("waiting: got %v, want %v", got, want)
	}
	if got, want := tr.Policy(), (quorum.Policy{N: 3, W: 3}); got != want {
		t.Errorf("policy: got %v, want %v", got, want)
	}
}

func TestRecordRefuses(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, 2, "a", "b")
	before := tr.Describe()
	if err := tr.Record("c", quorum.Ack); !errors.Is(err, quorum.ErrUnknownPeer) {
		t.Errorf("peer without a vote: got %v, want ErrUnknownPeer", err)
	}
	for _, o := range []quorum.Outcome{0, quorum.Ack + 1, 255} {
		if err := tr.Record("a", o); !errors.Is(err, quorum.ErrUnknownOutcome) {
			t.Errorf("outcome %d: got %v, want ErrUnknownOutcome", o, err)
		}
	}
	if got := tr.Describe(); got != before {
		t.Errorf("a refused record changed the vote: got %s, want %s", got, before)
	}
	if got := tr.Outcome("c"); got != 0 {
		t.Errorf("outcome of a peer without a vote: got %s, want 0", got)
	}
}

// One peer missing from W: the state for each pair of outcomes, and the reason by precedence.
func TestReasonPrecedence(t *testing.T) {
	t.Parallel()
	reasons := []struct {
		outcome quorum.Outcome
		reason  quorum.Reason
	}{ // weakest first
		{quorum.Fail, quorum.ReasonUnreachable},
		{quorum.Unknown, quorum.ReasonTimeout},
		{quorum.Refused, quorum.ReasonRefused},
		{quorum.IDDrift, quorum.ReasonIDDrift},
	}
	for i, a := range reasons {
		for j, b := range reasons {
			tr := newTracker(t, 3, "a", "b")
			record(t, tr, "a", a.outcome)
			record(t, tr, "b", b.outcome)
			verdict, reason := tr.Verdict()
			if want := reasons[max(i, j)].reason; verdict != quorum.VerdictNotMet || reason != want || tr.Reason() != want {
				t.Errorf("%s and %s: got %s %q, want not_met %q", a.outcome, b.outcome, verdict, reason, want)
			}
		}
	}
}

// Of several outcomes of one peer the greatest stands, in whatever order they come.
func TestSeveralOutcomesOfOnePeer(t *testing.T) {
	t.Parallel()
	for a := quorum.Fail; a <= quorum.Ack; a++ {
		for b := quorum.Fail; b <= quorum.Ack; b++ {
			tr := newTracker(t, 2, "a")
			record(t, tr, "a", a)
			record(t, tr, "a", b)
			if got, want := tr.Outcome("a"), max(a, b); got != want {
				t.Errorf("%s then %s: got %s, want %s", a, b, got, want)
			}
			wantState := quorum.Unreachable
			if max(a, b) == quorum.Ack {
				wantState = quorum.Met
			}
			if got := tr.State(); got != wantState {
				t.Errorf("%s then %s: got %s, want %s", a, b, got, wantState)
			}
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	want := []string{"outcome(0)", "fail", "unknown", "refused", "id_drift", "ack", "outcome(6)"}
	for i, name := range want {
		if got := quorum.Outcome(i).String(); got != name {
			t.Errorf("outcome %d: got %s, want %s", i, got, name)
		}
	}
	want = []string{"state(0)", "pending", "met", "unreachable", "state(4)"}
	for i, name := range want {
		if got := quorum.State(i).String(); got != name {
			t.Errorf("state %d: got %s, want %s", i, got, name)
		}
	}
}

// fact is one thing recorded in a vote; expire is the deadline.
type fact struct {
	peer    string
	outcome quorum.Outcome
	expire  bool
}

func (f fact) String() string {
	if f.expire {
		return "expire"
	}
	return f.outcome.String() + " " + f.peer
}

func (f fact) apply(tb testing.TB, tr *quorum.Tracker) {
	tb.Helper()
	if f.expire {
		tr.Expire()
		return
	}
	record(tb, tr, f.peer, f.outcome)
}

// oracle judges a vote the dumb way: by looking at every future.
type oracle struct {
	needed int
	peers  []string
	facts  []fact
}

func (o oracle) best() map[string]quorum.Outcome {
	best := map[string]quorum.Outcome{}
	for _, f := range o.facts {
		if !f.expire {
			best[f.peer] = max(best[f.peer], f.outcome)
			continue
		}
		for _, peer := range o.peers {
			best[peer] = cmp.Or(best[peer], quorum.Unknown)
		}
	}
	return best
}

func (o oracle) state() quorum.State {
	held, hope := 1, 1
	for _, peer := range o.peers {
		switch o.best()[peer] {
		case quorum.Ack:
			held++
			hope++
		case 0:
			hope++
		default:
		}
	}
	switch {
	case held >= o.needed:
		return quorum.Met
	case hope < o.needed:
		return quorum.Unreachable
	default:
		return quorum.Pending
	}
}

func (o oracle) reason() quorum.Reason {
	if o.state() == quorum.Met {
		return ""
	}
	seen := map[quorum.Outcome]bool{}
	for _, outcome := range o.best() {
		seen[outcome] = true
	}
	if seen[quorum.IDDrift] {
		return "id_drift"
	}
	if seen[quorum.Refused] {
		return "refused"
	}
	if seen[quorum.Unknown] || o.state() == quorum.Pending {
		return "timeout"
	}
	return "unreachable"
}

// checkLaws runs facts through a tracker beside the oracle and checks what must hold for any of them.
func checkLaws(tb testing.TB, needed int, peers []string, facts []fact, seed uint64) {
	tb.Helper()
	tr := newTracker(tb, needed, peers...)
	needed = tr.Policy().W
	met := false
	for i, f := range facts {
		f.apply(tb, tr)
		o := oracle{needed: needed, peers: peers, facts: facts[:i+1]}
		if got, want := tr.State(), o.state(); got != want {
			tb.Fatalf("after %v: got %s, want %s (%s)", facts[:i+1], got, want, tr.Describe())
		}
		if got, want := tr.Reason(), o.reason(); got != want {
			tb.Fatalf("after %v: got reason %q, want %q (%s)", facts[:i+1], got, want, tr.Describe())
		}
		if met && tr.State() != quorum.Met {
			tb.Fatalf("after %v: met was taken back (%s)", facts[:i+1], tr.Describe())
		}
		met = tr.State() == quorum.Met
		if isMet, enough := met, 1+len(tr.Acked()) >= needed; isMet != enough {
			tb.Fatalf("after %v: met is %t with %v acked of %d needed", facts[:i+1], isMet, tr.Acked(), needed)
		}
		once := tr.Describe()
		f.apply(tb, tr)
		if got := tr.Describe(); got != once {
			tb.Fatalf("%s a second time changed the vote: got %s, want %s", f, got, once)
		}
	}

	shuffled := shuffle(facts, seed)
	other := newTracker(tb, needed, peers...)
	for _, f := range shuffled {
		f.apply(tb, other)
	}
	if got, want := other.Describe(), tr.Describe(); got != want {
		tb.Fatalf("order matters: %v gives %s, %v gives %s", shuffled, got, facts, want)
	}
}

// shuffle changes the order of facts, but moves none past a deadline.
func shuffle(facts []fact, seed uint64) []fact {
	shuffled := slices.Clone(facts)
	rng := rand.New(rand.NewPCG(seed, seed)) //nolint:gosec // G404: a test needs to be repeatable
	rest := shuffled
	for len(rest) > 0 {
		end := slices.IndexFunc(rest, func(f fact) bool { return f.expire })
		if end < 0 {
			end = len(rest)
		}
		rng.Shuffle(end, func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
		rest = rest[min(end+1, len(rest)):]
	}
	return shuffled
}

func FuzzTracker(f *testing.F) {
	f.Add(uint8(2), uint8(2), []byte{4, 0, 1, 1})
	f.Add(uint8(3), uint8(4), []byte{4, 0, 4, 0, 4, 1, 5, 0})
	f.Add(uint8(0), uint8(0), []byte{5, 0})
	f.Add(uint8(7), uint8(5), []byte{0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 0, 5})
	f.Fuzz(func(t *testing.T, peerCount, needed uint8, ops []byte) {
		var peers []string
		for i := range peerCount % 9 {
			peers = append(peers, fmt.Sprintf("p%d", i))
		}
		var facts []fact
		for i := 0; i+1 < len(ops) && len(facts) < 64; i += 2 {
			kind := ops[i] % 6
			if kind == 5 || len(peers) == 0 {
				facts = append(facts, fact{expire: true})
				continue
			}
			facts = append(facts, fact{peer: peers[int(ops[i+1])%len(peers)], outcome: quorum.Outcome(kind + 1)})
		}
		checkLaws(t, int(needed%12), peers, facts, uint64(len(ops)))
	})
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name       string
		outcome    quorum.Outcome
		want       quorum.Verdict
		wantReason quorum.Reason
	}{
		{"no answer yet", 0, quorum.VerdictPending, ""},
		{"ack", quorum.Ack, quorum.VerdictMet, ""},
		{"fail", quorum.Fail, quorum.VerdictNotMet, quorum.ReasonUnreachable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr := newTracker(t, 2, "a")
			if tt.outcome != 0 {
				record(t, tr, "a", tt.outcome)
			}
			got, reason := tr.Verdict()
			if got != tt.want || reason != tt.wantReason {
				t.Errorf("got %s %q, want %s %q", got, reason, tt.want, tt.wantReason)
			}
		})
	}
}
