// Package integration tests the whole program against faults: real worker and peer processes and a real Postgres are killed, stopped,
// slowed down and lied to, and afterwards every peer must hold what the writer committed.
//
// It holds tests only. What is right is judged by a checker that shares no code with the program: it reads the writer's tables by plain SQL
// and each peer's rows and apply log over HTTP. The invariants that it names (C1, I3, …) are:
//
//	C1  after heal and settle each peer equals the writer's state
//	C2  a batch is met only with W-1 distinct peers, each of which has applied all of it before the verdict
//	C3  a lagging lane has exactly one live retry job, and nothing else has one
//	C6  nothing is stuck: no entry undispatched, no batch undecided, no lane lagging, no job live
//	C9  no secret in logs, tables and jobs; no content of a memory in logs and jobs
//	C10 the fault happened
//	I3  each peer got the changes of a memory in commit order
//
// The program is built once, with the build tag faults; Postgres is that of internal/pgtest.
package integration
