package quorum_test

import (
	"testing"

	"quorumbox/quorum"
)

// Checklist row 75: three acknowledgements of one peer are one.
func TestAcksOfOnePeerCountOnce(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, 3, "a", "b")
	for range 3 {
		record(t, tr, "a", quorum.Ack)
	}
	if got, want := tr.Describe(), "pending: 2 hold it, 3 of 3 needed; ack a; waiting b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	record(t, tr, "b", quorum.Ack)
	if got := tr.State(); got != quorum.Met {
		t.Errorf("with the other peer: got %s, want %s", got, quorum.Met)
	}
}

// Checklist rows 33 and 76: the local commit is a member, the first one, and counts once.
func TestLocalCommitCountsOnce(t *testing.T) {
	t.Parallel()
	for needed, want := range map[int]quorum.State{1: quorum.Met, 2: quorum.Pending, 3: quorum.Pending} {
		if got := newTracker(t, needed, "a", "b").State(); got != want {
			t.Errorf("%d of 3 before any answer: got %s, want %s", needed, got, want)
		}
	}
	tr := newTracker(t, 3, "a", "b")
	record(t, tr, "a", quorum.Ack)
	record(t, tr, "b", quorum.Fail)
	if got := tr.State(); got != quorum.Unreachable {
		t.Errorf("3 of 3 with one peer: got %s, want %s", got, quorum.Unreachable)
	}
}

// Checklist row 77: an id drift counts for nothing, and is told apart.
func TestIDDriftIsNoAck(t *testing.T) {
	t.Parallel()
	tr := newTracker(t, 2, "a", "b")
	record(t, tr, "a", quorum.IDDrift)
	if got := tr.Acked(); len(got) != 0 || tr.Outcome("a") != quorum.IDDrift {
		t.Errorf("got acks of %v and %s of a, want none and %s", got, tr.Outcome("a"), quorum.IDDrift)
	}
	if got := tr.State(); got != quorum.Pending {
		t.Errorf("got %s, want %s: b may still acknowledge", got, quorum.Pending)
	}
	record(t, tr, "b", quorum.Ack)
	if verdict, reason := tr.Verdict(); verdict != quorum.VerdictMet || reason != "" {
		t.Errorf("with b: got %s %q, want met", verdict, reason)
	}
}

// Checklist row 79: clients match these words. The reference says timeout, too, when all peers failed fast; here that is unreachable.
func TestReasonsAreTheReferences(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[quorum.Outcome]quorum.Reason{
		quorum.Fail: "unreachable", quorum.Unknown: "timeout", quorum.IDDrift: "id_drift", quorum.Refused: "refused", 0: "timeout",
	} {
		tr := newTracker(t, 2, "a")
		if outcome != 0 {
			record(t, tr, "a", outcome)
		}
		tr.Expire()
		if verdict, reason := tr.Verdict(); verdict != "not_met" || reason != want {
			t.Errorf("%s: got %s %q, want not_met %q", outcome, verdict, reason, want)
		}
	}
}
