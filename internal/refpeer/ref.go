package refpeer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// maxFaultsBody is how many bytes a setting of faults may have.
const maxFaultsBody = 64 << 10

func (p *Peer) handleRefMemories(w http.ResponseWriter, r *http.Request) {
	p.stream(w, r, func(out io.Writer) error { return p.Memories(r.Context(), out) })
}

func (p *Peer) handleRefLog(w http.ResponseWriter, r *http.Request) {
	var after int64
	if value := r.FormValue("after"); value != "" {
		var err error
		if after, err = strconv.ParseInt(value, 10, 64); err != nil {
			errorReply(http.StatusBadRequest, "after must be the number of a log entry").write(w)
			return
		}
	}
	p.stream(w, r, func(out io.Writer) error { return p.Log(r.Context(), out, after) })
}

// stream answers with lines of JSON. A failure cuts the connection, so that a
// reader never takes a part for the whole.
func (p *Peer) stream(w http.ResponseWriter, r *http.Request, write func(io.Writer) error) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(&patientWriter{w: w, control: http.NewResponseController(w)}, 64<<10)
	err := write(out)
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		if r.Context().Err() != nil {
			cut() // the reader has gone
		}
		p.cfg.Logger.WarnContext(r.Context(), "stream ended early",
			slog.String("peer", p.cfg.ID), slog.String("path", r.URL.Path), slog.Any("error", err))
		cut()
	}
}

// patientWriter gives every write the whole write timeout, so that a long
// stream is not cut while its reader keeps up.
type patientWriter struct {
	w       io.Writer
	control *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	// Not every writer has deadlines; without one nothing is cut.
	_ = p.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return p.w.Write(b)
}

func (p *Peer) handleRefCounters(w http.ResponseWriter, r *http.Request) {
	p.writeValue(w, r, p.Counters())
}

func (p *Peer) handleGetFaults(w http.ResponseWriter, r *http.Request) {
	p.writeValue(w, r, p.Faults())
}

func (p *Peer) handlePutFaults(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFaultsBody))
	if err != nil {
		errorReply(http.StatusBadRequest, "the faults did not arrive whole, or exceed 64 KiB").write(w)
		return
	}
	faults, err := ParseFaults(body)
	if err == nil {
		err = p.SetFaults(faults)
	}
	if err != nil {
		errorReply(http.StatusBadRequest, err.Error()).write(w)
		return
	}
	p.writeValue(w, r, p.Faults())
}

func (p *Peer) handleDeleteFaults(w http.ResponseWriter, r *http.Request) {
	if err := p.SetFaults(nil); err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	p.writeValue(w, r, p.Faults())
}

func (p *Peer) writeValue(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		p.internalError(r.Context(), err).write(w)
		return
	}
	reply{status: http.StatusOK, body: append(b, '\n')}.write(w)
}

// decodeStrict decodes one JSON value and refuses fields that v does not have.
func decodeStrict(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}
