// Package importer stores memories that come as JSON lines, many in one transaction, each line whole or not at all.
package importer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/outbox"
)

const (
	// DefaultChunk is how many lines go into one transaction: enough that the commit does not count.
	DefaultChunk = 500
	// MaxChunk bounds it, because a transaction of many rows keeps their entries from being dispatched.
	MaxChunk = 5000

	// DefaultAwaitTimeout is how long Run waits for verdicts after the last line is stored.
	DefaultAwaitTimeout = time.Minute

	// DefaultRetryFor is how long one chunk is tried again while the database is away: a restart with recovery takes less.
	DefaultRetryFor = 30 * time.Second

	// chunkBytes ends a chunk early, so that long lines do not fill the memory.
	chunkBytes = 4 << 20

	// flushAfter is how long a line of a slow source waits for others.
	flushAfter = 200 * time.Millisecond

	// progressEvery is how often OnProgress is called while verdicts are waited for.
	progressEvery = 200 * time.Millisecond
)

// Options changes how [Run] works. The zero value of each field means its default.
type Options struct {
	// Chunk is the most lines of one transaction, 1 to [MaxChunk]. Defaults to [DefaultChunk].
	Chunk int
	// Await makes Run wait for the verdict of every entry, beside the import. A worker must be running somewhere.
	Await bool
	// AwaitTimeout is how long verdicts are waited for after the last line is stored. Defaults to [DefaultAwaitTimeout].
	AwaitTimeout time.Duration
	// RetryFor is how long a chunk is tried again after errors that may go away: connection lost, deadlock, server restart.
	// Defaults to [DefaultRetryFor].
	RetryFor time.Duration
	// OnBad is called once for each bad line, in the order of the lines, after the chunk around it is committed.
	OnBad func(Bad)
	// OnProgress is called after each chunk, and now and then while verdicts are waited for.
	OnProgress func(Progress)
}

func (o Options) withDefaults() (Options, error) {
	if o.Chunk == 0 {
		o.Chunk = DefaultChunk
	}
	if o.Chunk < 1 || o.Chunk > MaxChunk {
		return o, fmt.Errorf("a chunk has 1 to %d lines, not %d", MaxChunk, o.Chunk)
	}
	if o.AwaitTimeout <= 0 {
		o.AwaitTimeout = DefaultAwaitTimeout
	}
	if o.RetryFor <= 0 {
		o.RetryFor = DefaultRetryFor
	}
	if o.OnBad == nil {
		o.OnBad = func(Bad) {}
	}
	if o.OnProgress == nil {
		o.OnProgress = func(Progress) {}
	}
	return o, nil
}

// Bad is a line that was not stored.
type Bad struct {
	Line int64  // counted from 1, blank lines included
	ID   string // of its memory, "" where it could not be read
	Err  error  // the rule that it breaks; it holds nothing of the memory but names of fields
}

// Progress is how far an import is. Bytes is how much of the source has been read and stored or found bad.
type Progress struct {
	Bytes   int64
	Summary Summary
}

// Summary counts what became of the lines. Lines = Entries + Bad, and Entries = Inserted + Updated + Moved + Unchanged.
type Summary struct {
	Lines     int64 // without blank ones
	Inserted  int64
	Updated   int64
	Moved     int64 // title or namespace changed; the delete of the old place is not counted as an entry
	Unchanged int64 // was there as it is, also where a chunk was repeated whose first commit had reached the database
	Bad       int64

	Took     time.Duration // until the last line was stored
	Verdicts *Verdicts     // nil unless Options.Await
}

// Verdicts counts the verdicts of an import's entries.
type Verdicts struct {
	Met       int64                   `json:"met"`
	NotMet    map[outbox.Reason]int64 `json:"not_met"`   // by reason
	Pruned    int64                   `json:"pruned"`    // delivered to every peer and pruned before the verdict was looked at
	Undecided int64                   `json:"undecided"` // when the wait was over
	Took      time.Duration           `json:"-"`         // from the start of the import to the end of the wait
}

// Entries is how many lines were stored.
func (s Summary) Entries() int64 { return s.Inserted + s.Updated + s.Moved + s.Unchanged }

// Rate is how many entries were stored in a second.
func (s Summary) Rate() float64 {
	if s.Took <= 0 {
		return 0
	}
	return float64(s.Entries()) / s.Took.Seconds()
}

// OK reports whether every line was stored and, where verdicts were waited for, every one of them is known and not "not met".
func (s Summary) OK() bool {
	return s.Bad == 0 && (s.Verdicts == nil || len(s.Verdicts.NotMet) == 0 && s.Verdicts.Undecided == 0)
}

// MarshalJSON writes lines, entries, inserted, updated, moved, unchanged, bad, seconds, entries_per_second and, where verdicts were waited
// for, verdicts {met, not_met {reason: n}, pruned, undecided, seconds}.
func (s Summary) MarshalJSON() ([]byte, error) {
	type verdicts struct {
		Verdicts
		Seconds float64 `json:"seconds"`
	}
	var v *verdicts
	if s.Verdicts != nil {
		v = &verdicts{*s.Verdicts, s.Verdicts.Took.Seconds()}
	}
	return json.Marshal(struct {
		Lines     int64     `json:"lines"`
		Entries   int64     `json:"entries"`
		Inserted  int64     `json:"inserted"`
		Updated   int64     `json:"updated"`
		Moved     int64     `json:"moved"`
		Unchanged int64     `json:"unchanged"`
		Bad       int64     `json:"bad"`
		Seconds   float64   `json:"seconds"`
		Rate      float64   `json:"entries_per_second"`
		Verdicts  *verdicts `json:"verdicts,omitempty"`
	}{s.Lines, s.Entries(), s.Inserted, s.Updated, s.Moved, s.Unchanged, s.Bad, s.Took.Seconds(), s.Rate(), v})
}

// count adds one stored line.
func (s *Summary) count(a outbox.Action) {
	switch a {
	case outbox.Inserted:
		s.Inserted++
	case outbox.Updated:
		s.Updated++
	case outbox.Moved:
		s.Moved++
	case outbox.Unchanged:
		s.Unchanged++
	}
}

// Run stores the memories of r, one JSON object in the shape of [outbox.Memory] a line, in the order of the lines. A line that is no
// memory, breaks a rule of the protocol or is refused by the database is reported and left out; all others are stored. Blank lines are skipped.
// Ids are the caller's, so an import that was interrupted can simply be repeated.
//
// The error is about the import as a whole: options, reading, or a database that stays away for longer than RetryFor. The lines before it
// are stored and counted in the summary. When ctx ends Run returns its cause. r is read by a goroutine that ends with Run, unless a
// Read of r blocks: then with that Read, and what it reads is not stored.
func Run(ctx context.Context, pool *pgxpool.Pool, r io.Reader, options Options) (Summary, error) {
	options, err := options.withDefaults()
	if err != nil {
		return Summary{}, fmt.Errorf("import: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	run := &run{pool: pool, options: options, start: time.Now()}
	if options.Await {
		run.awaiter = newAwaiter(pool)
		go run.awaiter.run(ctx)
		defer func() { cancel(); <-run.awaiter.done }()
	}
	err = run.store(ctx, r)
	run.summary.Took = time.Since(run.start)
	if err == nil && run.awaiter != nil {
		err = run.await(ctx)
	}
	if err != nil {
		err = fmt.Errorf("import: %w", err)
	}
	return run.snapshot(), err
}

// run is one import. Its fields belong to the goroutine of Run.
type run struct {
	pool    *pgxpool.Pool
	options Options
	start   time.Time
	bytes   int64
	summary Summary
	awaiter *awaiter // nil: nobody waits
}

// store reads until the end of r and stores chunk by chunk.
func (r *run) store(ctx context.Context, from io.Reader) error {
	source := newSource(from)
	lines := make(chan line, 64) // some, so that reading and the database overlap a little
	go source.run(ctx, lines)

	var (
		chunk []line
		size  int
	)
	flush := time.NewTimer(flushAfter)
	defer flush.Stop()
	store := func() error {
		if len(chunk) == 0 {
			return nil
		}
		err := r.storeChunk(ctx, chunk)
		clear(chunk) // lets go of the memories
		chunk, size = chunk[:0], 0
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case l, more := <-lines:
			if !more {
				return errors.Join(store(), source.err) // closed by source.run, so err is final
			}
			if len(chunk) == 0 {
				flush.Reset(flushAfter)
			}
			chunk = append(chunk, l)
			if size += l.size; len(chunk) < r.options.Chunk && size < chunkBytes {
				continue
			}
		case <-flush.C:
		}
		if err := store(); err != nil {
			return err
		}
	}
}

// storeChunk stores one chunk and tells what became of it.
func (r *run) storeChunk(ctx context.Context, chunk []line) error {
	stored, err := storeLines(ctx, r.pool, chunk, r.options.RetryFor)
	if err != nil {
		return fmt.Errorf("store lines %d to %d: %w", chunk[0].number, chunk[len(chunk)-1].number, err)
	}
	entries := make([]outbox.EntryID, 0, len(chunk))
	for i, l := range chunk {
		r.summary.Lines++
		r.bytes = l.end
		if l.err != nil {
			r.summary.Bad++
			r.options.OnBad(Bad{Line: l.number, ID: l.memory.ID, Err: l.err})
			continue
		}
		r.summary.count(stored[i].Action)
		entries = append(entries, stored[i].Entry)
	}
	if r.awaiter != nil && len(entries) > 0 {
		r.awaiter.add(entries)
	}
	r.summary.Took = time.Since(r.start)
	r.progress()
	return nil
}

// await waits for the verdicts that are still open.
func (r *run) await(ctx context.Context) error {
	r.awaiter.close()
	timeout := time.NewTimer(r.options.AwaitTimeout)
	defer timeout.Stop()
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.awaiter.done:
			r.progress()
			return r.awaiter.err
		case <-timeout.C:
			r.awaiter.stop()
		case <-ticker.C:
			r.progress()
		}
	}
}

func (r *run) progress() {
	r.options.OnProgress(Progress{Bytes: r.bytes, Summary: r.snapshot()})
}

// snapshot returns the counts so far; the caller may keep them.
func (r *run) snapshot() Summary {
	s := r.summary
	if r.awaiter != nil {
		v := r.awaiter.snapshot()
		v.Undecided = s.Entries() - v.decided()
		v.Took = time.Since(r.start)
		s.Verdicts = &v
	}
	return s
}

func (v Verdicts) decided() int64 {
	n := v.Met + v.Pruned
	for _, k := range v.NotMet {
		n += k
	}
	return n
}
