package model

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// walker is a search over the numbers: from each one more or twice as many, up to most.
func walker(most int) search[int, string] {
	return search[int, string]{
		Next: func(s int, emit func(string, int)) {
			if s < most {
				emit("plus one", s+1)
			}
			if 2*s <= most {
				emit("double", 2*s)
			}
		},
		Canon:   func(s int) int { return s },
		Check:   func(int) error { return nil },
		Done:    func(s int) bool { return s == most },
		Forward: func(string) bool { return true },
		Limit:   1000,
	}
}

var errFound = errors.New("found")

func TestSearchFindsAShortestWay(t *testing.T) {
	t.Parallel()
	q := walker(100)
	q.Check = func(s int) error {
		if s == 24 {
			return errFound
		}
		return nil
	}
	r, err := q.Run()
	if err != nil || !errors.Is(r.Violation, errFound) {
		t.Fatalf("got %v, %v, want %v", r.Violation, err, errFound)
	}
	// 0 1 2 3 6 12 24, where 1 to 2 is both a step of one and a doubling.
	if got, want := len(r.Trace), 6; got != want || r.Last != 24 {
		t.Errorf("got %d steps to %d, want %d to 24: %v", got, r.Last, want, r.Trace)
	}
	if diff := cmp.Diff(r.Trace[3:], []string{"double", "double", "double"}); diff != "" {
		t.Errorf("last steps (-got +want):\n%s", diff)
	}
}

func TestSearchSeesEveryState(t *testing.T) {
	t.Parallel()
	r, err := walker(5000).limited(10_000).Run()
	if err != nil || r.Violation != nil {
		t.Fatalf("got %v, %v", r.Violation, err)
	}
	if got, want := r.States, 5001; got != want {
		t.Errorf("got %d states, want %d", got, want)
	}
}

func (q search[S, T]) limited(n int) search[S, T] { q.Limit = n; return q }

func TestSearchCountsMirrorImagesOnce(t *testing.T) {
	t.Parallel()
	q := walker(99)
	q.Canon = func(s int) int { return s / 10 * 10 }
	q.Done = func(int) bool { return true }
	r, err := q.Run()
	if err != nil || r.Violation != nil {
		t.Fatalf("got %v, %v", r.Violation, err)
	}
	if got, want := r.States, 1; got != want { // one more than 0, and twice 0, are like 0
		t.Errorf("got %d states, want %d", got, want)
	}
}

func TestSearchFindsTheStuck(t *testing.T) {
	t.Parallel()
	q := walker(100)
	q.Done = func(s int) bool { return s > 100 }
	r, err := q.Run()
	if err != nil || !errors.Is(r.Violation, ErrStuck) || r.Last != 100 {
		t.Errorf("got %v, %v at %d, want %v at 100", r.Violation, err, r.Last, ErrStuck)
	}
	q.Forward = func(step string) bool { return step == "double" }
	r, err = q.Run()
	if err != nil || !errors.Is(r.Violation, ErrStuck) || r.Last != 64 { // the nearest that can only go on by one
		t.Errorf("got %v, %v at %d, want %v at 64", r.Violation, err, r.Last, ErrStuck)
	}
}

func TestSearchFindsWhatNeverEnds(t *testing.T) {
	t.Parallel()
	q := walker(100)
	q.Next = func(s int, emit func(string, int)) {
		switch s {
		case 3:
			emit("astray", 50)
			emit("home", 100)
		case 50, 51:
			emit("to and fro", 101-s)
		case 100:
		default:
			emit("on", s+1)
		}
	}
	r, err := q.Run()
	if err != nil || r.Violation != nil {
		t.Fatalf("unasked: got %v, %v", r.Violation, err)
	}
	q.Ends = EndsChecked
	r, err = q.Run()
	if err != nil || !errors.Is(r.Violation, ErrNeverDone) || r.Last != 50 {
		t.Errorf("got %v, %v at %d, want %v at 50", r.Violation, err, r.Last, ErrNeverDone)
	}
}

func TestSearchStopsAtItsLimit(t *testing.T) {
	t.Parallel()
	r, err := walker(5000).limited(100).Run()
	if !errors.Is(err, ErrTooLarge) || r.States <= 100 {
		t.Errorf("got %v after %d states, want %v", err, r.States, ErrTooLarge)
	}
}
