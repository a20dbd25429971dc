// Package quorum decides when enough members hold a write.
//
// It is pure: [Policy] says how many are needed, [Tracker] counts the facts of one vote, and [FanOut] asks every peer
// at once against one deadline through a function that the caller supplies. Nothing here sends, stores or logs.
package quorum

import (
	"errors"
	"fmt"
	"strconv"
)

// ErrNoMembers is returned for a policy without members: not even the local commit would count.
var ErrNoMembers = errors.New("a quorum needs at least one member, the local commit")

// Policy says how many members of how many must hold a write. Both numbers count the local commit (upstream ADR-0001,
// "Model"), so W-1 of the N-1 peers have to acknowledge. Make one with [NewPolicy] or [Writes.Policy].
type Policy struct {
	// N is the number of members: 1 + the number of peers. At least 1.
	N int
	// W is the number of members that must hold the write. 1 to N; 1 means that the local commit is enough.
	W int
}

// NewPolicy returns the policy "w of n", with w clamped to 1..n as upstream does. It returns [ErrNoMembers] if n is
// below 1.
func NewPolicy(n, w int) (Policy, error) {
	if n < 1 {
		return Policy{}, fmt.Errorf("quorum: n is %d: %w", n, ErrNoMembers)
	}
	return Policy{N: n, W: min(max(w, 1), n)}, nil
}

// RemoteAcks returns how many peers must acknowledge beside the local commit: W-1.
func (p Policy) RemoteAcks() int { return p.W - 1 }

// String returns the policy as "2 of 3".
func (p Policy) String() string { return fmt.Sprintf("%d of %d", p.W, p.N) }

// Majority returns the smallest number of members that any two majorities of n members share at least one of:
// ceil((n+1)/2), as upstream's ADR-0001 has it. (Upstream's code has ceil(n/2), which for an even n lets two disjoint
// halves both win.) It is 1 for n below 2.
func Majority(n int) int {
	return max(n, 0)/2 + 1
}

// Writes is the quorum as an operator writes it: "all", "majority" or a number that counts the local commit. It becomes
// a [Policy] once the number of members is known. The zero value is majority. Comparable.
type Writes struct {
	rule  writesRule
	count int
}

type writesRule uint8

const (
	ruleMajority writesRule = iota
	ruleAll
	ruleCount
)

// ParseWrites reads "all", "majority" or a decimal number of at least 1. Case and blanks count: nothing else is
// accepted. A number above the number of members is no error here, since the members are not known yet.
func ParseWrites(s string) (Writes, error) {
	switch s {
	case "all":
		return Writes{rule: ruleAll}, nil
	case "majority":
		return Writes{rule: ruleMajority}, nil
	}
	count, err := strconv.Atoi(s)
	if err != nil || strconv.Itoa(count) != s {
		return Writes{}, fmt.Errorf("quorum: writes is %.40q: want all, majority or a number such as 2", s)
	}
	if count < 1 {
		return Writes{}, fmt.Errorf("quorum: writes is %d: want at least 1, since the local commit counts", count)
	}
	return Writes{rule: ruleCount, count: count}, nil
}

// Policy returns the policy for n members, the local one included. A number above n is clamped to n, as [NewPolicy]
// does; whoever wants to refuse it looks at [Writes.Count] first. It returns [ErrNoMembers] if n is below 1.
func (w Writes) Policy(n int) (Policy, error) {
	switch w.rule {
	case ruleAll:
		return NewPolicy(n, n)
	case ruleCount:
		return NewPolicy(n, w.count)
	case ruleMajority:
	}
	return NewPolicy(n, Majority(n))
}

// Count returns the number that was written, or 0 for all and majority, which fit any number of members.
func (w Writes) Count() int { return w.count }

// String returns the text that [ParseWrites] reads.
func (w Writes) String() string {
	switch w.rule {
	case ruleAll:
		return "all"
	case ruleCount:
		return strconv.Itoa(w.count)
	case ruleMajority:
	}
	return "majority"
}

// MarshalText returns the text of [Writes.String].
func (w Writes) MarshalText() ([]byte, error) { return []byte(w.String()), nil }

// UnmarshalText reads what [ParseWrites] reads and leaves w alone on an error.
func (w *Writes) UnmarshalText(text []byte) error {
	parsed, err := ParseWrites(string(text))
	if err != nil {
		return err
	}
	*w = parsed
	return nil
}
