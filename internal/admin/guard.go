package admin

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// policy is what pages may do in a browser: load what comes from here, and nothing else. Styles may stand in the page because River UI's library puts them there. The
// block of settings in River UI's page is no script to a browser.
const policy = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

// strictTransport is how long a browser asks for TLS only: a year. Other names below the host are none of ours.
const strictTransport = "max-age=31536000"

// headers sets what keeps a browser from being used against the pages. A handler below may replace the policy by its own.
func headers(next http.Handler, withTLS bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if withTLS {
			h.Set("Strict-Transport-Security", strictTransport)
		}
		next.ServeHTTP(w, r)
	})
}

// loopbackOnly refuses requests that came under a foreign name (DNS rebinding). It stands where there is no login: with one, a page of a foreign name has none to send.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !isLoopback(trimBrackets(host)) {
			http.Error(w, "this page is served under localhost and loopback addresses only", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// checkListen accepts every address where there is a login, and else those that only this machine can reach.
func checkListen(listen string, login Login) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin.listen is %q: want host:port, such as 127.0.0.1:9080", listen)
	}
	if !login.required() && !isLoopback(host) {
		return fmt.Errorf("admin.listen is %q, which other machines can reach, and there is no login: set admin.token_file, or admin.username and "+
			"admin.password_file, or use a loopback address such as 127.0.0.1:9080", listen)
	}
	return nil
}

// isLoopback reports whether host, a name or an address without port, is this machine and nothing else.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}
