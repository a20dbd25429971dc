package quorum_test

import (
	"errors"
	"strings"
	"testing"

	"quorumbox/quorum"
)

// Checklist row 72: N is 1 + peers, W is clamped to 1..N, N = 0 is invalid.
func TestNewPolicy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		n, w   int
		want   quorum.Policy
		remote int
	}{
		{"local only", 1, 1, quorum.Policy{N: 1, W: 1}, 0},
		{"two of three", 3, 2, quorum.Policy{N: 3, W: 2}, 1},
		{"all", 3, 3, quorum.Policy{N: 3, W: 3}, 2},
		{"zero is raised to one", 3, 0, quorum.Policy{N: 3, W: 1}, 0},
		{"negative is raised to one", 3, -5, quorum.Policy{N: 3, W: 1}, 0},
		{"too many is lowered to n", 3, 4, quorum.Policy{N: 3, W: 3}, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := quorum.NewPolicy(tt.n, tt.w)
			if err != nil || got != tt.want {
				t.Errorf("NewPolicy(%d, %d): got %v, %v, want %v", tt.n, tt.w, got, err, tt.want)
			}
			if got.RemoteAcks() != tt.remote {
				t.Errorf("RemoteAcks: got %d, want %d", got.RemoteAcks(), tt.remote)
			}
		})
	}
	for _, n := range []int{0, -1} {
		if _, err := quorum.NewPolicy(n, 1); !errors.Is(err, quorum.ErrNoMembers) {
			t.Errorf("NewPolicy(%d, 1): got %v, want ErrNoMembers", n, err)
		}
	}
}

// Upstream's ADR-0001 has ceil((N+1)/2): two majorities always share a member, and one member less would not do.
func TestMajority(t *testing.T) {
	t.Parallel()
	want := map[int]int{-1: 1, 0: 1, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 6: 4, 7: 4, 65: 33}
	for n, m := range want {
		if got := quorum.Majority(n); got != m {
			t.Errorf("Majority(%d): got %d, want %d", n, got, m)
		}
	}
	for n := 1; n <= 65; n++ {
		m := quorum.Majority(n)
		if 2*m <= n {
			t.Errorf("Majority(%d) = %d: two of them can be disjoint", n, m)
		}
		if 2*(m-1) > n {
			t.Errorf("Majority(%d) = %d: one less would still overlap", n, m)
		}
	}
}

func TestParseWrites(t *testing.T) {
	t.Parallel()
	tests := []struct {
		text    string
		members int
		want    quorum.Policy
		count   int
	}{
		{"all", 1, quorum.Policy{N: 1, W: 1}, 0},
		{"all", 4, quorum.Policy{N: 4, W: 4}, 0},
		{"majority", 1, quorum.Policy{N: 1, W: 1}, 0},
		{"majority", 2, quorum.Policy{N: 2, W: 2}, 0},
		{"majority", 4, quorum.Policy{N: 4, W: 3}, 0},
		{"1", 4, quorum.Policy{N: 4, W: 1}, 1},
		{"2", 4, quorum.Policy{N: 4, W: 2}, 2},
		{"9", 4, quorum.Policy{N: 4, W: 4}, 9},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			w, err := quorum.ParseWrites(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if w.String() != tt.text || w.Count() != tt.count {
				t.Errorf("got %s with count %d, want %s with count %d", w, w.Count(), tt.text, tt.count)
			}
			got, err := w.Policy(tt.members)
			if err != nil || got != tt.want {
				t.Errorf("Policy(%d): got %v, %v, want %v", tt.members, got, err, tt.want)
			}
			if _, err := w.Policy(0); !errors.Is(err, quorum.ErrNoMembers) {
				t.Errorf("Policy(0): got %v, want ErrNoMembers", err)
			}
			var again quorum.Writes
			text, _ := w.MarshalText()
			if err := again.UnmarshalText(text); err != nil || again != w {
				t.Errorf("text round trip: got %v, %v, want %v", again, err, w)
			}
		})
	}
}

func TestParseWritesRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "All", "majority ", "0", "-1", "+2", "02", "2.0", "1e1", "two", "99999999999999999999", strings.Repeat("9", 1000),
	} {
		w, err := quorum.ParseWrites(text)
		if err == nil {
			t.Errorf("ParseWrites(%q): got %v, want an error", text, w)
			continue
		}
		if !strings.Contains(err.Error(), "want ") || len(err.Error()) > 200 {
			t.Errorf("ParseWrites(%.40q): error does not say in short what to do: %.300s", text, err)
		}
		kept, _ := quorum.ParseWrites("all")
		if err := kept.UnmarshalText([]byte(text)); err == nil || kept.String() != "all" {
			t.Errorf("UnmarshalText(%.40q): got %v, %v, want an error and the old value", text, kept, err)
		}
	}
}

func TestWritesZeroValueIsMajority(t *testing.T) {
	t.Parallel()
	var w quorum.Writes
	if got, want := w.String(), "majority"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
