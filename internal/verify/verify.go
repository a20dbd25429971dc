// Package verify compares what a peer has with the store, through the peer's read-back API, and asks for repairs of what differs.
//
// Both are live: a difference counts only when it was seen twice, the second time between two looks at the store that found the same, and with
// everything of the lane acknowledged that was written before the first. What does not come to rest is reported as unsettled. docs/verify.md says
// what is compared, what cannot be seen, and what it costs.
package verify

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"quorumbox/internal/peer"
	"quorumbox/jobs"
)

// Reader reads a peer's state: a [peer.Client].
type Reader interface {
	Memories(ctx context.Context, page peer.Page) ([]peer.StoredMemory, error)
	Memory(ctx context.Context, id, asAgent string) (m peer.StoredMemory, links []peer.StoredLink, found bool, err error)
	Links(ctx context.Context, id, asAgent string) ([]peer.StoredLink, error)
	Archive(ctx context.Context, page peer.Page) ([]peer.ArchivedMemory, error)
	Pendings(ctx context.Context, page peer.Page) ([]peer.StoredPending, error)
	Standard(ctx context.Context, namespace, asAgent string) (peer.Standard, error)
	Namespaces(ctx context.Context, asAgent string) ([]string, error)
}

// Kind says what a difference is.
type Kind string

// The kinds of differences. The list is closed ([Kinds]).
const (
	KindMissing       Kind = "missing"        // the peer does not have the memory
	KindExtra         Kind = "extra"          // the peer has a live memory that is deleted or archived here
	KindUnknown       Kind = "unknown"        // the peer has a memory that the store never had
	KindDiffers       Kind = "differs"        // fields of the memory differ
	KindNotArchived   Kind = "not_archived"   // archived here, not at the peer
	KindArchived      Kind = "archived"       // archived at the peer, not here
	KindLinkMissing   Kind = "link_missing"   // the peer lacks a link
	KindLinkExtra     Kind = "link_extra"     // the peer has a link that the store does not have
	KindStandard      Kind = "standard"       // the namespace's standard is missing or another one
	KindStandardExtra Kind = "standard_extra" // the peer has a standard where the store has none
	KindPending       Kind = "pending"        // a pending action is missing, or differs
)

// Kinds returns every kind, in a fixed order. The caller owns the slice.
func Kinds() []Kind {
	return []Kind{
		KindMissing, KindExtra, KindUnknown, KindDiffers, KindNotArchived, KindArchived, KindLinkMissing, KindLinkExtra, KindStandard,
		KindStandardExtra, KindPending,
	}
}

// Difference is one thing that a peer has otherwise. No content is part of it.
type Difference struct {
	Kind Kind `json:"kind"`
	// Key is the memory's id, the source's for a link, the pending action's, or the namespace for a standard.
	Key       string `json:"key"`
	Namespace string `json:"namespace"`
	// Fields are those that differ, or the relation and target of a link.
	Fields []string `json:"fields,omitempty"`
}

// LinkScope says which memories are asked for their links.
type LinkScope string

// The scopes of links: each memory of the scope costs one request.
const (
	LinksNone   LinkScope = ""       // none
	LinksLinked LinkScope = "linked" // those that have links in the store
	LinksAll    LinkScope = "all"    // all: finds links at the peer where the store has none
)

// Options say what to compare and how. The zero value compares everything but links, and repairs nothing.
type Options struct {
	// Namespaces are compared alone. Empty: all that the store or the peer names, and the archive as a whole.
	Namespaces []string
	// Links says which memories are asked for their links.
	Links LinkScope
	// AsAgent asks for lists, for the archive and for standards: peers show the archive to admins. Empty: nobody in particular.
	AsAgent string
	// Agents are further agents whose private memories are listed, beside those that the store has memories of.
	Agents []string
	// Rate is the most requests a second to the peer. Defaults to [DefaultRate].
	Rate float64
	// Repair asks for repairs of what differs.
	Repair Switch
	// DeleteUnknown repairs [KindUnknown] and [KindStandardExtra], too: the peer's memory or standard goes.
	DeleteUnknown Switch
	// Await is how long to wait until the repairs are done ([ErrRepairsWait]); then what they were for is compared again. 0: they are not waited for.
	Await time.Duration
	// Rounds is how often a difference is looked at again while the store changes or the peer lags. Defaults to 3.
	Rounds int
	// SettleWait is how long each round waits for the peer to acknowledge what came before. Defaults to 5s.
	SettleWait time.Duration
	// OnDifference is called for each difference, in no particular order. Nil: nobody is.
	OnDifference func(Difference)
	// OnProgress is called after each request or so. Nil: nobody is.
	OnProgress func(Progress)

	step func() // called with each request to the peer, and each look whether it has settled
}

// Switch is on or off. The zero value is off.
type Switch bool

// The two values.
const (
	Off Switch = false
	On  Switch = true
)

// DefaultRate is how many requests a second a peer gets if nothing else is said.
const DefaultRate = 20

func (o Options) withDefaults() Options {
	if o.Rate <= 0 {
		o.Rate = DefaultRate
	}
	if o.Rounds <= 0 {
		o.Rounds = 3
	}
	if o.SettleWait <= 0 {
		o.SettleWait = 5 * time.Second
	}
	if o.OnDifference == nil {
		o.OnDifference = func(Difference) {}
	}
	if o.OnProgress == nil {
		o.OnProgress = func(Progress) {}
	}
	if o.step == nil {
		o.step = func() {}
	}
	return o
}

// Progress is how far a comparison is.
type Progress struct {
	Phase string // memories, archive, links, repairs or again
	Done  int64
	Total int64 // 0: not known
}

// Report is what a comparison found.
type Report struct {
	Peer       string `json:"peer"`
	Namespaces int64  `json:"namespaces"` // compared
	Memories   int64  `json:"memories"`   // of the store, compared
	Requests   int64  `json:"requests"`
	// Differences counts by kind.
	Differences map[Kind]int64 `json:"differences"`
	// Unsettled counts what differed while the store changed, the peer lagged or a repair was due.
	Unsettled int64 `json:"unsettled"`
	// Unreadable counts the private memories without an author, which peers show to nobody.
	Unreadable int64 `json:"unreadable"`
	// Expired counts the memories that have expired: peers do not show them, and may have dropped them.
	Expired int64 `json:"expired"`
	// Notes say what was not compared.
	Notes []string `json:"notes,omitempty"`
	// Repairs is how many were asked for.
	Repairs int64 `json:"repairs"`
	// Left counts the differences that are left: all, but with Await those that their repairs have not mended.
	Left int64         `json:"left"`
	Took time.Duration `json:"-"`
}

// Total is the number of differences of all kinds.
func (r Report) Total() int64 {
	var n int64
	for _, count := range r.Differences {
		n += count
	}
	return n
}

// Equal reports whether no difference is left and everything came to rest.
func (r Report) Equal() bool { return r.Left == 0 && r.Unsettled == 0 }

// ErrUnknownPeer means that no worker has registered the peer yet.
var ErrUnknownPeer = errors.New("the database does not know the peer: start a worker that has it in its settings first")

// ErrRepairsWait means that repairs were asked for and are not done in time. They stay.
var ErrRepairsWait = fmt.Errorf("repairs are not done in time: %w", context.DeadlineExceeded)

// Run compares the peer with the store. It uses conn alone, with temporary tables of its own on it, and one request at a time. The report is valid as far
// as it goes if there is an error, too: ctx's cause, one of the database, or a [*peer.Error] that lasts.
func Run(ctx context.Context, conn *pgxpool.Conn, reader Reader, peerID string, options Options) (Report, error) {
	started := time.Now()
	r := &run{
		store:   store{conn: conn, peer: peerID},
		options: options.withDefaults(),
		report:  Report{Peer: peerID, Differences: map[Kind]int64{}},
		behind:  map[int16]bool{},
	}
	r.peer = paced{reader: reader, pace: newPace(r.options.Rate), count: &r.report.Requests, step: r.options.step}
	err := r.all(ctx)
	r.report.Took = time.Since(started)
	if err != nil {
		return r.report, fmt.Errorf("verify %s: %w", peerID, err)
	}
	return r.report, nil
}

// run is one comparison.
type run struct {
	store   store
	peer    paced
	options Options
	report  Report
	total   int64          // memories to compare
	behind  map[int16]bool // lanes in which the peer did not catch up while it was waited for
	wanted  []jobs.Subject // repairs that are not asked for yet
}

func (r *run) all(ctx context.Context) error {
	if err := r.store.prepare(ctx); err != nil {
		return err
	}
	namespaces, err := r.namespaces(ctx)
	if err != nil {
		return err
	}
	if r.total, err = r.store.count(ctx, r.options.Namespaces); err != nil {
		return err
	}
	for _, ns := range namespaces {
		for _, compare := range []func(context.Context, string) error{r.compareMemories, r.comparePendings, r.compareStandard} {
			if err := compare(ctx, ns); err != nil {
				return err
			}
		}
		r.report.Namespaces++
	}
	for _, compare := range []func(context.Context) error{r.compareArchive, r.compareLinks, r.flush, r.awaitRepairs} {
		if err := compare(ctx); err != nil {
			return err
		}
	}
	return nil
}

// namespaces are those to compare: asked for, or of the store and of the peer.
func (r *run) namespaces(ctx context.Context) ([]string, error) {
	if len(r.options.Namespaces) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(r.options.Namespaces))), nil
	}
	ours, err := r.store.namespaces(ctx)
	if err != nil {
		return nil, err
	}
	theirs, err := ask(ctx, &r.peer, func(ctx context.Context) ([]string, error) {
		return r.peer.reader.Namespaces(ctx, r.options.AsAgent)
	})
	if err != nil {
		if !refused(err) {
			return nil, err
		}
		r.note("the peer does not list its namespaces: those that the store has nothing of are not compared")
	}
	theirs = slices.DeleteFunc(theirs, func(ns string) bool { return !isNamespace(ns) })
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(ours, theirs)))), nil
}

// note says once that something was not compared.
func (r *run) note(text string) {
	if !slices.Contains(r.report.Notes, text) {
		r.report.Notes = append(r.report.Notes, text)
	}
}

func (r *run) progress(phase string, done, total int64) {
	r.options.OnProgress(Progress{Phase: phase, Done: done, Total: total})
}
