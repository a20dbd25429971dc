// Package admin serves what operators, their probes and their Prometheus look at: health, the status of replication as JSON, metrics, profiles, and River UI.
//
// River UI can cancel and delete jobs. So an address that other machines can reach needs a login ([Login]). Without one only loopback addresses are served, and
// only requests that name one: a web page that somebody visits cannot reach the pages under a name of its own that resolves to this machine. With or without
// a login it cannot send state-changing requests across origins.
//
// /livez and /readyz never ask for a login. They say nothing but words from a closed list.
package admin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/riverqueue/river"
	"riverqueue.com/riverui"

	"quorumbox/internal/health"
	"quorumbox/internal/status"
)

// UIPath is where River UI is.
const UIPath = "/river/"

const (
	livePath    = "/livez"
	readyPath   = "/readyz"
	metricsPath = "/metrics"
)

// Bounds of the server, so that slow or endless requests hold nothing.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 30 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = time.Minute
	maxHeaderBytes    = 16 << 10
	maxBodyBytes      = 1 << 20
	maxConns          = 256 // at a time; more wait to be accepted

	// statusTimeout bounds one reading of the status.
	statusTimeout = 5 * time.Second

	// shutdownTimeout is how long requests may go on after Run was told to stop.
	shutdownTimeout = 2 * time.Second
)

// ErrAddressInUse says that another process, such as a second worker on this machine, listens on the address.
var ErrAddressInUse = errors.New("the address is in use by another process")

// Config is what the pages need. Pool, Client, Logger and Listen must be set.
type Config struct {
	Pool   *pgxpool.Pool
	Client *river.Client[pgx.Tx] // need not be started
	Logger *slog.Logger
	Listen string // host:port; port 0 picks a free one. A host that is not loopback needs a login
	Login  Login
	// Certificate makes the pages speak TLS 1.3, and is asked at each handshake. Nil: they do not.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Health is what /livez asks. Nil: the process has no loops, and lives.
	Health *health.Registry
	// Progress is what /readyz asks of replication, beside the database and its schema. Nil: nothing.
	Progress *status.Limits

	Registry    *prometheus.Registry // what /metrics shows; nil: /metrics is 404
	LoginFailed func(scheme string)  // counts: basic, bearer or other; nil: nobody does. Safe for concurrent use
	// Page is served behind the login at every path that is nothing else's, such as /. Nil: / leads to River UI. It may replace the Content-Security-Policy.
	Page http.Handler
}

// Server serves the pages. Use it once: New, Listen if the address is wanted, Run.
type Server struct {
	cfg      Config
	ui       *riverui.Handler
	reader   *reader
	stuck    stuckLog
	handler  http.Handler
	listener net.Listener // nil before Listen
}

// New returns a server that does nothing yet. It refuses an address that other machines can reach if there is no login, and a login whose files cannot be used.
func New(cfg Config) (*Server, error) {
	if err := checkListen(cfg.Listen, cfg.Login); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	login, err := newLogin(cfg.Login, cfg.Logger, cfg.LoginFailed)
	if err != nil {
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
	if s.reader, err = newReader(cfg); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}

	protected := s.pages()
	if login != nil {
		protected = login.protect(protected)
	}
	s.handler = http.NewCrossOriginProtection().Handler(http.MaxBytesHandler(s.probesBeside(protected), maxBodyBytes))
	if login == nil {
		s.handler = loopbackOnly(s.handler)
	}
	s.handler = headers(s.handler, cfg.Certificate != nil)
	return s, nil
}

// probesBeside answers the probes, and leaves everything else to the rest. It is no ServeMux, which would answer other spellings of a path by itself.
func (s *Server) probesBeside(rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		read := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch {
		case read && r.URL.Path == livePath:
			s.live(w, r)
		case read && r.URL.Path == readyPath:
			s.ready(w, r)
		default:
			rest.ServeHTTP(w, r)
		}
	})
}

// pages are everything that a login protects.
func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(UIPath, s.ui)
	mux.Handle(debugPath, profiles())
	mux.HandleFunc("GET /api/status", s.status)
	if s.cfg.Registry != nil {
		mux.Handle("GET "+metricsPath, metricsHandler(s.cfg))
	}
	if s.cfg.Page != nil {
		mux.Handle("/", s.cfg.Page)
	} else {
		mux.Handle("GET /{$}", http.RedirectHandler(UIPath, http.StatusFound))
	}
	return mux
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
	tcp, ok := listener.Addr().(*net.TCPAddr)
	local := ok && tcp.IP.IsLoopback()
	if !local && !s.cfg.Login.required() {
		return nil, errors.Join(fmt.Errorf("admin: %s resolves to %s, which other machines can reach, and there is no login: set admin.listen to 127.0.0.1",
			s.cfg.Listen, listener.Addr()), listener.Close())
	}
	if !local && s.cfg.Certificate == nil {
		s.cfg.Logger.WarnContext(ctx, "the login and the pages cross the network in the clear: set admin.tls_cert_file and admin.tls_key_file, or leave TLS to a proxy",
			slog.String("listen", s.cfg.Listen))
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
	if err := s.reader.open(ctx, s.cfg.Pool); err != nil {
		return errors.Join(fmt.Errorf("admin: %w", err), s.listener.Close())
	}
	defer s.reader.pool.Close()
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
	limited := limit(s.listener, maxConns)
	serve, scheme := func() error { return server.Serve(limited) }, "http"
	if s.cfg.Certificate != nil {
		server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.cfg.Certificate}
		serve, scheme = func() error { return server.ServeTLS(limited, "", "") }, "https"
	}
	s.cfg.Logger.InfoContext(ctx, "pages served", slog.String("url", scheme+"://"+s.listener.Addr().String()+UIPath))
	failed := make(chan error, 1) // the one result of Serve
	go func() { failed <- serve() }()
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
