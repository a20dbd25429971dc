package importer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"quorumbox/outbox"
)

// MaxLineBytes is the most bytes of a line without its end. A legal memory is far below.
const MaxLineBytes = 1 << 20

var errLineTooLong = fmt.Errorf("the line has more than %d bytes", MaxLineBytes)

// line is one line of the source that is not blank: a checked memory, or what is wrong with it.
type line struct {
	number int64 // counted from 1
	end    int64 // bytes of the source up to its end
	size   int   // in bytes
	memory outbox.Memory
	err    error
}

// source splits a stream into lines and checks them. It holds one line in memory.
type source struct {
	in     *bufio.Reader
	number int64
	offset int64
	err    error // why reading ended before the end; to be read once the channel is closed
}

func newSource(r io.Reader) *source {
	// Two bytes beyond the limit: for the line's end, \r\n.
	return &source{in: bufio.NewReaderSize(r, MaxLineBytes+2)}
}

// run sends every line and closes out at the end, or when ctx ends.
func (s *source) run(ctx context.Context, out chan<- line) {
	defer close(out)
	for {
		text, err := s.next()
		if err != nil && !errors.Is(err, errLineTooLong) {
			if !errors.Is(err, io.EOF) {
				s.err = fmt.Errorf("read line %d: %w", s.number, err)
			}
			return
		}
		l := line{number: s.number, end: s.offset, size: len(text), err: err}
		switch {
		case err != nil:
		case len(text) == 0:
			continue
		default:
			l.memory, l.err = parse(text)
		}
		select {
		case out <- l:
		case <-ctx.Done():
			return
		}
	}
}

// next returns the next line without blanks around it, which is good until the next call. io.EOF after the last one; errLineTooLong for
// one that is skipped.
func (s *source) next() ([]byte, error) {
	s.number++
	text, err := s.in.ReadSlice('\n')
	s.offset += int64(len(text))
	tooLong := errors.Is(err, bufio.ErrBufferFull)
	for errors.Is(err, bufio.ErrBufferFull) {
		var rest []byte
		rest, err = s.in.ReadSlice('\n')
		s.offset += int64(len(rest))
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, err
	case tooLong:
		return nil, errLineTooLong
	case err != nil && len(text) == 0:
		return nil, io.EOF
	}
	if s.number == 1 {
		text = bytes.TrimPrefix(text, []byte("\ufeff"))
	}
	text = bytes.TrimSpace(text)
	if len(text) > MaxLineBytes {
		return nil, errLineTooLong
	}
	return text, nil
}

// parse returns the memory of a line. Where there is an error too, it is as much of it as could be read.
func parse(text []byte) (m outbox.Memory, err error) {
	if text[0] != '{' {
		return m, errors.New("the line is no JSON object")
	}
	// The JSON decoder would replace such bytes without a word.
	if !utf8.Valid(text) {
		return m, errors.New("the line is not UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return m, explain(err)
	}
	if decoder.InputOffset() != int64(len(text)) {
		return m, errors.New("something follows the JSON object: one line holds one memory")
	}
	return m, m.Validate()
}

// explain puts the decoder's errors into words for the one who wrote the line.
func explain(err error) error {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return &outbox.InvalidError{Field: e.Field, Rule: fmt.Sprintf("must not be a JSON %s", e.Value)}
	}
	if e, ok := errors.AsType[*time.ParseError](err); ok {
		return fmt.Errorf("a time is not RFC 3339, such as 2006-01-02T15:04:05Z: %w", e)
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return fmt.Errorf("unknown field %s", field)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the JSON object ends too early")
	}
	return fmt.Errorf("the line is not valid JSON: %w", err)
}
