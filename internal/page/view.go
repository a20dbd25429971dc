package page

import (
	"fmt"
	"time"

	"quorumbox/internal/heartbeat"
	"quorumbox/internal/peer"
	"quorumbox/internal/status"
	"quorumbox/outbox"
)

// slowXmin is after how long a transaction that keeps deleted rows from being cleaned is worth a warning: that of docs/metrics.md.
const slowXmin = time.Minute

// health is what the page says in one word.
type health string

const (
	healthOK    health = "ok"
	healthWarns health = "warns" // replication works, and somebody should look
	healthFails health = "fails" // nothing is decided, or quorums are missed
)

// view is the answer of GET /api/page. Fields are added, never renamed or removed.
type view struct {
	At           time.Time           `json:"at"` // the database's clock
	ServedBy     string              `json:"served_by"`
	Health       health              `json:"health"`
	Summary      string              `json:"summary"`
	Warnings     []warning           `json:"warnings"`
	Peers        []peerView          `json:"peers"` // by id
	Lanes        int                 `json:"lanes"`
	Workers      []workerView        `json:"workers"`                // by id
	NotNamed     leasesView          `json:"leases_of_nobody_named"` // leased to a job that names another one, or to none any more
	Undispatched status.Undispatched `json:"undispatched"`
	Undecided    status.Undecided    `json:"undecided"`
	OldestXmin   status.Seconds      `json:"oldest_xmin_seconds"`
	Recent       recentView          `json:"recent"`
}

// warning is about the whole fleet. Code is stable, Text is not.
type warning struct {
	Code   string `json:"code"`
	Health health `json:"health"`
	Text   string `json:"text"`
}

// peerView is a peer as the status report has it, and its lanes and refusals.
type peerView struct {
	status.Peer

	Condition string        `json:"condition"` // paused, absent, lost, snapshot, in_step, lagging: the first that is true
	Lanes     []laneView    `json:"lanes"`     // that lag or wait for an answer, by number
	Refused   []refusedView `json:"refused"`   // by class
}

type laneView struct {
	Lane     int16          `json:"lane"`
	Entries  int64          `json:"entries"`
	Age      status.Seconds `json:"age_seconds"`
	InFlight bool           `json:"in_flight,omitempty"`
	Pushing  bool           `json:"pushing,omitempty"`
	Failures int            `json:"failures,omitempty"`
}

type refusedView struct {
	Class   peer.Class     `json:"class"`
	Hint    string         `json:"hint"`
	Entries int64          `json:"entries"`
	First   status.Seconds `json:"first_age_seconds"`
	NextTry status.Seconds `json:"next_try_seconds"`
}

type workerView struct {
	ID      string         `json:"id"`
	Host    string         `json:"host"`
	Version string         `json:"version"`
	Running status.Seconds `json:"running_seconds"`
	Silent  status.Seconds `json:"silent_seconds"`
	Alive   bool           `json:"alive"`
	Leases  leasesView     `json:"leases"`
}

type leasesView struct {
	FanOuts      int64 `json:"fan_outs"`
	Batches      int64 `json:"batches"`
	Retries      int64 `json:"retries"`
	Lanes        int64 `json:"lanes"`
	Repairs      int64 `json:"repairs"`
	Redeliveries int64 `json:"redeliveries"`
	Snapshots    int64 `json:"snapshots"`
}

// recentView is a number, or null where it is not known, for each step up to End.
type recentView struct {
	Step   status.Seconds `json:"step_seconds"`
	End    time.Time      `json:"end"`
	Met    []*int64       `json:"met"` // entries
	NotMet []*int64       `json:"not_met"`
	P50    []*float64     `json:"p50_ms"` // written to quorum
	P99    []*float64     `json:"p99_ms"`
	Minute minuteView     `json:"minute"`
}

// minuteView is about the last Window before the end: a minute, or what is known of it.
type minuteView struct {
	Window    status.Seconds          `json:"window_seconds"`
	Met       int64                   `json:"met"`
	NotMet    map[outbox.Reason]int64 `json:"not_met"`
	PerSecond float64                 `json:"met_per_second"`
	P50       *float64                `json:"p50_ms"` // null: no quorum was met
	P99       *float64                `json:"p99_ms"`
}

// failure is the answer of a request that failed.
type failure struct {
	Error string `json:"error"`
}

func newView(f status.Fleet, recent recentView, servedBy string) view {
	v := view{
		At: f.At, ServedBy: servedBy, Summary: f.Summary, Lanes: outbox.Lanes, Peers: []peerView{}, Workers: []workerView{},
		NotNamed: leasesView(f.Unknown), Undispatched: f.Undispatched, Undecided: f.Undecided, OldestXmin: f.OldestXmin, Recent: recent,
	}
	place := map[string]int{}
	for i, p := range f.Peers {
		place[p.ID] = i
		v.Peers = append(v.Peers, peerView{Peer: p, Condition: condition(p), Lanes: []laneView{}, Refused: []refusedView{}})
	}
	for _, l := range f.Lanes {
		if i, ok := place[l.Peer]; ok { // one that was added since is in the next reading
			v.Peers[i].Lanes = append(v.Peers[i].Lanes, laneView{l.Number, l.Entries, l.Age, l.InFlight, l.Pushing, l.Failures})
		}
	}
	for _, r := range f.Refusals {
		if i, ok := place[r.Peer]; ok {
			v.Peers[i].Refused = append(v.Peers[i].Refused, refusedView{r.Class, r.Class.Hint(), r.Entries, r.FirstAge, r.NextTry})
		}
	}
	for _, w := range f.Workers {
		v.Workers = append(v.Workers, workerView{
			ID: w.ID, Host: w.Host, Version: w.Version, Running: w.Running, Silent: w.Silent, Leases: leasesView(w.Leases),
			Alive: w.Silent.Duration() < heartbeat.Silent,
		})
	}
	v.warn(f)
	return v
}

// condition is the one word for a peer.
func condition(p status.Peer) string {
	switch {
	case p.State != "active":
		return p.State
	case p.Paused:
		return "paused"
	case p.Snapshot != nil:
		return "snapshot"
	case p.InStep:
		return "in_step"
	default:
		return "lagging"
	}
}

// warn finds what is worth a warning, and the health of it all.
func (v *view) warn(f status.Fleet) {
	v.Warnings, v.Health = []warning{}, healthOK
	worse := func(h health) {
		if h == healthFails || v.Health == healthOK {
			v.Health = h
		}
	}
	add := func(h health, code, format string, args ...any) {
		v.Warnings = append(v.Warnings, warning{code, h, fmt.Sprintf(format, args...)})
		worse(h)
	}
	switch {
	case f.WorkerRuns:
	case len(f.Peers) == 0: // a fleet that was never started
		add(healthWarns, "no_worker", "No worker is running. Start `worker run`.")
	default:
		add(healthFails, "no_worker", "No worker is running, so nothing is sent. Start `worker run`.")
	}
	if f.FanOutPaused {
		add(healthFails, "fan_out_paused", "The queue fan_out is paused by an operator: nothing is pushed and nothing is decided.")
	}
	if age := f.Undispatched.OldestAge.Duration(); age > status.SlowDispatch {
		add(healthFails, "undispatched", "The oldest of %s has waited %s to be dispatched.", entries(f.Undispatched.Entries), age.Round(time.Second))
	}
	if age := f.Undecided.OldestAge.Duration(); age > status.SlowVerdict {
		add(healthFails, "undecided", "The oldest of %s has waited %s for a verdict.", entries(f.Undecided.Entries), age.Round(time.Second))
	}
	if n := total(v.Recent.Minute.NotMet); n > 0 {
		add(healthFails, "quorum_missed", "%s missed the quorum in the last minute.", entries(n))
	}
	if age := f.OldestXmin.Duration(); age > slowXmin {
		add(healthWarns, "oldest_xmin", "A transaction that is open for %s keeps deleted rows from being cleaned: the tables grow, and all gets slower. "+
			"`select * from xmin_holders` names it.", age.Round(time.Second))
	}
	for _, w := range v.Workers {
		if !w.Alive {
			add(healthWarns, "worker_silent", "Worker %s gave no sign of life for %s. Others take over what it had.", w.name(), w.Silent.Duration().Round(time.Second))
		}
	}
	for _, p := range v.Peers {
		if p.Condition == "lagging" || p.Condition == "snapshot" || p.Condition == "paused" || p.Refusals > 0 {
			worse(healthWarns)
		}
	}
}

func (w workerView) name() string {
	if w.Host != "" {
		return w.Host + " (" + w.ID + ")"
	}
	return w.ID
}

func entries(n int64) string {
	if n == 1 {
		return "1 entry"
	}
	return fmt.Sprintf("%d entries", n)
}
