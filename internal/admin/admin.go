// Package admin serves the operator's pages on a loopback address: River UI, the status of replication as JSON, metrics, and a sign of life.
//
// The pages have no login, and River UI can cancel and delete jobs. So only loopback addresses are served, and only requests that name
// one: a web page that somebody visits can neither send state-changing requests across origins nor reach the pages under a name of
// its own that resolves to this machine.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/riverqueue/river"
	"riverqueue.com/riverui"

	"quorumbox/internal/status"
)

// UIPath is where River UI is.
const UIPath = "/river/"

// Bounds of the server, so that slow or endless requests hold nothing.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = time.Minute
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 1 << 20

	// statusTimeout bounds one reading of the status.
	statusTimeout = 5 * time.Second

	// shutdownTimeout is how long requests may go on after Run was told to stop.
	shutdownTimeout = 2 * time.Second
)

// ErrAddressInUse says that another process, such as a second worker on this machine, listens on the address.
var ErrAddressInUse = errors.New("the address is in use by another process")

// Config is what the pages need. All fields but Registry must be set.
type Config struct {
	Pool     *pgxpool.Pool
	Client   *river.Client[pgx.Tx] // need not be started
	Logger   *slog.Logger
	Listen   string               // host:port; the host is a loopback address or localhost; port 0 picks a free one
	Registry *prometheus.Registry // what /metrics shows; nil: /metrics is 404
}

// Server serves the pages. Use it once: New, Listen if the address is wanted, Run.
type Server struct {
	cfg      Config
	ui       *riverui.Handler
	handler  http.Handler
	listener net.Listener // nil before Listen
}

// New returns a server that does nothing yet. It refuses an address that other machines can reach.
func New(cfg Config) (*Server, error) {
	if err := checkListen(cfg.Listen); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	ui, err := riverui.NewHandler(&riverui.HandlerOpts{
		Endpoints:                riverui.NewEndpoints(cfg.Client, nil),
		JobListHideArgsByDefault: true,
		Logger:                   cfg.Logger,
		Prefix:                   UIPath,
	})
	if err != nil {
		return nil, fmt.Errorf("admin: load River UI: %w", err)
	}
	s := &Server{cfg: cfg, ui: ui}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler(UIPath, http.StatusFound))
	mux.Handle(UIPath, ui)
	mux.HandleFunc("GET /livez", live)
	mux.HandleFunc("GET /api/status", s.status)
	if cfg.Registry != nil {
		mux.Handle("GET /metrics", metricsHandler(cfg))
	}
	s.handler = loopbackOnly(http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(mux, maxBodyBytes)))
	return s, nil
}

// checkListen accepts addresses that only this machine can reach.
func checkListen(listen string) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return fmt.Errorf("admin.listen is %q: want host:port, such as 127.0.0.1:9080", listen)
	}
	if !isLoopback(host) {
		return fmt.Errorf("admin.listen is %q: want a loopback address such as 127.0.0.1:9080, because the pages have no login; "+
			"reach them from elsewhere through an ssh tunnel or a proxy that asks for one", listen)
	}
	return nil
}

// isLoopback reports whether host, a name or an address without port, is this machine and nothing else.
func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}

// Listen opens the port and returns its address. [ErrAddressInUse] where another process has it. The port is closed by Run.
func (s *Server) Listen(ctx context.Context) (net.Addr, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("admin: listen on %s: %w", s.cfg.Listen, ErrAddressInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("admin: listen: %w", err)
	}
	// The name localhost is what the machine's resolver makes of it.
	if tcp, ok := listener.Addr().(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("admin: %s resolves to %s, which other machines can reach: set admin.listen to 127.0.0.1",
			s.cfg.Listen, listener.Addr()), listener.Close())
	}
	s.listener = listener
	return listener.Addr(), nil
}

// Run serves until ctx ends, and then for up to two seconds what is being answered. It calls Listen unless that was done. It
// returns nil when ctx has ended.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if _, err := s.Listen(ctx); err != nil {
			return err
		}
	}
	uiCtx, stopUI := context.WithCancel(ctx)
	defer stopUI()
	if err := s.ui.Start(uiCtx); err != nil {
		return errors.Join(fmt.Errorf("admin: start River UI: %w", err), s.listener.Close())
	}
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
	}
	s.cfg.Logger.InfoContext(ctx, "pages served", slog.String("url", "http://"+s.listener.Addr().String()+UIPath))
	failed := make(chan error, 1) // the one result of Serve
	go func() { failed <- server.Serve(s.listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("admin: serve: %w", err)
	case <-ctx.Done():
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(stopCtx); err != nil {
		_ = server.Close()
	}
	<-failed
	return nil
}

// loopbackOnly refuses requests that came under a foreign name (DNS rebinding), and says how pages may be used.
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
		h := w.Header()
		h.Set("Content-Security-Policy", "frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}

func trimBrackets(host string) string {
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		return host[1 : len(host)-1]
	}
	return host
}

// live says that the process runs and answers; it asks nobody else.
func live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte("ok\n"))
}

// metricsHandler shows the metrics as Prometheus reads them. A collector that fails costs its own metrics only. OpenMetrics stays off: there the
// family of a counter has no suffix _total, and quorumbox_refusals is a gauge and quorumbox_refusals_total a counter.
func metricsHandler(cfg Config) http.Handler {
	return promhttp.HandlerFor(cfg.Registry, promhttp.HandlerOpts{
		ErrorLog:      slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelWarn),
		ErrorHandling: promhttp.ContinueOnError,
	})
}

// status answers with the JSON of [status.Report], or 503 and {"error": "…"} while the database cannot be read.
func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), statusTimeout)
	defer cancel()
	report, err := status.Read(ctx, s.cfg.Pool)
	var body any = report
	code := http.StatusOK
	if err != nil {
		s.cfg.Logger.WarnContext(ctx, "status not read", slog.String("error", err.Error()))
		body, code = map[string]string{"error": "the database cannot be read: see the worker's log"}, http.StatusServiceUnavailable
	}
	text, err := json.MarshalIndent(body, "", "  ")
	if err != nil {
		http.Error(w, "encode status", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n'))
}
