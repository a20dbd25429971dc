package status

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"quorumbox/jobs"
)

// What lasts longer than these is worth a word in the summary: an entry that waits for its dispatch, a batch that waits for its verdict.
const (
	SlowDispatch = 5 * time.Second
	SlowVerdict  = 15 * time.Second
)

// named is how many lagging peers the summary names.
const named = 3

// MarshalJSON writes at most three decimals.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, math.Round(float64(s)*1000)/1000, 'f', -1, 64), nil
}

// Sentence says in plain words what is going on.
func (r Report) Sentence() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }

	lagging := r.Lagging()
	slices.SortStableFunc(lagging, func(a, b Peer) int { return int(math.Copysign(1, float64(b.OldestAge-a.OldestAge))) })
	switch {
	case len(r.Peers) == 0:
		add("no peers are known yet: start `worker run` with peers in its configuration")
	case len(lagging) == 0 && len(r.Peers) == 1:
		add("the one peer is in step")
	case len(lagging) == 0:
		add("all %d peers are in step", len(r.Peers))
	default:
		for _, p := range lagging[:min(named, len(lagging))] {
			add("%s", p.sentence())
		}
		if more := len(lagging) - named; more > 0 {
			add("%s more lag too", count(int64(more), "peer", "peers"))
		} else if n := len(r.Peers) - len(lagging); n > 0 {
			add("%s in step", isAre(int64(n), "other peer", "other peers"))
		}
	}
	for _, p := range r.Peers {
		if p.Refusals > 0 {
			add("%s refuses %s for good", p.ID, count(p.Refusals, "entry", "entries"))
		}
	}
	if n := sum(r.Verdicts.NotMet); n > 0 {
		add("in the last %s %s of %s missed the quorum (%s)", short(r.Verdicts.Window.Duration()), comma(n),
			count(n+r.Verdicts.Met, "entry", "entries"), reasons(r.Verdicts.NotMet))
	}
	if r.FanOutPaused {
		add("the queue fan_out is paused by an operator, so nothing is pushed: resume it in River UI")
	}
	open := r.Undispatched.Entries + r.Undecided.Entries
	switch {
	case len(r.Peers) > 0 && !r.WorkerRuns && open > 0:
		add("no worker is running, so %s: start `worker run`", waits(open))
	case len(r.Peers) > 0 && !r.WorkerRuns:
		add("no worker is running, so nothing is sent: start `worker run`")
	case r.Undispatched.OldestAge.Duration() > SlowDispatch:
		add("%s for dispatch, the oldest for %s", waits(r.Undispatched.Entries), short(r.Undispatched.OldestAge.Duration()))
	case r.Undecided.OldestAge.Duration() > SlowVerdict:
		add("%s for a verdict, the oldest for %s", waits(r.Undecided.Entries), short(r.Undecided.OldestAge.Duration()))
	case open > 0:
		add("%s on the way", isAre(open, "entry", "entries"))
	}
	if r.Migrations != "" {
		add("%s", r.Migrations)
	}
	return strings.Join(parts, "; ")
}

// sentence is about a lagging peer.
func (p Peer) sentence() string {
	if p.Snapshot != nil {
		return p.snapshotSentence()
	}
	s := fmt.Sprintf("%s misses %s for %s", p.ID, count(p.EntriesLagging, "entry", "entries"), short(p.OldestAge.Duration()))
	if p.Failures > 0 && p.LastError != nil && !p.Pushing {
		s += fmt.Sprintf(": %s %s ago", strings.ReplaceAll(string(p.LastError.Class), "_", " "), short(p.LastError.Age.Duration()))
	}
	switch {
	case p.Paused:
		s += ", paused by an operator (`worker peers resume " + p.ID + "`)"
	case p.Pushing:
		s += ", catching up"
	case p.NextTry.Duration() >= time.Millisecond:
		s += ", next try in " + short(p.NextTry.Duration())
	default:
		s += ", next try now"
	}
	return s
}

// snapshotSentence is about a peer that is brought the current state.
func (p Peer) snapshotSentence() string {
	why := map[jobs.SnapshotReason]string{
		jobs.SnapshotNew: "new", jobs.SnapshotOverdue: "away for too long", jobs.SnapshotAsked: "resync",
	}[p.Snapshot.Reason]
	s := fmt.Sprintf("%s is brought the current state (%s): %s, %s of about %s pushed in %s", p.ID, why, p.Snapshot.Phase, comma(p.Snapshot.Pushed),
		comma(p.Snapshot.Total), short(p.Snapshot.Running.Duration()))
	switch {
	case p.Paused:
		s += ", paused by an operator (resume its queue in River UI)"
	case p.Snapshot.Waits > 0:
		s += fmt.Sprintf(", waiting %s until nothing that was pushed before can arrive any more", short(p.Snapshot.Waits.Duration()))
	case p.Failures > 0 && p.LastError != nil:
		s += fmt.Sprintf(", %s %s ago, next try in %s", strings.ReplaceAll(string(p.LastError.Class), "_", " "),
			short(p.LastError.Age.Duration()), short(p.NextTry.Duration()))
	}
	return s
}

// WriteText writes the report for people: a table of peers, what to look at, and the summary last.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	if len(r.Peers) > 0 {
		table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(table, "PEER\tSTATE\tLANES\tENTRIES\tOLDEST\tFAILURES\tNEXT TRY\tREFUSED\tLAST ERROR")
		for _, p := range r.Peers {
			_, _ = fmt.Fprintln(table, strings.Join(p.cells(), "\t"))
		}
		if err := table.Flush(); err != nil {
			return err
		}
		b.WriteByte('\n')
	}
	facts := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(facts, "undispatched\t%s\n", waiting(r.Undispatched.Entries, r.Undispatched.OldestAge))
	_, _ = fmt.Fprintf(facts, "undecided\t%s\n", waiting(r.Undecided.Entries, r.Undecided.OldestAge))
	_, _ = fmt.Fprintf(facts, "verdicts, last %s\t%s met, %s not met%s\n", short(r.Verdicts.Window.Duration()), comma(r.Verdicts.Met),
		comma(sum(r.Verdicts.NotMet)), inParentheses(reasons(r.Verdicts.NotMet)))
	if err := facts.Flush(); err != nil {
		return err
	}
	for _, p := range r.Lagging() {
		if p.Failures > 0 && p.LastError != nil && p.LastError.Hint != "" {
			fmt.Fprintf(&b, "\n%s: %s", p.ID, p.LastError.Hint)
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.Sentence())
	_, err := io.WriteString(w, b.String())
	return err
}

// WritePeers writes a table of peers for people, with what else waits for each and what to do about its last error.
func WritePeers(w io.Writer, peers []Peer) error {
	if len(peers) == 0 {
		_, err := fmt.Fprintln(w, "no peers are known yet: start `worker run` with peers in its configuration")
		return err
	}
	var b strings.Builder
	table := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "PEER\tSTATE\tLANES\tENTRIES\tOLDEST\tFAILURES\tNEXT TRY\tREFUSED\tREPAIRS\tDOUBTS\tLAST ERROR")
	for _, p := range peers {
		cells := p.cells()
		cells = slices.Insert(cells, len(cells)-1, dash(comma(p.Repairs)), dash(comma(p.Doubts)))
		_, _ = fmt.Fprintln(table, strings.Join(cells, "\t"))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, p := range peers {
		if !p.InStep && p.LastError != nil && p.LastError.Hint != "" {
			fmt.Fprintf(&b, "\n%s: %s", p.ID, p.LastError.Hint)
		}
	}
	if !strings.HasSuffix(b.String(), "\n") {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// cells is the peer's row of the table.
func (p Peer) cells() []string {
	state, next, last := p.State, "", ""
	switch {
	case p.Paused:
		state = "paused"
	case p.State != "active":
	case p.Snapshot != nil:
		state = "snapshot"
	case p.InStep:
		state = "in step"
	default:
		state = "lagging"
	}
	if !p.InStep {
		switch {
		case p.Pushing:
			next = "now"
		case p.Paused:
		case p.NextTry <= 0:
			next = "due"
		default:
			next = short(p.NextTry.Duration())
		}
	}
	if p.LastError != nil {
		last = fmt.Sprintf("%s, %s ago", p.LastError.Class, short(p.LastError.Age.Duration()))
	}
	oldest := ""
	if p.OldestAge > 0 {
		oldest = short(p.OldestAge.Duration())
	}
	return []string{
		p.ID, state, dash(comma(int64(p.LanesLagging))), dash(comma(p.EntriesLagging)), dash(oldest), dash(strconv.Itoa(p.Failures)),
		dash(next), dash(comma(p.Refusals)), dash(last),
	}
}

func dash(s string) string {
	if s == "" || s == "0" {
		return "-"
	}
	return s
}

func waiting(n int64, oldest Seconds) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("%s, oldest %s", count(n, "entry", "entries"), short(oldest.Duration()))
}

func waits(n int64) string {
	if n == 1 {
		return "1 entry waits"
	}
	return comma(n) + " entries wait"
}

func isAre(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one + " is"
	}
	return comma(n) + " " + many + " are"
}

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return comma(n) + " " + many
}

func sum[K comparable](m map[K]int64) (n int64) {
	for _, k := range m {
		n += k
	}
	return n
}

func reasons[K ~string](m map[K]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %s", reason, comma(m[reason])))
	}
	return strings.Join(parts, ", ")
}

func inParentheses(s string) string {
	if s == "" {
		return ""
	}
	return " (" + s + ")"
}

// comma writes n with a comma between thousands.
func comma(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// short writes a duration as one says it: 340ms, 4s, 2m10s, 3h05m, 2d4h.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour && d%time.Minute < time.Second:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
	}
}
