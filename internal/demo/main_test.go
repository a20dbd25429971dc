package demo

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"quorumbox/internal/pgtest"
	"quorumbox/internal/refpeer"
)

// TestMain makes this test binary a reference peer where it is called as one, which is how a demo starts its peers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "peer" {
		if err := bePeer(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	pgtest.Main(m, pgtest.WithLeakCheck(goleak.IgnoreCurrent()))
}

func bePeer(args []string) error {
	var cfg refpeer.Config
	flags := flag.NewFlagSet("peer", flag.ContinueOnError)
	flags.StringVar(&cfg.ID, "id", "", "")
	flags.StringVar(&cfg.DataDir, "data", "", "")
	flags.StringVar(&cfg.KeysDir, "keys", "", "")
	listen := flags.String("listen", "", "")
	enrolled := flags.Bool("require-enrollment", false, "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *enrolled {
		cfg.RequireEnrollment = refpeer.On
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *listen)
	if err != nil {
		return err
	}
	p, err := refpeer.Open(ctx, cfg)
	if err != nil {
		return err
	}
	defer p.Close()
	return p.Serve(ctx, listener)
}
