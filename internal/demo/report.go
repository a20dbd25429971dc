package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"

	"quorumbox/internal/importer"
	"quorumbox/outbox"
)

const (
	// maxDifferences is how many differences of a peer are listed.
	maxDifferences = 5

	// maxLine bounds one memory as JSON: its limits allow some 300 KiB with every character escaped.
	maxLine = 4 << 20
)

// Summary is what the demo saw.
type Summary struct {
	Source  string           // what was imported
	Import  importer.Summary // with the verdicts of the imported memories
	Changes outbox.Verdict   // of the update, the delete and the rename
	CatchUp time.Duration    // from the killed peer's return until no peer missed anything
	Typical time.Duration    // median from a write to its verdict
	Slow    time.Duration    // 99 % of the writes had their verdict sooner
	Took    time.Duration    // from the import's start to the end of the comparison
	Store   int              // memories in the store at the end
	Peers   []PeerResult     // empty if the demo did not come that far
}

// PeerResult compares a peer with the store.
type PeerResult struct {
	ID         string       `json:"id"`
	Rows       int          `json:"rows"`
	Equal      int          `json:"equal"`       // all 26 fields
	ByProtocol int          `json:"by_protocol"` // all but what the protocol makes a receiver do: see compare
	Different  int          `json:"different"`   // rows of both that differ
	Missing    int          `json:"missing"`     // rows of the store that the peer does not have
	Extra      int          `json:"extra"`       // rows of the peer that the store does not have
	First      []Difference `json:"first_differences"`
}

// Equal reports whether every peer was compared and has exactly the store's memories. Bad lines are in neither, so they do not count here.
func (s Summary) Equal() bool {
	for _, p := range s.Peers {
		if p.Different+p.Missing+p.Extra > 0 || p.Equal+p.ByProtocol != s.Store || p.Rows != s.Store {
			return false
		}
	}
	return len(s.Peers) == len(peerIDs()) && s.Store > 0
}

// Verdicts adds up the verdicts of everything that was written.
func (s Summary) Verdicts() (met int64, notMet map[outbox.Reason]int64) {
	notMet = map[outbox.Reason]int64{}
	met = int64(s.Changes.Met)
	for reason, n := range s.Changes.NotMet {
		notMet[reason] += int64(n)
	}
	if v := s.Import.Verdicts; v != nil {
		met += v.Met + v.Pruned
		for reason, n := range v.NotMet {
			notMet[reason] += n
		}
	}
	return met, notMet
}

// MarshalJSON writes the keys below, times in seconds. Keys are added, never renamed or removed.
func (s Summary) MarshalJSON() ([]byte, error) {
	met, notMet := s.Verdicts()
	return json.Marshal(struct {
		Equal   bool                    `json:"equal"`
		Source  string                  `json:"source"`
		Store   int                     `json:"store_rows"`
		Peers   []PeerResult            `json:"peers"`
		Import  importer.Summary        `json:"import"`
		Met     int64                   `json:"met"`
		NotMet  map[outbox.Reason]int64 `json:"not_met"`
		Typical float64                 `json:"verdict_p50_seconds"`
		Slow    float64                 `json:"verdict_p99_seconds"`
		CatchUp float64                 `json:"catch_up_seconds"`
		Took    float64                 `json:"seconds"`
	}{
		s.Equal(), s.Source, s.Store, append([]PeerResult{}, s.Peers...), s.Import, met, notMet,
		s.Typical.Seconds(), s.Slow.Seconds(), s.CatchUp.Seconds(), s.Took.Seconds(),
	})
}

// print shows the summary.
func (s Summary) print(show *screen) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "\nstore: %s memories, all 26 fields of each compared with every peer\n\n", count(s.Store))
	writePeers(&b, s.Peers)
	met, notMet := s.Verdicts()
	fmt.Fprintf(&b, "\nverdicts: met %s, not met %s%s\n", count(met), count(sum(notMet)), reasons(notMet))
	fmt.Fprintf(&b, "from a write to its verdict: median %s, 99 %% within %s\n", milliseconds(s.Typical), milliseconds(s.Slow))
	fmt.Fprintf(&b, "import: %s memories in %s (%s/s), bad lines %s\ncatch-up of the killed peer: %s; in all %s\n",
		count(s.Import.Entries()), seconds(s.Import.Took), count(int64(s.Import.Rate())), count(s.Import.Bad), seconds(s.CatchUp), seconds(s.Took))
	if s.Equal() {
		fmt.Fprintf(&b, "\nAll %d peers equal the store, field by field.\n", len(s.Peers))
	} else {
		b.WriteString("\nThe peers DIFFER from the store: see above.\n")
	}
	show.print(b.String())
}

// writePeers shows how the peers compare with the store.
func writePeers(b *bytes.Buffer, peers []PeerResult) {
	table := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "peer\trows\tequal\tby protocol\tdifferent\tmissing\textra")
	byProtocol := false
	for _, p := range peers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, count(p.Rows), count(p.Equal), count(p.ByProtocol),
			count(p.Different), count(p.Missing), count(p.Extra))
		byProtocol = byProtocol || p.ByProtocol > 0
	}
	_ = table.Flush() // into memory
	if byProtocol {
		b.WriteString("(by protocol: equal but for what a receiver does itself. It keeps the \"version\" with\n" +
			" which it first got a memory, and notes a reflection's sender in its metadata.)\n")
	}
	for _, p := range peers {
		for _, d := range p.First {
			fmt.Fprintf(b, "  %s differs in %s\n", p.ID, d)
		}
	}
	b.WriteByte('\n')
}

func reasons(notMet map[outbox.Reason]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(notMet)) {
		parts = append(parts, fmt.Sprintf("%s %s", reason, count(notMet[reason])))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

// compareAll compares every peer with the store.
func (p *play) compareAll(ctx context.Context, summary *Summary) error {
	for _, peer := range p.peers {
		result, err := p.comparePeer(ctx, peer)
		if err != nil {
			return fmt.Errorf("compare %s with the store: %w", peer.id, err)
		}
		summary.Peers = append(summary.Peers, result)
	}
	if err := p.pool.QueryRow(ctx, `select count(*) from memories`).Scan(&summary.Store); err != nil {
		return fmt.Errorf("count memories: %w", err)
	}
	return nil
}

// comparePeer reads both sides in the order of their ids, side by side, and holds one row of each in memory.
func (p *play) comparePeer(ctx context.Context, peer *peerProcess) (PeerResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // also of a row that was not read to its end
	rows, err := p.pool.Query(ctx, memoriesSQL+` order by id collate "C"`)
	if err != nil {
		return PeerResult{}, err
	}
	defer rows.Close()
	body, err := peer.get(ctx, "/_ref/memories")
	if err != nil {
		return PeerResult{}, err
	}
	defer body.Close()
	return compareSides(peer.id, senderID, storeSide(rows), peerSide(body))
}

// side returns the next memory with its id, io.EOF after the last one. The text is good until the next call.
type side func() (id string, text []byte, err error)

func storeSide(rows pgx.Rows) side {
	return func() (string, []byte, error) {
		if !rows.Next() {
			if err := rows.Err(); err != nil {
				return "", nil, err
			}
			return "", nil, io.EOF
		}
		var text []byte
		if err := rows.Scan(&text); err != nil {
			return "", nil, err
		}
		return withID(text)
	}
}

func peerSide(r io.Reader) side {
	lines := lineScanner(r)
	return func() (string, []byte, error) {
		if !lines.Scan() {
			if err := lines.Err(); err != nil {
				return "", nil, err
			}
			return "", nil, io.EOF
		}
		return withID(lines.Bytes())
	}
}

// lineScanner reads memories, one a line.
func lineScanner(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	return lines
}

func withID(text []byte) (string, []byte, error) {
	var row struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(text, &row); err != nil {
		return "", nil, fmt.Errorf("read a memory: %w", err)
	}
	return row.ID, text, nil
}

// compareSides walks over two lists that are sorted by id.
func compareSides(name, sender string, store, peer side) (PeerResult, error) {
	result := PeerResult{ID: name, First: []Difference{}}
	note := func(id, field string) {
		if len(result.First) < maxDifferences {
			result.First = append(result.First, Difference{ID: id, Field: field})
		}
	}
	a, textA, errA := store()
	b, textB, errB := peer()
	for {
		switch {
		case errA != nil && !errors.Is(errA, io.EOF):
			return result, errA
		case errB != nil && !errors.Is(errB, io.EOF):
			return result, errB
		case errA != nil && errB != nil:
			return result, nil
		case errB != nil || errA == nil && a < b:
			result.Missing++
			note(a, "row")
			a, textA, errA = store()
			continue
		case errA != nil || b < a:
			result.Rows++
			result.Extra++
			note(b, "extra row")
			b, textB, errB = peer()
			continue
		}
		result.Rows++
		c, err := compare(sender, textA, textB)
		if err != nil {
			return result, fmt.Errorf("memory %s: %w", a, err)
		}
		switch {
		case len(c.different) > 0:
			result.Different++
		case c.byProtocol:
			result.ByProtocol++
		default:
			result.Equal++
		}
		for _, field := range c.different {
			note(a, field)
		}
		a, textA, errA = store()
		b, textB, errB = peer()
	}
}

// readLatency reads how long a verdict took, from the row's insert on.
func (p *play) readLatency(ctx context.Context, summary *Summary) error {
	err := p.pool.QueryRow(ctx, `
		select coalesce(percentile_cont(0.5) within group (order by took), '0'), coalesce(percentile_cont(0.99) within group (order by took), '0')
		from (
			select b.decided_at - o.created_at as took
			from batches b
			cross join unnest(b.entries) e (id)
			join outbox o on o.id = e.id
			where b.verdict <> 'pending'
		) t`).Scan(&summary.Typical, &summary.Slow)
	if err != nil {
		return fmt.Errorf("read the time to the verdict: %w", err)
	}
	return nil
}
