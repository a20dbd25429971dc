package refpeer

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// faultBox holds the faults that are set. Safe for concurrent use.
type faultBox struct {
	mu     sync.Mutex
	faults []boxed
}

// boxed is one fault and what it remembers.
type boxed struct {
	Fault

	budget  *budget  // ModeQuota with After or ResetIn
	refused []string // ModeRefuseID that fired: the ids of all that did
}

// budget is the quota of a fault. The pushes that it meets share it.
type budget struct {
	left    atomic.Int64 // memories that may still be applied
	resetIn time.Duration

	mu      sync.Mutex
	resetAt time.Time // zero: nothing was refused yet, or there is no ResetIn
}

// refusal is the answer of a budget that is used up.
func (b *budget) refusal(author string, now time.Time) *quotaRefusal {
	out := newQuotaRefusal(author, 1000, 1000, now)
	if b.resetIn == 0 {
		return out
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.resetAt.IsZero() {
		// Answers have whole seconds: round up, so that none names a time
		// at which the quota is not back yet.
		b.resetAt = now.Add(b.resetIn)
	}
	out.resetAt = b.resetAt.Add(time.Second - time.Nanosecond).Truncate(time.Second)
	return out
}

// over tells whether the quota is back.
func (b *budget) over(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.resetAt.IsZero() && !now.Before(b.resetAt)
}

func (b *faultBox) set(faults Faults) error {
	checked := make([]boxed, 0, len(faults))
	for _, f := range faults {
		if err := f.complete(); err != nil {
			return err
		}
		entry := boxed{Fault: f}
		if f.Mode == ModeQuota && (f.After > 0 || f.ResetIn > 0) {
			entry.budget = &budget{resetIn: f.ResetIn}
			entry.budget.left.Store(int64(f.After))
		}
		checked = append(checked, entry)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = checked
	return nil
}

func (b *faultBox) get() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(Faults, 0, len(b.faults))
	for _, f := range b.faults {
		out = append(out, f.Fault)
	}
	return out
}

// conditional tells whether a fault wants to see pushes whole.
func (b *faultBox) conditional() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		if f.ID != "" || f.List != "" || f.AboveBytes > 0 || f.AboveItems > 0 {
			return true
		}
	}
	return false
}

// seen is what conditions are about: the whole push. msg is nil if the body is
// malformed. The zero value stands for a push of which nothing was read.
type seen struct {
	bytes int
	msg   *message
}

func (s seen) meets(f *boxed) bool {
	if s.bytes <= f.AboveBytes && f.AboveBytes > 0 {
		return false
	}
	if f.ID == "" && f.List == "" && f.AboveItems == 0 {
		return true
	}
	if s.msg == nil || f.ID != "" && !s.msg.holds(f.ID) || f.AboveItems > 0 && s.msg.items() <= f.AboveItems {
		return false
	}
	for l, size := range s.msg.sizes() {
		if list(l).String() == f.List {
			return size > 0
		}
	}
	return f.List == ""
}

// next draws the fault of one push; the zero value means none. Of the faults
// refuse_id, all that meet the push count together. A fault whose count is used
// up is removed, as is a quota that is back.
func (b *faultBox) next(push seen) boxed {
	b.mu.Lock()
	defer b.mu.Unlock()
	var fired boxed
	left := b.faults[:0]
	for _, f := range b.faults {
		if f.budget != nil && f.budget.over(time.Now()) {
			continue
		}
		joins := fired.Mode == "" || fired.Mode == ModeRefuseID && f.Mode == ModeRefuseID
		if joins && push.meets(&f) && f.happens() {
			refused := fired.refused
			fired = f
			if f.Mode == ModeRefuseID {
				fired.refused = append(refused, f.ID)
			}
			if f.Count--; f.Count == 0 {
				continue
			}
			f.Count = max(f.Count, 0)
		}
		left = append(left, f)
	}
	b.faults = left
	return fired
}

// down tells whether a fault cuts requests other than pushes too.
func (b *faultBox) down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.faults {
		f := &b.faults[i]
		if f.Mode == ModeDown && (seen{}).meets(f) && f.happens() {
			return true
		}
	}
	return false
}

// happens draws by the fault's probability.
func (f *Fault) happens() bool {
	return f.Probability == 0 || rand.Float64() < f.Probability //nolint:gosec // G404: chance, not a secret
}
