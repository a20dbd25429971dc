package admin

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"quorumbox/internal/secret"
)

const (
	// minToken and minPassword are the shortest secrets that are taken, in characters. A token is made by a machine and can be long; 16 random hexadecimal
	// digits are beyond what can be tried over a network. For passwords NIST SP 800-63B says 8.
	minToken    = 16
	minPassword = 8

	// failureLogEvery is how often a line tells of wrong logins.
	failureLogEvery = time.Minute

	realm = "quorumbox"
)

// Login says who may see the pages. The zero value is no login. Files hold one line of text each and are those that [secret.ReadFile] takes; they are read again
// when they change, and what cannot be used then leaves the last secret valid, with a warning in the log.
type Login struct {
	TokenFile        string // of a bearer token (RFC 6750) that opens everything; empty: none does
	Username         string // for basic authentication (RFC 7617); empty: none
	PasswordFile     string // of its password
	MetricsTokenFile string // of a bearer token that opens /metrics and nothing else; empty: none does
}

// required reports whether the pages ask for a login.
func (l Login) required() bool { return l.TokenFile != "" || l.Username != "" }

// login judges requests. It is safe for concurrent use.
type login struct {
	username                 secret.Secret
	token, password, metrics *secret.File // nil: not configured
	failures                 *failures
}

// newLogin reads the files. The error names everything that is wrong with them. nil if no login is configured.
func newLogin(l Login, logger *slog.Logger, count func(scheme string)) (*login, error) {
	if !l.required() {
		if l.MetricsTokenFile != "" || l.PasswordFile != "" {
			return nil, errors.New("admin.metrics_token_file or admin.password_file is set and there is no login: set admin.token_file, or admin.username " +
				"and admin.password_file, or remove it")
		}
		return nil, nil //nolint:nilnil // none is no error
	}
	var problems []error
	open := func(key, path string, check func(secret.Secret) error) *secret.File {
		if path == "" {
			return nil
		}
		f, err := secret.OpenFile(path, check, func(err error) {
			logger.Warn("a file of the admin listener's login cannot be used", slog.String("setting", key), slog.String("error", err.Error()))
		})
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", key, err))
		}
		return f
	}
	result := &login{
		username: secret.New(l.Username),
		token:    open("admin.token_file", l.TokenFile, checkToken),
		metrics:  open("admin.metrics_token_file", l.MetricsTokenFile, checkToken),
		failures: &failures{logger: logger, count: count},
	}
	if l.Username != "" {
		if l.PasswordFile == "" {
			problems = append(problems, errors.New("admin.username is set and admin.password_file is not: set both"))
		}
		result.password = open("admin.password_file", l.PasswordFile, checkPassword)
	}
	if result.token != nil && result.metrics != nil && result.token.Get().Equal(result.metrics.Get()) {
		problems = append(problems, errors.New("admin.token_file and admin.metrics_token_file hold the same token: a token for /metrics that opens everything "+
			"is none; make another"))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return result, nil
}

// checkToken refuses what can be guessed, and what a header cannot carry (RFC 6750, 2.1).
func checkToken(s secret.Secret) error {
	switch text := s.Reveal(); {
	case len(text) < minToken:
		return fmt.Errorf("has fewer than %d characters: make one with `openssl rand -hex 32`", minToken)
	case !regexp.MustCompile(`^[A-Za-z0-9._~+/-]+=*$`).MatchString(text):
		return errors.New("has characters that a bearer token cannot have: make one with `openssl rand -hex 32`")
	}
	return nil
}

func checkPassword(s secret.Secret) error {
	if utf8.RuneCountInString(s.Reveal()) < minPassword {
		return fmt.Errorf("has fewer than %d characters: make one with `openssl rand -base64 18`", minPassword)
	}
	return nil
}

// protect lets only those requests through that carry a login, or for /metrics the token for that. It asks nobody, so that a wrong one costs a hash.
func (l *login) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, ok := l.judge(r)
		if ok {
			next.ServeHTTP(w, r)
			return
		}
		if scheme != "" {
			l.failures.note(r, scheme)
		}
		l.challenge(w.Header(), scheme)
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "this page needs a login", http.StatusUnauthorized)
	})
}

// The schemes of a login, as they are counted.
const (
	schemeBearer = "bearer"
	schemeBasic  = "basic"
	schemeOther  = "other"
)

// judge returns whether the request carries a login, and which scheme it tried; "" for none.
func (l *login) judge(r *http.Request) (scheme string, ok bool) {
	headers := r.Header.Values("Authorization")
	if len(headers) == 0 {
		return "", false
	}
	kind, credentials, _ := strings.Cut(headers[0], " ")
	switch {
	case len(headers) > 1: // which of them a proxy has judged is not known
		return schemeOther, false
	case strings.EqualFold(kind, schemeBearer):
		given := secret.New(strings.TrimLeft(credentials, " "))
		all := l.token != nil && given.Equal(l.token.Get())
		metrics := l.metrics != nil && given.Equal(l.metrics.Get()) && r.URL.Path == metricsPath
		return schemeBearer, all || metrics
	case strings.EqualFold(kind, schemeBasic):
		username, password, parsed := r.BasicAuth()
		if !parsed || l.password == nil {
			return schemeBasic, false
		}
		// Both are compared whatever the first one gives, so that the time does not tell which was wrong.
		rightName, rightPassword := secret.New(username).Equal(l.username), secret.New(password).Equal(l.password.Get())
		return schemeBasic, rightName && rightPassword
	default:
		return schemeOther, false
	}
}

// challenge says how to log in (RFC 9110, 11.6.1).
func (l *login) challenge(h http.Header, tried string) {
	if l.token != nil || l.metrics != nil {
		text := `Bearer realm="` + realm + `"`
		if tried == schemeBearer {
			text += `, error="invalid_token"` // RFC 6750, 3.1
		}
		h.Add("WWW-Authenticate", text)
	}
	if l.password != nil {
		h.Add("WWW-Authenticate", `Basic realm="`+realm+`", charset="UTF-8"`)
	}
}

// failures counts wrong logins, and tells of them once a minute at most. Nothing of what was sent is told.
type failures struct {
	logger *slog.Logger
	count  func(scheme string) // nil: nobody counts

	mu      sync.Mutex
	told    time.Time // zero: not yet
	omitted int       // since then
}

func (f *failures) note(r *http.Request, scheme string) {
	if f.count != nil {
		f.count(scheme)
	}
	now := time.Now()
	f.mu.Lock()
	omitted, tell := f.omitted, f.told.IsZero() || now.Sub(f.told) >= failureLogEvery
	if tell {
		f.told, f.omitted = now, 0
	} else {
		f.omitted++
	}
	f.mu.Unlock()
	if !tell {
		return
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = "unknown"
	}
	f.logger.WarnContext(r.Context(), "wrong login at the admin listener",
		slog.String("from", host), slog.String("scheme", scheme), slog.Int("omitted", omitted))
}
