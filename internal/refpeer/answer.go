package refpeer

import (
	"bytes"
	"compress/gzip"
	"net/http"

	"github.com/google/uuid"
)

// noteUnsupported is what a receiver on Postgres adds to its answers.
const noteUnsupported = "lists that this backend does not apply are counted in unsupported_on_postgres"

// accepted is the answer 200.
func (p *Peer) accepted(at *attempt, out *outcome) reply {
	b := make([]byte, 0, 512)
	b = append(b, `{"dry_run":`...)
	if at.in.msg.dryRun {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	b = appendCount(b, "applied", out.done[listMemories])
	b = appendCount(b, "deleted", out.done[listDeletions])
	b = appendCount(b, "noop", out.noop)
	b = appendCount(b, "skipped", out.skipped)
	b = appendCount(b, "links_applied", out.done[listLinks])
	b = appendCount(b, "quota_refused", out.quotaRefused)
	if p.cfg.Backend == BackendPostgres {
		b = appendCount(b, "unsupported_on_postgres", out.unsupported)
		b = appendField(b, "storage_backend", string(BackendPostgres))
		b = appendField(b, "note", noteUnsupported)
	} else {
		b = appendCount(b, "archived", out.done[listArchives])
		b = appendCount(b, "restored", out.done[listRestores])
		b = appendCount(b, "pendings_applied", out.done[listPendings])
		b = appendCount(b, "pending_decisions_applied", out.done[listDecisions])
		b = appendCount(b, "namespace_meta_applied", out.done[listNamespaceMeta])
		b = appendCount(b, "namespace_meta_cleared", out.done[listNamespaceClears])
		if out.unsupported > 0 { // a fault
			b = appendCount(b, "unsupported_on_postgres", out.unsupported)
		}
	}
	switch at.fault.Mode {
	case ModeDrift:
		b = append(b, `,"ids":["drifted-to-another-id"]`...)
	case ModeIDs:
		b = appendStrings(b, "ids", at.in.msg.keys())
	case ModeExtra:
		b = append(b, `,"checkpoints_applied":0,"attestation_refusals":[],"x_unknown":{"nested":[1,{"skipped":9}]},"x_null":null`...)
	default:
	}
	agent := at.r.Header.Get("X-Agent-Id")
	if agent == "" {
		agent = "anonymous:req-" + uuid.NewString()
	}
	b = appendField(b, "receiver_agent_id", agent)
	if p.cfg.Backend != BackendPostgres {
		b = append(b, `,"receiver_clock":{"entries":{}}`...)
	}
	return disguise(reply{status: http.StatusOK, body: append(b, '}')}, at.fault.Mode)
}

// disguise changes the form of an answer as a fault wants it.
func disguise(answer reply, mode Mode) reply {
	switch mode {
	case ModeTruncated:
		answer.body = answer.body[:len(answer.body)/2]
	case ModeGzip:
		var packed bytes.Buffer
		zip := gzip.NewWriter(&packed)
		_, _ = zip.Write(answer.body) // a buffer takes everything
		_ = zip.Close()
		answer.body = packed.Bytes()
		answer.header = http.Header{"Content-Encoding": {"gzip"}}
	default:
	}
	return answer
}

// appendStrings appends a field that is a list of strings.
func appendStrings(b []byte, name string, values []string) []byte {
	b = append(append(append(b, ',', '"'), name...), '"', ':', '[')
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']')
}
