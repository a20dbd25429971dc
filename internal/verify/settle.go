package verify

import (
	"context"
	"slices"
	"time"
)

const (
	// settleAtOnce is how many suspects are looked at again together.
	settleAtOnce = 200

	// settlePoll is the pause between two looks whether the peer has caught up.
	settlePoll = 100 * time.Millisecond
)

// suspect is a subject that looked different once.
type suspect struct {
	Key       string
	Namespace string // where it was seen
	Agent     string // who may see it at the peer
}

func keysOf(suspects []suspect) (keys, namespaces []string) {
	for _, s := range suspects {
		keys, namespaces = append(keys, s.Key), append(namespaces, s.Namespace)
	}
	return keys, namespaces
}

// matter is one sort of thing that is compared.
type matter interface {
	// state reads what the store has of the suspects now.
	state(ctx context.Context, suspects []suspect) (map[string]known, error)
	// look reads what the peer has of the suspects, compares it with the state that was read last, and returns what differs, by key. A key with a
	// nil difference is equal.
	look(ctx context.Context, suspects []suspect) (map[string][]Difference, error)
}

// settle looks again at what looked different once. What differs between two equal looks at the store, with everything acknowledged that was written before
// the first, is handed to found; what does not come to rest is counted as unsettled.
func (r *run) settle(ctx context.Context, m matter, suspects []suspect, found func(suspect, Difference) error) error {
	for round := range r.options.Rounds {
		if len(suspects) == 0 {
			return nil
		}
		before, err := m.state(ctx, suspects)
		if err != nil {
			return err
		}
		reached, err := r.waitFor(ctx, lanesOf(before))
		if err != nil {
			return err
		}
		quiet := func(s suspect) bool { return reached[before[s.Key].Lane] && !before[s.Key].Repairing }
		ready := slices.DeleteFunc(slices.Clone(suspects), func(s suspect) bool { return !quiet(s) })
		differences, err := m.look(ctx, ready)
		if err != nil {
			return err
		}
		after, err := m.state(ctx, ready)
		if err != nil {
			return err
		}
		left := slices.DeleteFunc(slices.Clone(suspects), quiet)
		for _, s := range ready {
			if after[s.Key] != before[s.Key] {
				left = append(left, s)
				continue
			}
			for _, d := range differences[s.Key] {
				if err := found(s, d); err != nil {
					return err
				}
			}
		}
		suspects = left
		if len(suspects) > 0 && round < r.options.Rounds-1 {
			if err := sleep(ctx, settlePoll); err != nil {
				return err
			}
		}
	}
	r.report.Unsettled += int64(len(suspects))
	return nil
}

func lanesOf(states map[string]known) []int16 {
	var lanes []int16
	for _, k := range states {
		lanes = append(lanes, k.Lane)
	}
	slices.Sort(lanes)
	return slices.Compact(lanes)
}

// waitFor waits until the peer has everything of the lanes that there is now, and returns the lanes in which it has. A lane in which it did not get there in
// time is not waited for again: a peer that lags far behind would take for ever.
func (r *run) waitFor(ctx context.Context, lanes []int16) (map[int16]bool, error) {
	marks, err := r.store.marks(ctx, lanes)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(r.options.SettleWait); ; {
		reached, err := r.store.reached(ctx, marks)
		if err != nil {
			return nil, err
		}
		waits := slices.ContainsFunc(lanes, func(lane int16) bool { return !reached[lane] && !r.behind[lane] })
		if late := time.Now().After(deadline); !waits || late {
			for _, lane := range lanes {
				r.behind[lane] = !reached[lane]
			}
			return reached, nil
		}
		r.options.step()
		if err := sleep(ctx, settlePoll); err != nil {
			return nil, err
		}
	}
}
