package refpeer

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Mode names a fault.
type Mode string

// The faults. Only [ModeDown] touches requests other than pushes; none touches
// the paths under /_ref/, or it could not be cleared.
const (
	// ModeDown cuts the connection without an answer, before anything is read.
	ModeDown Mode = "down"
	// ModeSlow waits for Delay, then goes on as usual. A client that gives up
	// meanwhile has its push not applied.
	ModeSlow Mode = "slow"
	// ModeZombie waits for Delay, then applies the push even if its client has
	// given up: what a loaded server does to a request it had read already.
	ModeZombie Mode = "zombie"
	// ModeHang answers nothing until the client gives up, or 504 after 60 s.
	ModeHang Mode = "hang"
	// ModeStatus answers Status, with Retry-After if RetryAfter is set, and
	// applies nothing.
	ModeStatus Mode = "status"
	// ModeLoseAnswer applies the push, then cuts the connection.
	ModeLoseAnswer Mode = "lose_answer"
	// ModeSkipped leaves the first Skipped items alone and counts them in
	// skipped.
	ModeSkipped Mode = "skipped"
	// ModeUnsupported leaves the first Unsupported items alone and counts them
	// in unsupported_on_postgres.
	ModeUnsupported Mode = "unsupported"
	// ModeDrift applies the push and answers ids that were not sent.
	ModeDrift Mode = "drift"
	// ModeGarbage answers 200 with a page that is not JSON and applies nothing.
	ModeGarbage Mode = "garbage"
	// ModeQuota answers 429 with the body of an exceeded quota and applies
	// nothing.
	ModeQuota Mode = "quota"
)

// requestTimeout is after how long a daemon answers 504 by itself.
const requestTimeout = 60 * time.Second

// maxFaultDelay bounds Delay.
const maxFaultDelay = 10 * time.Minute

// Fault is one thing that goes wrong on purpose. In JSON, the delay is text
// such as "500ms", and mode may be left out where status, skipped or
// unsupported says it.
type Fault struct {
	Mode        Mode
	Delay       time.Duration // ModeSlow, ModeZombie; at most 10 min
	Status      int           // ModeStatus: 400..599
	RetryAfter  string        // ModeStatus: the header's value; empty: no header
	Skipped     int           // ModeSkipped: how many items; 0 counts as 1
	Unsupported int           // ModeUnsupported: how many items; 0 counts as 1
	Count       int           // for how many pushes; 0: until it is cleared
	Probability float64       // chance for each push, 0..1; 0 counts as 1
}

// Faults are tried in order for every push; the first that fires counts.
type Faults []Fault

// faultJSON is the wire form of a Fault.
type faultJSON struct {
	Mode        Mode    `json:"mode,omitempty"`
	Delay       string  `json:"delay,omitempty"`
	Status      int     `json:"status,omitempty"`
	RetryAfter  string  `json:"retry_after,omitempty"`
	Skipped     int     `json:"skipped,omitempty"`
	Unsupported int     `json:"unsupported,omitempty"`
	Count       int     `json:"count,omitempty"`
	Probability float64 `json:"probability,omitempty"`
}

// MarshalJSON writes the form that [ParseFaults] reads.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := faultJSON{
		Mode: f.Mode, Status: f.Status, RetryAfter: f.RetryAfter, Skipped: f.Skipped, Unsupported: f.Unsupported,
		Count: f.Count, Probability: f.Probability,
	}
	if f.Delay != 0 {
		out.Delay = f.Delay.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads one fault and checks it.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var in faultJSON
	if err := decodeStrict(data, &in); err != nil {
		return err
	}
	*f = Fault{
		Mode: in.Mode, Status: in.Status, RetryAfter: in.RetryAfter, Skipped: in.Skipped, Unsupported: in.Unsupported,
		Count: in.Count, Probability: in.Probability,
	}
	if in.Delay != "" {
		delay, err := time.ParseDuration(in.Delay)
		if err != nil {
			return fmt.Errorf(`delay %q: write it as "500ms" or "2s"`, in.Delay)
		}
		f.Delay = delay
	}
	return f.complete()
}

// ParseFaults reads one fault or a list of them, in JSON. Blank text and null
// mean none.
func ParseFaults(data []byte) (Faults, error) {
	var raw json.RawMessage
	if len(data) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, fmt.Errorf("parse faults: %w", err)
	}
	var faults Faults
	var err error
	if len(raw) > 0 && raw[0] == '{' {
		faults = make(Faults, 1)
		err = json.Unmarshal(raw, &faults[0])
	} else {
		err = json.Unmarshal(raw, &faults)
	}
	if err != nil {
		return nil, fmt.Errorf("parse faults: %w", err)
	}
	return faults, nil
}

// complete fills in the mode where another field says it, and checks f.
func (f *Fault) complete() error {
	if f.Mode == "" {
		switch {
		case f.Status != 0:
			f.Mode = ModeStatus
		case f.Skipped != 0:
			f.Mode = ModeSkipped
		case f.Unsupported != 0:
			f.Mode = ModeUnsupported
		}
	}
	switch f.Mode {
	case ModeSlow, ModeZombie:
		if f.Delay <= 0 || f.Delay > maxFaultDelay {
			return fmt.Errorf("fault %s needs a delay above 0 and up to %s", f.Mode, maxFaultDelay)
		}
	case ModeStatus:
		if f.Status < 300 || f.Status > 599 {
			return errors.New("fault status needs a status from 300 to 599")
		}
	case ModeSkipped:
		f.Skipped = max(f.Skipped, 1)
	case ModeUnsupported:
		f.Unsupported = max(f.Unsupported, 1)
	case ModeDown, ModeHang, ModeLoseAnswer, ModeDrift, ModeGarbage, ModeQuota:
	default:
		return fmt.Errorf("unknown fault mode %q: use down, slow, zombie, hang, status, lose_answer, skipped, "+
			"unsupported, drift, garbage or quota", f.Mode)
	}
	if f.Count < 0 {
		return errors.New("a fault's count must not be negative")
	}
	if f.Probability < 0 || f.Probability > 1 {
		return errors.New("a fault's probability must be from 0 to 1")
	}
	return nil
}

// faultBox holds the faults that are set. Safe for concurrent use.
type faultBox struct {
	mu     sync.Mutex
	faults Faults
}

func (b *faultBox) set(faults Faults) error {
	checked := make(Faults, 0, len(faults))
	for _, f := range faults {
		if err := f.complete(); err != nil {
			return err
		}
		checked = append(checked, f)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = checked
	return nil
}

func (b *faultBox) get() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append(Faults{}, b.faults...)
}

// next draws the fault of one push; the zero Fault means none. A fault whose
// count is used up is removed.
func (b *faultBox) next() Fault {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.faults {
		f := &b.faults[i]
		if f.Probability > 0 && rand.Float64() >= f.Probability { //nolint:gosec // G404: chance, not a secret
			continue
		}
		fired := *f
		if f.Count > 0 {
			if f.Count--; f.Count == 0 {
				b.faults = append(b.faults[:i:i], b.faults[i+1:]...)
			}
		}
		return fired
	}
	return Fault{}
}

// down tells whether a fault cuts requests other than pushes too.
func (b *faultBox) down() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		if f.Mode == ModeDown && (f.Probability == 0 || rand.Float64() < f.Probability) { //nolint:gosec // G404: as above
			return true
		}
	}
	return false
}

// cut ends the connection of a request without an answer.
func cut() { panic(http.ErrAbortHandler) }
