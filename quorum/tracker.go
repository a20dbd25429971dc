package quorum

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What a caller of this package may have got wrong. Each is a mistake of the program, never of a peer.
var (
	// ErrUnknownPeer is returned for a peer that has no vote.
	ErrUnknownPeer = errors.New("peer has no vote")
	// ErrDuplicatePeer is returned for a peer that is named twice: it would count twice.
	ErrDuplicatePeer = errors.New("peer is named twice")
	// ErrPeerCount is returned when the peers do not fit the policy: there must be N-1 of them.
	ErrPeerCount = errors.New("number of peers does not fit the policy")
	// ErrUnknownOutcome is returned for an outcome that is none of the named ones.
	ErrUnknownOutcome = errors.New("outcome is not one of ack, id_drift, refused, unknown, fail")
)

// Outcome is what came of pushing to one peer. The zero value is no outcome: the peer has not answered.
type Outcome uint8

// The outcomes, from the one that says least to the one that says most: when one peer gives several (a first attempt
// and its retry), the greatest stands. So a time-out followed by a certain failure stays unknown, since the first
// attempt may have been applied.
const (
	// Fail: certainly not applied; a later attempt may succeed.
	Fail Outcome = iota + 1
	// Unknown: may or may not have been applied (time-out, connection lost after the body was sent).
	Unknown
	// Refused: certainly not applied, and the same payload will be refused again.
	Refused
	// IDDrift: a 2xx answer whose ids disagree with what was sent. Never an acknowledgement.
	IDDrift
	// Ack: a true acknowledgement.
	Ack
)

// String returns the outcome's name as logs and reports have it.
func (o Outcome) String() string {
	switch o {
	case Fail:
		return "fail"
	case Unknown:
		return "unknown"
	case Refused:
		return "refused"
	case IDDrift:
		return "id_drift"
	case Ack:
		return "ack"
	default:
		return fmt.Sprintf("outcome(%d)", uint8(o))
	}
}

func (o Outcome) valid() bool { return o >= Fail && o <= Ack }

// State is how a vote stands. The zero value is no state.
type State uint8

// The states of a vote.
const (
	// Pending: the peers that have not answered decide.
	Pending State = iota + 1
	// Met: enough members hold the write. It stays so whatever is recorded later.
	Met
	// Unreachable: not enough even if every peer that has not answered acknowledges. Waiting longer cannot help; only a
	// second attempt at a peer that has answered can.
	Unreachable
)

// String returns the state's name.
func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Met:
		return "met"
	case Unreachable:
		return "unreachable"
	default:
		return fmt.Sprintf("state(%d)", uint8(s))
	}
}

// Verdict is the word that is written down for a vote.
type Verdict string

// The verdicts.
const (
	VerdictPending Verdict = "pending"
	VerdictMet     Verdict = "met"
	VerdictNotMet  Verdict = "not_met"
)

// Reason says why a vote was not met. It is empty for one that was. The words are upstream's, which clients may match.
type Reason string

// The reasons. When several apply, the one that most needs a person is told: id_drift, refused, timeout, unreachable.
const (
	ReasonIDDrift     Reason = "id_drift"
	ReasonRefused     Reason = "refused"
	ReasonTimeout     Reason = "timeout"
	ReasonUnreachable Reason = "unreachable"
)

// Tracker counts the facts of one vote. The local commit counts from the start, so a vote exists only for a write that
// is committed. It knows no time: a caller that has a deadline records no acknowledgement after it and calls
// [Tracker.Expire]. The order in which outcomes are recorded does not matter, and recording one twice changes nothing.
//
// Not safe for concurrent use: one loop owns it.
type Tracker struct {
	policy   Policy
	peers    []string  // sorted
	outcomes []Outcome // by index of peers; zero while the peer has not answered
	acks     int
	waiting  int
}

// NewTracker returns the vote of peers under p, whose W is clamped as [NewPolicy] does. It keeps its own copy of peers,
// of which there must be N-1 ([ErrPeerCount]), each named once ([ErrDuplicatePeer]). It returns [ErrNoMembers] for a
// policy with N below 1.
func NewTracker(p Policy, peers []string) (*Tracker, error) {
	p, err := NewPolicy(p.N, p.W)
	if err != nil {
		return nil, err
	}
	if len(peers) != p.N-1 {
		return nil, fmt.Errorf("quorum: %d peers for a policy of %s: %w", len(peers), p, ErrPeerCount)
	}
	sorted, err := sortedSet(peers)
	if err != nil {
		return nil, err
	}
	return &Tracker{
		policy:   p,
		peers:    sorted,
		outcomes: make([]Outcome, len(sorted)),
		waiting:  len(sorted),
	}, nil
}

// sortedSet returns a sorted copy of peers, or [ErrDuplicatePeer].
func sortedSet(peers []string) ([]string, error) {
	sorted := slices.Sorted(slices.Values(peers))
	for i := 1; i < len(sorted); i++ {
		if sorted[i] == sorted[i-1] {
			return nil, fmt.Errorf("quorum: %q: %w", sorted[i], ErrDuplicatePeer)
		}
	}
	return sorted, nil
}

// Record notes what came of pushing to peer. Of several outcomes of one peer the greatest stands (see [Outcome]): an
// acknowledgement is never taken back, and a retry may turn a failure into one. It returns [ErrUnknownPeer] or
// [ErrUnknownOutcome], and then nothing has changed.
func (t *Tracker) Record(peer string, o Outcome) error {
	if !o.valid() {
		return fmt.Errorf("quorum: %s for %q: %w", o, peer, ErrUnknownOutcome)
	}
	i, found := slices.BinarySearch(t.peers, peer)
	if !found {
		return fmt.Errorf("quorum: %q: %w", peer, ErrUnknownPeer)
	}
	t.set(i, o)
	return nil
}

func (t *Tracker) set(i int, o Outcome) {
	old := t.outcomes[i]
	if o <= old {
		return
	}
	t.outcomes[i] = o
	if old == 0 {
		t.waiting--
	}
	if o == Ack {
		t.acks++
	}
}

// Expire says that the deadline has passed: each peer that has not answered is recorded as [Unknown]. The vote is not
// [Pending] afterwards.
func (t *Tracker) Expire() {
	for i, o := range t.outcomes {
		if o == 0 {
			t.set(i, Unknown)
		}
	}
}

// State returns how the vote stands: [Met] as soon as the local commit and the acknowledgements reach W, [Unreachable]
// as soon as they cannot any more, else [Pending].
func (t *Tracker) State() State {
	held := 1 + t.acks
	switch {
	case held >= t.policy.W:
		return Met
	case held+t.waiting < t.policy.W:
		return Unreachable
	default:
		return Pending
	}
}

// Decided reports whether the vote is [Met] or [Unreachable].
func (t *Tracker) Decided() bool { return !t.pending() }

func (t *Tracker) pending() bool { return t.State() == Pending }

// Reason returns why the vote is not met, empty if it is. A pending vote has the reason that it will have if its
// deadline passes now. In a vote that is unreachable already, peers that have not answered are no reason.
func (t *Tracker) Reason() Reason {
	state := t.State()
	if state == Met {
		return ""
	}
	worst := Outcome(0)
	for _, o := range t.outcomes {
		if o != Ack {
			worst = max(worst, o)
		}
	}
	switch {
	case worst == IDDrift:
		return ReasonIDDrift
	case worst == Refused:
		return ReasonRefused
	case worst == Unknown || state == Pending:
		return ReasonTimeout
	default:
		return ReasonUnreachable
	}
}

// Verdict returns the word to write down for the vote, and the reason if it is [VerdictNotMet].
func (t *Tracker) Verdict() (Verdict, Reason) {
	switch t.State() {
	case Met:
		return VerdictMet, ""
	case Unreachable:
		return VerdictNotMet, t.Reason()
	case Pending:
	}
	return VerdictPending, ""
}

// Policy returns what the vote needs.
func (t *Tracker) Policy() Policy { return t.policy }

// Outcome returns what is known of peer: 0 if it has not answered or has no vote.
func (t *Tracker) Outcome(peer string) Outcome {
	i, found := slices.BinarySearch(t.peers, peer)
	if !found {
		return 0
	}
	return t.outcomes[i]
}

// Acked returns the peers that acknowledged, sorted. The slice is the caller's.
func (t *Tracker) Acked() []string { return t.having(Ack) }

// Waiting returns the peers that have not answered, sorted. The slice is the caller's.
func (t *Tracker) Waiting() []string { return t.having(0) }

func (t *Tracker) having(o Outcome) []string {
	var peers []string
	for i, peer := range t.peers {
		if t.outcomes[i] == o {
			peers = append(peers, peer)
		}
	}
	return peers
}

// Describe returns the vote on one line, such as "unreachable (id_drift): 2 hold it, 3 of 4 needed; ack a; id_drift b;
// waiting c". Groups without peers are left out, and peers are sorted, so equal votes read alike.
func (t *Tracker) Describe() string {
	var b strings.Builder
	b.WriteString(t.State().String())
	if reason := t.Reason(); reason != "" && t.Decided() {
		fmt.Fprintf(&b, " (%s)", reason)
	}
	fmt.Fprintf(&b, ": %d hold it, %s needed", 1+t.acks, t.policy)
	for o := Ack; o > 0; o-- {
		t.describeGroup(&b, o, o.String())
	}
	t.describeGroup(&b, 0, "waiting")
	return b.String()
}

func (t *Tracker) describeGroup(b *strings.Builder, o Outcome, name string) {
	if peers := t.having(o); len(peers) > 0 {
		fmt.Fprintf(b, "; %s %s", name, strings.Join(peers, " "))
	}
}
