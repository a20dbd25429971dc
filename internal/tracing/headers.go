package tracing

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"quorumbox/internal/secret"
)

// maxHeaders bounds the lines of a headers file.
const maxHeaders = 16

// ReadHeaders returns the headers in a file that [secret.ReadRaw] takes: one "Name: value" a line, at most 16, empty lines between them allowed. An error
// names the line and never its text.
func ReadHeaders(path string) (map[string]string, error) {
	raw, err := secret.ReadRaw(path)
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	number := 0
	for line := range strings.Lines(string(raw)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || !isToken(name) || value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }):
			return nil, fmt.Errorf("%s: line %d (not shown) is no header: write it as Name: value, in printable ASCII", path, number)
		case slices.Contains([]string{"Host", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "Connection"}, name):
			return nil, fmt.Errorf("%s: line %d sets %s, which is not for it to say: remove it", path, number, name)
		}
		if _, twice := headers[name]; twice {
			return nil, fmt.Errorf("%s: line %d sets a header that another line has set: remove one", path, number)
		}
		if len(headers) == maxHeaders {
			return nil, fmt.Errorf("%s has more than %d headers: remove some", path, maxHeaders)
		}
		headers[name] = value
	}
	if len(headers) == 0 {
		return nil, fmt.Errorf("%s is empty: write a header into it, such as Authorization: Bearer …", path)
	}
	return headers, nil
}

// isToken reports whether s can be a header's name (RFC 9110, "Tokens").
func isToken(s string) bool {
	return s != "" && strings.Trim(s, "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}
