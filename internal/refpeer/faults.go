package refpeer

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
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
	// ModeReorder waits until another push was applied, for Delay at most, then
	// applies the push even if its client has given up: pushes overtake it.
	ModeReorder Mode = "reorder"
	// ModeHang answers nothing until the client gives up, or 504 after 60 s.
	ModeHang Mode = "hang"
	// ModeStatus answers Status with Error (such as a tag of 401 or 403), with
	// Retry-After and Location if they are set, and applies nothing.
	ModeStatus Mode = "status"
	// ModeLoseAnswer applies the push, then cuts the connection.
	ModeLoseAnswer Mode = "lose_answer"
	// ModeSkipped leaves the first Skipped items alone and counts them in
	// skipped.
	ModeSkipped Mode = "skipped"
	// ModeUnsupported leaves the first Unsupported items alone and counts them
	// in unsupported_on_postgres.
	ModeUnsupported Mode = "unsupported"
	// ModeRefuseID leaves every item with the key ID alone and counts it in
	// skipped; the rest of the push is applied.
	ModeRefuseID Mode = "refuse_id"
	// ModeDrift applies the push and answers ids that were not sent.
	ModeDrift Mode = "drift"
	// ModeIDs applies the push and answers the ids of all its items.
	ModeIDs Mode = "ids"
	// ModeExtra applies the push and answers with fields that nobody knows.
	ModeExtra Mode = "extra"
	// ModeTruncated applies the push and answers 200 with half of the JSON.
	ModeTruncated Mode = "truncated"
	// ModeGzip applies the push and compresses its answer, asked for or not.
	ModeGzip Mode = "gzip"
	// ModeDryRun takes the push for a dry run: it applies nothing and says so.
	ModeDryRun Mode = "dry_run"
	// ModeGarbage answers 200 with a page that is not JSON and applies nothing.
	ModeGarbage Mode = "garbage"
	// ModeQuota answers 429 with the body of an exceeded quota. It applies After
	// memories first, over all the pushes that it meets. With ResetIn, the quota
	// is back that long after its first refusal, and the fault is over; without,
	// reset_at is the next UTC midnight.
	ModeQuota Mode = "quota"
)

// requestTimeout is after how long a daemon answers 504 by itself.
const requestTimeout = 60 * time.Second

// maxFaultDelay bounds Delay.
const maxFaultDelay = 10 * time.Minute

// Fault is one thing that goes wrong on purpose. In JSON, durations are text
// such as "500ms", and mode may be left out where status, skipped or
// unsupported says it.
//
// ID, List, AboveBytes and AboveItems are conditions: the fault passes over
// pushes that do not meet all that are set. So {"status":400,"id":"x"} refuses
// every push that holds x, and {"status":413,"above_items":100} large ones. A
// push is read whole before conditions are looked at.
type Fault struct {
	Mode        Mode
	Delay       time.Duration // ModeSlow, ModeZombie, ModeReorder; at most 10 min
	Status      int           // ModeStatus: 300..599
	RetryAfter  string        // ModeStatus: the header's value; empty: no header
	Location    string        // ModeStatus: the header's value; empty: no header
	Error       string        // ModeStatus: what the body says; empty: "injected fault"
	Skipped     int           // ModeSkipped: how many items; 0 counts as 1
	Unsupported int           // ModeUnsupported: how many items; 0 counts as 1
	After       int           // ModeQuota: memories that are applied first
	ResetIn     time.Duration // ModeQuota: 0: at the next UTC midnight
	ID          string        // pushes with this key: an id, an end of a link, a namespace
	List        string        // pushes with items of this list; skipped and unsupported count only those
	AboveBytes  int           // pushes whose body has more bytes
	AboveItems  int           // pushes with more items in all lists together
	Count       int           // for how many pushes; 0: until it is cleared
	Probability float64       // chance for each push, 0..1; 0 counts as 1
}

// Faults are tried in order for every push; the first that fires counts. Only
// [ModeRefuseID] counts together with others of its mode.
type Faults []Fault

// faultJSON is the wire form of a Fault.
type faultJSON struct {
	Mode        Mode    `json:"mode,omitempty"`
	Delay       string  `json:"delay,omitempty"`
	Status      int     `json:"status,omitempty"`
	RetryAfter  string  `json:"retry_after,omitempty"`
	Location    string  `json:"location,omitempty"`
	Error       string  `json:"error,omitempty"`
	Skipped     int     `json:"skipped,omitempty"`
	Unsupported int     `json:"unsupported,omitempty"`
	After       int     `json:"after,omitempty"`
	ResetIn     string  `json:"reset_in,omitempty"`
	ID          string  `json:"id,omitempty"`
	List        string  `json:"list,omitempty"`
	AboveBytes  int     `json:"above_bytes,omitempty"`
	AboveItems  int     `json:"above_items,omitempty"`
	Count       int     `json:"count,omitempty"`
	Probability float64 `json:"probability,omitempty"`
}

// MarshalJSON writes the form that [ParseFaults] reads.
func (f Fault) MarshalJSON() ([]byte, error) {
	out := faultJSON{
		Mode: f.Mode, Status: f.Status, RetryAfter: f.RetryAfter, Location: f.Location, Error: f.Error,
		Skipped: f.Skipped, Unsupported: f.Unsupported, After: f.After,
		ID: f.ID, List: f.List, AboveBytes: f.AboveBytes, AboveItems: f.AboveItems,
		Count: f.Count, Probability: f.Probability,
	}
	if f.Delay != 0 {
		out.Delay = f.Delay.String()
	}
	if f.ResetIn != 0 {
		out.ResetIn = f.ResetIn.String()
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads one fault and checks it.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var in faultJSON
	if err := decodeStrict(data, &in); err != nil {
		return err
	}
	delay, delayErr := parseDuration("delay", in.Delay)
	resetIn, resetErr := parseDuration("reset_in", in.ResetIn)
	if err := errors.Join(delayErr, resetErr); err != nil {
		return err
	}
	*f = Fault{
		Mode: in.Mode, Delay: delay, Status: in.Status, RetryAfter: in.RetryAfter, Location: in.Location, Error: in.Error,
		Skipped: in.Skipped, Unsupported: in.Unsupported, After: in.After, ResetIn: resetIn,
		ID: in.ID, List: in.List, AboveBytes: in.AboveBytes, AboveItems: in.AboveItems,
		Count: in.Count, Probability: in.Probability,
	}
	return f.complete()
}

func parseDuration(name, value string) (time.Duration, error) {
	if value == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return 0, fmt.Errorf(`%s %q: write it as "500ms" or "2s"`, name, value)
	}
	return d, nil
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
	case ModeSlow, ModeZombie, ModeReorder:
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
	case ModeRefuseID:
		if f.ID == "" {
			return errors.New("fault refuse_id needs an id")
		}
	case ModeQuota:
		if f.After < 0 || f.ResetIn < 0 {
			return errors.New("fault quota: after and reset_in must not be negative")
		}
		if f.Count > 0 && (f.After > 0 || f.ResetIn > 0) {
			return errors.New("fault quota: a count goes with neither after nor reset_in")
		}
	case ModeDown, ModeHang, ModeLoseAnswer, ModeDrift, ModeIDs, ModeExtra, ModeTruncated, ModeGzip, ModeDryRun, ModeGarbage:
	default:
		return fmt.Errorf("unknown fault mode %q: use down, slow, zombie, reorder, hang, status, lose_answer, skipped, refuse_id, "+
			"unsupported, drift, ids, extra, truncated, gzip, dry_run, garbage or quota", f.Mode)
	}
	return f.checkConditions()
}

func (f *Fault) checkConditions() error {
	if f.List != "" && !slices.ContainsFunc(allLists(), func(l list) bool { return l.String() == f.List }) {
		return fmt.Errorf("a fault's list must be one of a push, not %q", f.List)
	}
	if f.AboveBytes < 0 || f.AboveItems < 0 {
		return errors.New("a fault's above_bytes and above_items must not be negative")
	}
	if f.Count < 0 {
		return errors.New("a fault's count must not be negative")
	}
	if f.Probability < 0 || f.Probability > 1 {
		return errors.New("a fault's probability must be from 0 to 1")
	}
	return nil
}

// cut ends the connection of a request without an answer.
func cut() { panic(http.ErrAbortHandler) }
