// Package integration tests the whole program against faults: real worker and peer processes and a real Postgres are killed, stopped,
// slowed down and lied to, and afterwards every peer must hold what the writer committed.
//
// It holds tests only. What is right is judged by a checker that shares no code with the program: it reads the writer's tables by plain SQL
// and each peer's rows and apply log over HTTP. The invariants that it names (C1, I3, …) are:
//
//	C1  after heal and settle each peer equals the writer's state
//	C2  a batch is met only with W-1 distinct peers, each of which has applied all of it before the verdict
//	C3  a peer that misses something has one way forward: its lane lags, with one live retry job or a lease that lasts; no other has one
//	C4  what was deleted is not at any peer, once nothing is in doubt any more
//	C5  a memory at a peer never gets an older version than it had, and each version takes effect once in a life
//	C6  nothing is stuck: no entry undispatched, no batch undecided, no lane lagging, no push in doubt, no repair due, no job live
//	C7  sockets, memory, arguments and errors of jobs, and live jobs stay below their ceilings, and are what they were when all is over
//	C9  no secret in logs, tables, jobs and metrics; no content of a memory in logs, jobs and metrics
//	C10 the fault happened
//	I3  each peer got the changes of a memory in commit order
//
// The program is built once, with the build tag faults; Postgres is that of internal/pgtest.
package integration
