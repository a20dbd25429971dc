// Package model is the protocol between the jobs and the peers as a model that is small enough to look at every state of it. Its tests show
// that the rule for zombies (package jobs: doubts and repairs) holds, and that each part of it is needed: without any one of them the
// search finds a shortest way to a peer that differs from the writer for good. Nothing else uses the package.
//
// # What is modelled
//
// One lane. A writer commits a short history of a memory, or of two that have the same title one after the other. The relay makes numbered
// batches of what is committed, at most one of them undecided. Workers run fan-outs (with the second attempt, and with the verdict that is
// recorded before stragglers have answered), retries and repairs; what they do in one transaction is one step, and so is each push. One or
// two peers apply pushes item by item by the rules of wire.md 6, and keep no tombstones. The rows are those of the database: batches
// (undecided, owner), lagging (cursor, pushed_to, holder, and whether it is left alone), doubts, repairs (due, running, to be done again).
//
// What can go wrong, at every step: a worker is killed; a lease runs out although its holder lives; a push fails, or has no answer and
// arrives later, after newer ones, or never; only the first of its items is applied before something else is. How often workers are killed,
// answers are missing and leases of the living run out is bounded by [Config]; how often a push certainly fails is not.
//
// Time is modelled as what it orders. Of Z (Config.Zombie of package jobs) that is: when a doubt runs out, everything that was on its way
// when it was written has arrived or is lost, and every job that ran then has ended, and what it sent since has arrived or is lost, too. So
// Z must cover the longest job and, after that, the life of a push; a worker that is stopped for longer and goes on to push is outside the
// model, as it is outside the rule.
//
// # What is checked
//
// In each state: met was recorded only with W-1 true acknowledgements; no cursor is past what the peer has acknowledged; something can go
// on unless nothing is left to do. In each state in which nothing is under way or due at a peer: it has exactly what the writer has, so
// that nothing is lost and nothing came back from the dead. In the smaller models also: from each state, one where nothing is left to do
// can still be reached.
//
// # What is not
//
// Several lanes and what waits between them; titles that change, archives, restores, links and the like, and so the difference between
// storing again and renewing; refusals; limits of a push; back-off, but for the one after a repair. The store's state and its log are read
// as they are: what a transaction does is believed to be atomic.
//
// # Sizes
//
// An ordinary test run takes one peer and two workers for histories of up to three entries, and two peers and two workers for two entries,
// with one or two faults: about a million states, a few seconds. With -model.large it takes longer histories and more faults: tens of
// millions of states one after the other, some minutes, and up to 4 GiB. Mirror images (workers and peers that change places) are counted
// once.
package model
