package refpeer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"time"
)

// maxBody is how many bytes a push may have.
const maxBody = 2 << 20

// maxTraceparent is how much of a traceparent is logged.
const maxTraceparent = 128

func firstBytes(s string, n int) string { return s[:min(len(s), n)] }

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

// attempt is one push on its way through the handler.
type attempt struct {
	r     *http.Request
	in    *push
	fault boxed
	fired Mode // counted; empty: no fault did anything
}

// handlePush answers one push and counts it.
func (p *Peer) handlePush(w http.ResponseWriter, r *http.Request) {
	p.counters.begin()
	at := &attempt{r: r}
	if !p.faults.conditional() {
		at.meet(p.faults.next(seen{}))
	}
	status := 0 // cut
	defer func() { p.counters.end(status, at.fired) }()
	if at.fault.Mode == ModeDown {
		cut()
	}
	answer := p.push(w, at)
	if answer.status == 0 {
		cut()
	}
	status = answer.status
	answer.write(w)
}

func (at *attempt) meet(fault boxed) {
	at.fault = fault
	if fault.budget == nil { // a budget counts once it refuses
		at.fired = fault.Mode
	}
}

// push checks, applies and answers one request, in the order of the
// reference. The zero reply means to cut the connection.
func (p *Peer) push(w http.ResponseWriter, at *attempt) reply {
	r := at.r
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
	if p.faults.conditional() && at.fault.Mode == "" {
		whole := seen{bytes: len(body)}
		if msg, err := parseMessage(string(body)); err == nil {
			whole.msg = msg
		}
		at.meet(p.faults.next(whole))
		if at.fault.Mode == ModeDown {
			return reply{}
		}
	}
	if answer, done := p.faultBefore(w, r, at.fault); done {
		return answer
	}
	peerID := peerHeader(r)
	auth, tag := p.authenticate(r, peerID, body)
	if tag != "" {
		return p.refuse(http.StatusUnauthorized, tag)
	}
	at.in = &push{
		idempotencyKey: r.Header.Get("Idempotency-Key"),
		peerID:         peerID,
		nonce:          r.Header.Get("X-Memory-Nonce"),
		credential:     auth.credential,
		traceparent:    firstBytes(r.Header.Get("Traceparent"), maxTraceparent),
		consumed:       auth.used,
		steps:          p.steps,
	}
	answer := p.admit(at, string(body))
	if answer.status != 0 || at.in.msg == nil {
		// Nothing was applied; the nonce is used up all the same.
		if err := p.store.saveNonceAlone(auth.used); err != nil {
			return p.internalError(r.Context(), err)
		}
		return answer
	}
	return p.applyPush(at)
}

// refuse is an answer that says only its tag, which is counted.
func (p *Peer) refuse(status int, tag string) reply {
	p.counters.tag(tag)
	return errorReply(status, tag)
}

// admit parses and checks the body. The zero reply means that it may be
// applied.
func (p *Peer) admit(at *attempt, body string) reply {
	msg, err := parseMessage(body)
	if err != nil {
		return errorReply(http.StatusBadRequest, "malformed sync_push body: "+err.Error())
	}
	if !p.cfg.TrustBodyAgentID.isOn(false) {
		if at.in.peerID == "" {
			return p.refuse(http.StatusForbidden, tagPeerHeaderMissing)
		}
		if msg.sender != at.in.peerID && !p.cfg.Attestation.speaksFor(at.in.peerID, msg.sender) {
			p.counters.tag(tagSenderMismatch)
			b := appendField([]byte(`{"error":"`+tagSenderMismatch+`"`), "claimed", msg.sender)
			b = appendField(b, "peer_header", at.in.peerID)
			b = appendField(b, "note", "sender_agent_id must equal x-peer-id, or be one that the peer may claim")
			return reply{status: http.StatusForbidden, body: append(b, '}')}
		}
	}
	if !validAgentID(msg.sender) || reservedAgentID(msg.sender) {
		return errorReply(http.StatusBadRequest, "sender_agent_id is not allowed")
	}
	if list := msg.overCap(p.cfg.MaxCollection); list != "" {
		return errorReply(http.StatusBadRequest, fmt.Sprintf("%s has more than %d elements", list, p.cfg.MaxCollection))
	}
	if agent := at.r.Header.Get("X-Agent-Id"); agent != "" && !validAgentID(agent) {
		return errorReply(http.StatusBadRequest, "x-agent-id is not an agent id")
	}
	at.in.msg = msg
	if msg.dryRun || at.fault.Mode == ModeDryRun {
		msg.dryRun = true
		out := outcome{noop: msg.items() - len(msg.embeddings)}
		return p.accepted(at, &out)
	}
	return reply{}
}

// applyPush applies an admitted push and answers it.
func (p *Peer) applyPush(at *attempt) reply {
	in := at.in
	switch fault := at.fault; fault.Mode {
	case ModeSkipped:
		in.refuse = refuseRule{as: refusedSkipped, limit: fault.Skipped, only: fault.List}
	case ModeUnsupported:
		in.refuse = refuseRule{as: refusedUnsupported, limit: fault.Unsupported, only: fault.List}
	case ModeRefuseID:
		in.refuse = refuseRule{as: refusedSkipped, limit: math.MaxInt, ids: fault.refused}
	default:
		in.budget = fault.budget
	}
	p.weighLinks(in.msg)
	out, err := p.store.apply(in)
	if err != nil {
		if saveErr := p.store.saveNonceAlone(in.consumed); saveErr != nil {
			err = errors.Join(err, saveErr)
		}
		return p.internalError(at.r.Context(), err)
	}
	p.counters.add(in, out.results)
	p.turns.taken()
	switch {
	case at.fault.Mode == ModeLoseAnswer:
		return reply{}
	case out.quota != nil:
		if in.budget != nil {
			at.fired = at.fault.Mode
		}
		return out.quota.reply()
	}
	return p.accepted(at, &out)
}

// faultBefore acts out the faults that come before a push is looked at. done
// means that the answer is final.
func (p *Peer) faultBefore(w http.ResponseWriter, r *http.Request, fault boxed) (answer reply, done bool) {
	switch fault.Mode {
	case ModeSlow:
		if !p.wait(r.Context().Done(), w, fault.Delay) {
			return reply{}, true
		}
	case ModeZombie:
		if !p.wait(nil, w, fault.Delay) {
			return reply{}, true
		}
	case ModeReorder:
		if !p.letPass(w, fault.Delay) {
			return reply{}, true
		}
	case ModeHang:
		if p.wait(r.Context().Done(), w, requestTimeout) {
			return errorReply(http.StatusGatewayTimeout, "request timed out"), true
		}
		return reply{}, true
	case ModeStatus:
		answer = errorReply(fault.Status, cmp.Or(fault.Error, "injected fault"))
		answer.header = http.Header{}
		for name, value := range map[string]string{"Retry-After": fault.RetryAfter, "Location": fault.Location} {
			if value != "" {
				answer.header.Set(name, value)
			}
		}
		return answer, true
	case ModeGarbage:
		return reply{
			status: http.StatusOK,
			body:   []byte("<!doctype html><title>Welcome</title><p>Please sign in to use this network.</p>\n"),
			header: http.Header{"Content-Type": {"text/html; charset=utf-8"}},
		}, true
	case ModeQuota:
		if fault.budget != nil {
			return reply{}, false // it is up to the memories
		}
		return newQuotaRefusal(peerHeader(r), 1000, 1000, time.Now().UTC()).reply(), true
	default:
	}
	return reply{}, false
}

// wait lets d pass; false means that gone was closed or the peer ended before.
func (p *Peer) wait(gone <-chan struct{}, w http.ResponseWriter, d time.Duration) bool {
	p.moveDeadlines(w, d)
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

// moveDeadlines moves those of the connection by a wait: the one for reading
// would end the request's context, and after the one for writing there could be
// no answer.
func (p *Peer) moveDeadlines(w http.ResponseWriter, wait time.Duration) {
	control := http.NewResponseController(w)
	// Not every writer has deadlines; without them nothing is cut.
	_ = control.SetReadDeadline(time.Now().Add(wait + readTimeout))
	_ = control.SetWriteDeadline(time.Now().Add(wait + writeTimeout))
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
