package admin

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof" // registers with the default mux, too, which nothing here serves
	"strconv"
	"time"
)

const (
	debugPath = "/debug/pprof/"

	// maxProfile is the longest profile that is taken: one request may not hold a connection for ever.
	maxProfile = 2 * time.Minute

	// defaultProfile is how long pprof takes a profile if nothing else is asked for.
	defaultProfile = 30 * time.Second
)

// profiles serves what `go tool pprof` reads. A profile takes as long as it is asked to, so the server's bounds are set anew for it.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+debugPath, pprof.Index)
	mux.HandleFunc("GET "+debugPath+"cmdline", pprof.Cmdline)
	mux.HandleFunc("GET "+debugPath+"profile", pprof.Profile)
	mux.HandleFunc("GET "+debugPath+"symbol", pprof.Symbol)
	mux.HandleFunc("POST "+debugPath+"symbol", pprof.Symbol)
	mux.HandleFunc("GET "+debugPath+"trace", pprof.Trace)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		takes := defaultProfile
		if text := r.FormValue("seconds"); text != "" {
			seconds, err := strconv.ParseFloat(text, 64) // a trace may take parts of a second
			if err != nil || !(seconds >= 0 && seconds <= maxProfile.Seconds()) {
				http.Error(w, fmt.Sprintf("seconds: want 0 to %.0f", maxProfile.Seconds()), http.StatusBadRequest)
				return
			}
			takes = max(takes, time.Duration(seconds*float64(time.Second)))
		}
		deadline := time.Now().Add(takes + writeTimeout)
		control := http.NewResponseController(w)
		if err := control.SetWriteDeadline(deadline); err != nil {
			http.Error(w, "set the deadline of the profile", http.StatusInternalServerError)
			return
		}
		_ = control.SetReadDeadline(deadline) // net/http ends the request when its own has passed
		// pprof refuses what takes longer than the timeout of the server that it finds here, which does not hold any more.
		mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), http.ServerContextKey, nil)))
	})
}
