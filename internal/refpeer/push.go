package refpeer

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"time"

	"github.com/google/uuid"
)

// maxBody is how many bytes a push may have.
const maxBody = 2 << 20

// reply is one answer.
type reply struct {
	status int
	body   []byte
	header http.Header // beside the content type; may be nil
}

func (a reply) write(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	maps.Copy(header, a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // the client has gone: nobody to tell
}

func errorReply(status int, message string) reply {
	return reply{status: status, body: append(appendString([]byte(`{"error":`), message), '}')}
}

// handlePush answers one push and counts it.
func (p *Peer) handlePush(w http.ResponseWriter, r *http.Request) {
	p.counters.begin()
	fault := p.faults.next()
	status := 0 // cut
	defer func() { p.counters.end(status, fault.Mode) }()
	if fault.Mode == ModeDown {
		cut()
	}
	answer := p.push(w, r, fault)
	if answer.status == 0 {
		cut()
	}
	status = answer.status
	answer.write(w)
}

// push checks, applies and answers one request, in the order of the
// reference. The zero reply means to cut the connection.
func (p *Peer) push(w http.ResponseWriter, r *http.Request, fault Fault) reply {
	if r.ContentLength > maxBody {
		return errorReply(http.StatusRequestEntityTooLarge, "body exceeds 2 MiB")
	}
	if !p.apiKey.admits(r) {
		return errorReply(http.StatusUnauthorized, msgAPIKey)
	}
	body, err := readBody(w, r)
	if err != nil {
		if _, tooBig := errors.AsType[*http.MaxBytesError](err); tooBig {
			return errorReply(http.StatusRequestEntityTooLarge, "body exceeds 2 MiB")
		}
		return errorReply(http.StatusBadRequest, "the body did not arrive whole")
	}
	if answer, done := p.faultBefore(w, r, fault); done {
		return answer
	}
	peerID := peerHeader(r)
	used, tag := p.authenticate(r, peerID, body)
	if tag != "" {
		return errorReply(http.StatusUnauthorized, tag)
	}
	in := &push{
		idempotencyKey: r.Header.Get("Idempotency-Key"),
		peerID:         peerID,
		nonce:          r.Header.Get("X-Memory-Nonce"),
		consumed:       used,
		steps:          p.steps,
	}
	answer := p.admit(r, in, string(body), fault)
	if answer.status != 0 || in.msg == nil {
		// Nothing was applied; the nonce is used up all the same.
		if err := p.store.saveNonceAlone(used); err != nil {
			return p.internalError(r.Context(), err)
		}
		return answer
	}
	return p.applyPush(r, in, fault)
}

// admit parses and checks the body. The zero reply means that it may be
// applied.
func (p *Peer) admit(r *http.Request, in *push, body string, fault Fault) reply {
	msg, err := parseMessage(body)
	if err != nil {
		return errorReply(http.StatusBadRequest, "malformed sync_push body: "+err.Error())
	}
	if in.peerID == "" {
		return errorReply(http.StatusForbidden, tagPeerHeaderMissing)
	}
	if msg.sender != in.peerID {
		b := appendField([]byte(`{"error":"`+tagSenderMismatch+`"`), "claimed", msg.sender)
		b = appendField(b, "peer_header", in.peerID)
		b = appendField(b, "note", "sender_agent_id must equal x-peer-id")
		return reply{status: http.StatusForbidden, body: append(b, '}')}
	}
	if !validAgentID(msg.sender) || reservedAgentID(msg.sender) {
		return errorReply(http.StatusBadRequest, "sender_agent_id is not allowed")
	}
	if list := msg.overCap(); list != "" {
		return errorReply(http.StatusBadRequest, list+" has more than 1000 elements")
	}
	if agent := r.Header.Get("X-Agent-Id"); agent != "" && !validAgentID(agent) {
		return errorReply(http.StatusBadRequest, "x-agent-id is not an agent id")
	}
	in.msg = msg
	if msg.dryRun {
		out := outcome{noop: msg.items()}
		return p.accepted(r, in, &out, fault)
	}
	return reply{}
}

// applyPush applies an admitted push and answers it.
func (p *Peer) applyPush(r *http.Request, in *push, fault Fault) reply {
	switch fault.Mode {
	case ModeSkipped:
		in.refuse, in.refusedAs = fault.Skipped, refusedSkipped
	case ModeUnsupported:
		in.refuse, in.refusedAs = fault.Unsupported, refusedUnsupported
	default:
	}
	out, err := p.store.apply(in)
	if err != nil {
		if saveErr := p.store.saveNonceAlone(in.consumed); saveErr != nil {
			err = errors.Join(err, saveErr)
		}
		return p.internalError(r.Context(), err)
	}
	p.counters.add(in.msg.items(), out.results)
	switch {
	case fault.Mode == ModeLoseAnswer:
		return reply{}
	case out.quota != nil:
		return out.quota.reply()
	}
	return p.accepted(r, in, &out, fault)
}

// accepted is the answer 200.
func (p *Peer) accepted(r *http.Request, in *push, out *outcome, fault Fault) reply {
	b := make([]byte, 0, 512)
	b = append(b, `{"dry_run":`...)
	if in.msg.dryRun {
		b = append(b, "true"...)
	} else {
		b = append(b, "false"...)
	}
	b = appendCount(b, "applied", out.applied)
	b = appendCount(b, "deleted", out.deleted)
	b = appendCount(b, "noop", out.noop)
	b = appendCount(b, "skipped", out.skipped)
	b = append(b, `,"archived":0,"restored":0,"links_applied":0,"pendings_applied":0,"pending_decisions_applied":0,`+
		`"namespace_meta_applied":0,"namespace_meta_cleared":0,"quota_refused":0`...)
	if out.unsupported > 0 {
		b = appendCount(b, "unsupported_on_postgres", out.unsupported)
	}
	if fault.Mode == ModeDrift {
		b = append(b, `,"ids":["drifted-to-another-id"]`...)
	}
	agent := r.Header.Get("X-Agent-Id")
	if agent == "" {
		agent = "anonymous:req-" + uuid.NewString()
	}
	b = appendField(b, "receiver_agent_id", agent)
	return reply{status: http.StatusOK, body: append(b, `,"receiver_clock":{"entries":{}}}`...)}
}

// faultBefore acts out the faults that come before a push is looked at. done
// means that the answer is final.
func (p *Peer) faultBefore(w http.ResponseWriter, r *http.Request, fault Fault) (answer reply, done bool) {
	switch fault.Mode {
	case ModeSlow:
		if !p.wait(r.Context().Done(), w, fault.Delay) {
			return reply{}, true
		}
	case ModeZombie:
		if !p.wait(nil, w, fault.Delay) {
			return reply{}, true
		}
	case ModeHang:
		if p.wait(r.Context().Done(), w, requestTimeout) {
			return errorReply(http.StatusGatewayTimeout, "request timed out"), true
		}
		return reply{}, true
	case ModeStatus:
		answer = errorReply(fault.Status, "injected fault")
		if fault.RetryAfter != "" {
			answer.header = http.Header{"Retry-After": {fault.RetryAfter}}
		}
		return answer, true
	case ModeGarbage:
		return reply{
			status: http.StatusOK,
			body:   []byte("<!doctype html><title>Welcome</title><p>Please sign in to use this network.</p>\n"),
			header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
		}, true
	case ModeQuota:
		return newQuotaRefusal(peerHeader(r), 1000, 1000, time.Now().UTC()).reply(), true
	default:
	}
	return reply{}, false
}

// wait lets d pass; false means that gone was closed or the peer ended before.
// It moves the connection's deadlines: the one for reading would end the
// request's context, and after the one for writing there could be no answer.
func (p *Peer) wait(gone <-chan struct{}, w http.ResponseWriter, d time.Duration) bool {
	control := http.NewResponseController(w)
	// Not every writer has deadlines; without them nothing is cut.
	_ = control.SetReadDeadline(time.Now().Add(d + readTimeout))
	_ = control.SetWriteDeadline(time.Now().Add(d + writeTimeout))
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-gone:
		return false
	case <-p.closing:
		return false
	}
}

// internalError logs err and is the answer 500. The error is not shown: it may
// hold paths.
func (p *Peer) internalError(ctx context.Context, err error) reply {
	p.cfg.Logger.ErrorContext(ctx, "request failed", slog.String("peer", p.cfg.ID), slog.Any("error", err))
	return errorReply(http.StatusInternalServerError, "internal error")
}

// errLength means that a body is not as long as declared.
var errLength = errors.New("body length differs from content-length")

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limited := http.MaxBytesReader(w, r.Body, maxBody)
	if r.ContentLength < 0 {
		return io.ReadAll(limited)
	}
	body := make([]byte, r.ContentLength)
	if _, err := io.ReadFull(limited, body); err != nil {
		return nil, err
	}
	// The end must be seen, or the server does not notice a client that goes.
	if n, err := limited.Read(make([]byte, 1)); n > 0 || !errors.Is(err, io.EOF) {
		return nil, errors.Join(errLength, err)
	}
	return body, nil
}
