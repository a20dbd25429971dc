package jobs

import (
	"context"
	"fmt"
	"math"
	"slices"

	"quorumbox/outbox"
)

// lookAhead is how many batches of a lane are read at a time.
const lookAhead = 200

// loadNext reads what a lagging peer is pushed next of the lanes that a retry holds, as much as items and bytes allow. rows are all lanes in which the peer
// lags. What a batch must come after comes before it, in the same shipment if it is in a lane that is held as well; a batch that must wait for a
// lane that somebody else holds is left for later.
//
// A lane of which something was pushed already and not acknowledged is pushed up to there again, just so, and with the lanes that this needs: the shipment
// it was in held them too, or they were recorded before it. So there is always a shipment in which nothing waits, whatever was pushed together before.
//
// What is new ends before it takes more than mostPushes. entangled says that some lane waits for another one.
func (s *store) loadNext(ctx context.Context, lanes []lag, rows map[peerLane]lag, most limits) (batches []batch, entangled bool, err error) {
	c := chooser{store: s, most: most}
	for i := range c.has {
		c.has[i] = math.MaxInt64
	}
	for _, l := range rows {
		c.has[l.Lane] = l.Cursor
	}
	for _, l := range lanes {
		log := &laneLog{lane: l.Lane, read: l.Cursor, again: l.PushedTo > l.Cursor, limit: math.MaxInt64}
		if log.again {
			log.limit = l.PushedTo
		}
		c.has[l.Lane], c.held[l.Lane] = l.Cursor, log
		c.lanes = append(c.lanes, l.Lane)
	}
	if err := c.takeAgain(ctx); err != nil {
		return nil, false, err
	}
	again := len(c.batches)
	if err := c.takeNew(ctx); err != nil {
		return nil, false, err
	}
	if err := s.loadEntries(ctx, c.batches); err != nil {
		return nil, false, err
	}
	return affordable(c.batches, again, most), c.entangled, nil
}

// mostPushes bounds what is announced at a time, so that a peer that is slow, or fails now and then, gets to the end of it: a part of a shipment says nothing of a batch, and a shipment
// that was begun is repeated as a whole. Entries that have no conflicts make one push; those of a few memories that change places all the time make many.
const mostPushes = 16

// affordable is the first of the batches that make no more than mostPushes, and at least those that were pushed already, or one. Each batch comes after those that it needs, so that a
// first part does, too.
func affordable(batches []batch, again int, most limits) []batch {
	least := max(again, 1)
	for len(batches) > least && pushes(batches, most) > mostPushes {
		batches = batches[:max(least, len(batches)/2)]
	}
	return batches
}

// pushes is how many pushes batches make.
func pushes(batches []batch, most limits) int {
	var entries []entry
	for _, b := range batches {
		entries = append(entries, b.Entries...)
	}
	return len(plan(entries, most))
}

// choice is what goes into a shipment.
type choice struct {
	has     [outbox.Lanes]int64 // up to which batch the peer has each lane after it
	batches []batch             // each after those that it needs
	items   int
	bytes   int64
	bounded bool // it must fit beside what is chosen
}

func (c *choice) take(b batch) {
	c.has[b.Lane] = b.Number
	c.batches = append(c.batches, b)
	c.items += len(b.IDs)
	c.bytes += b.Bytes
}

// chooser fills a choice.
type chooser struct {
	choice

	store *store
	most  limits
	lanes []int16                // that are held
	held  [outbox.Lanes]*laneLog // nil: not held

	entangled bool // a batch had to wait for another lane's
}

// laneLog is the log of a held lane after the peer's cursor, as far as it was read.
type laneLog struct {
	lane    int16
	batches []batch
	read    int64 // the number of the last one that was read, or the cursor
	ended   bool  // there was no other
	again   bool  // something of it was pushed and not acknowledged
	limit   int64 // no batch after this one is taken now
}

// after returns the batch that follows number.
func (l *laneLog) after(ctx context.Context, s *store, number int64) (b batch, ok bool, err error) {
	if number >= l.limit {
		return b, false, nil
	}
	if number == l.read && !l.ended {
		more, err := s.loadBatches(ctx, laneRange{Lane: l.lane, Cursor: number, AtMost: lookAhead})
		if err != nil {
			return b, false, err
		}
		l.ended = len(more) < lookAhead
		l.batches = append(l.batches, more...)
		if len(more) > 0 {
			l.read = more[len(more)-1].Number
		}
	}
	if number >= l.read {
		return b, false, nil
	}
	i := len(l.batches) - int(l.read-number)
	if i < 0 || l.batches[i].Number != number+1 {
		return b, false, fmt.Errorf("lane %d: there is no batch %d", l.lane, number+1)
	}
	return l.batches[i], true, nil
}

// takeAgain takes what was pushed already: the first lane whatever it needs, others as they fit.
func (c *chooser) takeAgain(ctx context.Context) error {
	for _, lane := range c.lanes {
		l := c.held[lane]
		if !l.again || c.has[lane] >= l.limit {
			continue
		}
		t := c.tentative()
		ok, err := c.bringAgain(ctx, &t, l)
		if err != nil {
			return err
		}
		if ok && (len(c.batches) == 0 || c.fits(t)) {
			c.commit(t)
		}
	}
	for _, lane := range c.lanes {
		if l := c.held[lane]; l.again {
			l.limit = min(l.limit, c.has[lane]) // taken as it was pushed, or not at all
		}
	}
	return nil
}

// bringAgain takes all that was pushed of a lane, and of the lanes that it needs.
func (c *chooser) bringAgain(ctx context.Context, t *choice, l *laneLog) (ok bool, err error) {
	if ok, err = c.bring(ctx, t, l, l.limit); !ok || err != nil {
		return false, err
	}
	for _, lane := range c.lanes {
		if other := c.held[lane]; other.again && t.has[lane] > c.has[lane] && t.has[lane] < other.limit {
			if ok, err = c.bringAgain(ctx, t, other); !ok || err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// takeNew fills up with what follows, lane by lane, until something does not fit any more. What does not fit together with all that it needs is left to a later
// shipment, which begins further on in those other lanes.
func (c *chooser) takeNew(ctx context.Context) error {
	for _, lane := range c.lanes {
		for {
			b, ok, err := c.held[lane].after(ctx, c.store, c.has[lane])
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			t := c.tentative()
			t.bounded = true
			if !c.waits(b) {
				t.take(b)
				if len(c.batches) > 0 && !c.fits(t) {
					return nil // what little may still fit is not worth a look into all other lanes
				}
			} else if ok, err = c.bring(ctx, &t, c.held[lane], b.Number); err != nil {
				return err
			} else if !ok || !c.fits(t) {
				break
			}
			c.commit(t)
		}
	}
	return nil
}

// waits reports whether something that the batch must come after is neither at the peer nor in the shipment.
func (c *chooser) waits(b batch) bool {
	return slices.ContainsFunc(b.After, func(first batchRef) bool { return c.has[first.Lane] < first.Number })
}

// bring takes the batches of a lane up to upTo, and before each what it must come after. ok is false if something of that is out of reach, or there is no room
// for it. It ends, because a batch only ever comes after batches that were dispatched before it.
func (c *chooser) bring(ctx context.Context, t *choice, l *laneLog, upTo int64) (ok bool, err error) {
	for t.has[l.lane] < upTo {
		b, ok, err := l.after(ctx, c.store, t.has[l.lane])
		if !ok || err != nil || t.bounded && !c.fits(*t) {
			return false, err
		}
		for _, first := range b.After {
			if t.has[first.Lane] >= first.Number {
				continue
			}
			c.entangled = true
			other := c.held[first.Lane]
			if other == nil {
				return false, nil
			}
			if ok, err = c.bring(ctx, t, other, first.Number); !ok || err != nil {
				return false, err
			}
		}
		t.take(b)
	}
	return true, nil
}

// tentative is the choice so far, to be added to.
func (c *chooser) tentative() choice {
	return choice{has: c.has}
}

func (c *chooser) fits(t choice) bool {
	return c.items+t.items <= c.most.items && c.bytes+t.bytes <= int64(c.most.bytes)
}

func (c *chooser) commit(t choice) {
	c.has = t.has
	c.batches = append(c.batches, t.batches...)
	c.items += t.items
	c.bytes += t.bytes
}
