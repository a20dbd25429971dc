package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"quorumbox/internal/metrics"
)

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of the program and what it was built with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version())
			return err
		},
	}
}

// stamp is the version that a build was given with -ldflags "-X main.stamp=…"; images are (Dockerfile). Empty: none.
var stamp string //nolint:gochecknoglobals // the linker can set nothing else

// version is the stamp, or else what the Go toolchain recorded in the binary: the module's version, or the commit for a build from a checkout.
func version() string { return versionText(build(stamp)) }

func versionText(b metrics.Build) string {
	if b.Version == "" {
		return "quorumbox (no build information), " + b.GoVersion
	}
	revision := ""
	if b.Revision != "" {
		revision = " " + b.Revision
	}
	return fmt.Sprintf("quorumbox %s%s, %s", b.Version, revision, b.GoVersion)
}

// build is that in parts. Without a version there is no build information.
func build(stamp string) metrics.Build {
	b := metrics.Build{Version: stamp, GoVersion: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.GoVersion = info.GoVersion
	if stamp != "" {
		return b // made from a copy of the sources that has no revision
	}
	b.Version = info.Main.Version
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " (modified)"
		}
	}
	b.Revision = strings.TrimSpace(b.Revision + modified)
	return b
}
