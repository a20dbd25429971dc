package model

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
)

// Bounds of memory: a state takes about 180 bytes.
const (
	smallLimit = 1_000_000
	largeLimit = 20_000_000
)

// large is the flag -model.large.
//
//nolint:gochecknoglobals // flags of a test are registered before it is parsed
var large = flag.Bool("model.large", false, "search the large models, too: minutes, and up to 4 GiB")

// size is which run a model belongs to.
type size string

const (
	small size = "small"
	big   size = "large"
)

// limit lets small models run side by side, and large ones one after the other or not at all.
func (s size) limit(t *testing.T) int {
	t.Helper()
	if s == small {
		t.Parallel()
		return smallLimit
	}
	if !*large {
		t.Skip("run with -model.large")
	}
	return largeLimit
}

// faults is how often a worker is killed, an answer is missing, and a lease runs out.
type faults struct{ crashes, unknowns, expiries int }

func (c Config) with(f faults) Config {
	c.Workers, c.Crashes, c.Unknowns, c.Expiries = 2, f.crashes, f.unknowns, f.expiries
	return c
}

func TestRuleHolds(t *testing.T) {
	for _, tt := range []struct {
		history string
		peers   int
		faults  faults
		size    size
		ends    Ends
	}{
		{"SD", 1, faults{}, small, EndsChecked},
		{"SD", 1, faults{crashes: 1, unknowns: 1}, small, EndsChecked},
		{"SD", 1, faults{crashes: 1, expiries: 1}, small, EndsUnchecked},
		{"SD", 1, faults{unknowns: 2}, small, EndsChecked},
		{"SDS", 1, faults{crashes: 1}, small, EndsChecked},
		{"SDS", 1, faults{unknowns: 2}, small, EndsUnchecked},
		{"SDs", 1, faults{unknowns: 1}, small, EndsChecked},
		{"SDsd", 1, faults{unknowns: 1}, small, EndsUnchecked},
		{"SD", 2, faults{unknowns: 1}, small, EndsChecked},

		{"SD", 1, faults{crashes: 2, unknowns: 2}, big, EndsChecked},
		{"SD", 1, faults{crashes: 1, unknowns: 1, expiries: 1}, big, EndsChecked},
		{"SDS", 1, faults{crashes: 1, unknowns: 1}, big, EndsChecked},
		{"SDS", 1, faults{unknowns: 3}, big, EndsUnchecked},
		{"SDS", 1, faults{crashes: 2, unknowns: 1}, big, EndsUnchecked},
		{"SDS", 1, faults{unknowns: 1, expiries: 1}, big, EndsUnchecked},
		{"SDs", 1, faults{unknowns: 2, expiries: 1}, big, EndsUnchecked},
		{"SSDS", 1, faults{crashes: 1, unknowns: 1}, big, EndsUnchecked},
		{"SDsd", 1, faults{crashes: 1, unknowns: 1}, big, EndsUnchecked},
		{"SDSD", 1, faults{unknowns: 2}, big, EndsUnchecked},
		{"SD", 2, faults{crashes: 1}, big, EndsChecked},
		{"SD", 2, faults{unknowns: 2}, big, EndsUnchecked},
		{"SD", 2, faults{expiries: 1}, big, EndsUnchecked},
		{"SD", 2, faults{crashes: 2}, big, EndsUnchecked},
		{"SD", 2, faults{crashes: 1, unknowns: 1}, big, EndsUnchecked},
		{"SDS", 2, faults{unknowns: 1}, big, EndsUnchecked},
		{"SSD", 2, faults{unknowns: 1}, big, EndsUnchecked},
	} {
		t.Run(fmt.Sprintf("%s/%s %d peers %+v", tt.size, tt.history, tt.peers, tt.faults), func(t *testing.T) {
			limit := tt.size.limit(t)
			r, err := Check(Config{History: tt.history, Peers: tt.peers}.with(tt.faults), tt.ends, limit)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states, %d steps, the farthest %d steps away", r.States, r.Steps, r.Depth)
			if r.Violation != nil {
				t.Errorf("%v:\n%s", r.Violation, story(r))
			}
		})
	}
}

// Each variant leaves one part of the rule out, and the search finds what that part is for.
func TestVariantIsViolated(t *testing.T) {
	for _, tt := range []struct {
		name    string
		variant Variant
		history string
		peers   int
		faults  faults
		size    size
		want    error
	}{
		{"no doubts", Variant{NoDoubts: true}, "SD", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"the doubt is written after the outcome", Variant{DoubtsLater: true}, "SD", 1, faults{crashes: 1, unknowns: 1}, small, ErrDiverged},
		{"no doubts of expired leases", Variant{NoDoubtsOfLeases: true}, "SD", 1, faults{crashes: 1}, small, ErrDiverged},
		{"no doubts where there is a row by now", Variant{NoDoubtsBehindRows: true}, "SDS", 1, faults{crashes: 1, unknowns: 1}, big, ErrDiverged},
		{"an acknowledged second attempt ends the doubt", Variant{AckEndsDoubt: true}, "SD", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"repair before Z", Variant{Early: true}, "SD", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"doubt dropped while the lane is held", Variant{DropHeld: true}, "SD", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"Z without the jobs that run", Variant{ShortZ: true}, "SD", 1, faults{expiries: 1}, small, ErrDiverged},
		{"repair of the touched ids only", Variant{TouchedOnly: true}, "SDs", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"repair takes along what it does not note", Variant{GuestsUnnoted: true}, "SDsd", 1, faults{crashes: 1, unknowns: 1}, big, ErrDiverged},
		{"repair not repeated", Variant{OnceOnly: true}, "SDS", 1, faults{unknowns: 2}, small, ErrDiverged},
		{"repair not repeated after a kill", Variant{NoAgainOfLeases: true}, "SDS", 1, faults{crashes: 1, unknowns: 1}, big, ErrDiverged},
		{"running repair answers a new doubt", Variant{RunAnswers: true}, "SD", 1, faults{unknowns: 2}, small, ErrDiverged},
		{"new doubt ends the wait for the repetition", Variant{DueForgetsAgain: true}, "SDS", 1, faults{crashes: 1, unknowns: 1}, big, ErrDiverged},
		{"lane pushed beside a fan-out after a repair", Variant{NoRest: true}, "SDS", 1, faults{unknowns: 1}, small, ErrDiverged},
		{"straggler whose row is a repair's is not noted", Variant{ForeignUnnoted: true}, "SD", 2, faults{crashes: 2}, big, ErrDiverged},
		{"verdict and lagging rows in two transactions", Variant{TwoTransactions: true}, "SD", 1, faults{crashes: 1}, small, ErrDiverged},
		{"no fence", Variant{NoFence: true}, "SD", 1, faults{expiries: 1}, small, ErrDiverged},
		{"no sweeper", Variant{NoSweeper: true}, "SD", 1, faults{crashes: 1}, small, ErrStuck},
		{"no answer is an acknowledgement", Variant{NoAnswerIsAck: true}, "SD", 1, faults{unknowns: 1}, small, ErrDishonest},
	} {
		t.Run(fmt.Sprintf("%s/%s", tt.size, tt.name), func(t *testing.T) {
			limit := tt.size.limit(t)
			r, err := Check(Config{History: tt.history, Peers: tt.peers, Variant: tt.variant}.with(tt.faults), EndsUnchecked, limit)
			if err != nil {
				t.Fatal(err)
			}
			if !errors.Is(r.Violation, tt.want) {
				t.Fatalf("got %v after %d states, want %v", r.Violation, r.States, tt.want)
			}
			t.Logf("%d states, %v:\n%s", r.States, r.Violation, story(r))
		})
	}
}

// Facts about the model, not about the rule: what can be left out as far as it goes.
func TestVariantHolds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		variant Variant
		history string
		peers   int
		faults  faults
		size    size
	}{
		// What lives is deleted first because of former titles, archives, restores and links: the model has none of them.
		{"repair stores without deleting", Variant{StoreOnly: true}, "SDs", 1, faults{unknowns: 2}, small},
		{"repair stores without deleting, again", Variant{StoreOnly: true}, "SDS", 1, faults{crashes: 1, unknowns: 1}, big},
		// A fan-out that advances a row which is not its own loses its lease, and its doubts with it; that needs an unknown outcome beside
		// a repair.
		{"fan-out believes in a repair's row", Variant{ForeignBelieved: true}, "SD", 2, faults{crashes: 1}, big},
	} {
		t.Run(fmt.Sprintf("%s/%s", tt.size, tt.name), func(t *testing.T) {
			limit := tt.size.limit(t)
			r, err := Check(Config{History: tt.history, Peers: tt.peers, Variant: tt.variant}.with(tt.faults), EndsUnchecked, limit)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d states", r.States)
			if r.Violation != nil {
				t.Errorf("%v:\n%s", r.Violation, story(r))
			}
		})
	}
}

// story is a trace, a line a step.
func story(r Report) string {
	var b strings.Builder
	for i, line := range r.Trace {
		fmt.Fprintf(&b, "%3d  %s\n", i+1, line)
	}
	return b.String()
}

func TestCheckRefusesWhatItCannotModel(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{
		{History: "SDSDS", Peers: 1, Workers: 2}, // longer than a state can tell
		{History: "D", Peers: 1, Workers: 2},     // nothing to delete
		{History: "Ss", Peers: 1, Workers: 2},    // the title is taken
		{History: "Sx", Peers: 1, Workers: 2},
		{History: "S", Peers: 3, Workers: 2},
		{History: "S", Peers: 0, Workers: 2},
		{History: "S", Peers: 1, Workers: 3},
		{History: "S", Peers: 1, Workers: 0},
	} {
		if _, err := Check(c, EndsUnchecked, smallLimit); err == nil {
			t.Errorf("%+v: got no error", c)
		}
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	m, err := newModel(Config{History: "SD", Peers: 1, Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	// The first batch is decided, and the peer is in step.
	good := state{committed: 1, batches: 1}
	good.ends[0] = 1
	good.peers[0].acked, good.peers[0].memory = 1, memory{id: 1, version: 1}
	for _, tt := range []struct {
		name   string
		change func(*state)
		want   error
	}{
		{"nothing", func(*state) {}, nil},
		{"a verdict without acknowledgements", func(s *state) { s.dishonest = 1 }, ErrDishonest},
		{"in step without an acknowledgement", func(s *state) { s.peers[0].acked = 0 }, ErrCursor},
		{"a cursor without an acknowledgement", func(s *state) {
			s.peers[0].acked, s.peers[0].lag = 0, lag{exists: 1, cursor: 1, pushedTo: 1}
		}, ErrCursor},
		{"behind without an acknowledgement", func(s *state) { s.peers[0].acked, s.peers[0].lag = 0, lag{exists: 1} }, nil},
		{"the memory is lost", func(s *state) { s.peers[0].memory = memory{} }, ErrDiverged},
		{"lost, and in doubt", func(s *state) { s.peers[0].memory, s.peers[0].timers[0] = memory{}, timer{to: 1} }, nil},
		{"lost, and to be repaired", func(s *state) { s.peers[0].memory, s.peers[0].due = memory{}, idBit(1) }, nil},
		{"the writer is ahead", func(s *state) { s.committed, s.peers[0].memory = 2, memory{} }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := good
			tt.change(&s)
			if got := m.check(s); !errors.Is(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
