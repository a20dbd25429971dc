package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"quorumbox/internal/importer"
	"quorumbox/migrations"
)

// importConns is enough for the import and for waiting beside it.
const importConns = 4

// importFlags are the flags of the command import.
type importFlags struct {
	options importer.Options
	json    bool
}

func newImportCommand() *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import FILE.jsonl|-",
		Short: "Store memories from a file of JSON lines, with the entries that replicate them",
		Long: `Store the memories of a file, or of the standard input ("-"), one JSON object a line
in the shape of the federation protocol: id, namespace, title and content are needed,
other fields have defaults, unknown ones are refused.

A memory whose id is there already is updated; one that is there as it is, is sent to
the peers once more. So an import that was interrupted can be repeated.

A bad line is reported with its number and left out; the others are stored. The command
exits with 1 if there was one, or, with --await, if an entry did not reach its quorum.`,
		Example: `  worker import memories.jsonl
  zcat memories.jsonl.gz | worker import - --await --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runImport(cmd, args[0], flags) },
	}
	set := cmd.Flags()
	set.IntVar(&flags.options.Chunk, "chunk", importer.DefaultChunk, fmt.Sprintf("lines in one transaction, 1 to %d", importer.MaxChunk))
	set.BoolVar(&flags.options.Await, "await", false, "wait until every entry has its verdict; a worker must be running")
	set.DurationVar(&flags.options.AwaitTimeout, "await-timeout", importer.DefaultAwaitTimeout, "how long to wait for verdicts after the last line")
	set.BoolVar(&flags.json, "json", false, "print the counts as JSON")
	return cmd
}

func runImport(cmd *cobra.Command, path string, flags importFlags) error {
	ctx := cmd.Context()
	_, url, err := loadWithDatabase(cmd)
	if err != nil {
		return err
	}
	source, size, err := openSource(path, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer source.Close()
	if err := migrations.Check(ctx, url); err != nil {
		return err
	}
	pool, err := openPool(ctx, url, importConns, "quorumbox import")
	if err != nil {
		return err
	}
	defer pool.Close()

	bar := newImportBar(cmd.ErrOrStderr(), size)
	flags.options.OnBad = func(b importer.Bad) {
		bar.clear()
		id := ""
		if b.ID != "" {
			id = fmt.Sprintf(" (id %q)", b.ID)
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "line %d%s: %v\n", b.Line, id, b.Err)
	}
	flags.options.OnProgress = bar.show
	summary, err := importer.Run(ctx, pool, source, flags.options)
	bar.clear()
	if printErr := printSummary(cmd.OutOrStdout(), summary, flags.json); err == nil {
		err = printErr
	}
	if err != nil {
		return err
	}
	return judge(summary)
}

// openSource opens the file and returns its size, -1 if it is not known.
func openSource(path string, stdin io.Reader) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(stdin), -1, nil
	}
	f, err := os.Open(path) //nolint:gosec // G304: the user names the file
	if err != nil {
		return nil, 0, fmt.Errorf("open the file to import: %w", err)
	}
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, errors.Join(fmt.Errorf("open the file to import: %w", err), f.Close())
	case info.IsDir():
		return nil, 0, errors.Join(fmt.Errorf("%s is a folder: name a file of JSON lines", path), f.Close())
	case !info.Mode().IsRegular():
		return f, -1, nil
	}
	return f, info.Size(), nil
}

func printSummary(w io.Writer, s importer.Summary, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(s)
	}
	_, err := fmt.Fprintf(w, "%d lines in %s: %d inserted, %d updated, %d moved, %d unchanged, %d bad; %d entries, %.0f/s\n",
		s.Lines, s.Took.Round(time.Millisecond), s.Inserted, s.Updated, s.Moved, s.Unchanged, s.Bad, s.Entries(), s.Rate())
	if v := s.Verdicts; v != nil && err == nil {
		_, err = fmt.Fprintf(w, "verdicts after %s: %d met, %s, %d undecided%s\n",
			v.Took.Round(time.Millisecond), v.Met, notMet(*v), v.Undecided, pruned(*v))
	}
	return err
}

func notMet(v importer.Verdicts) string {
	if len(v.NotMet) == 0 {
		return "0 not met"
	}
	var total int64
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(v.NotMet)) {
		total += v.NotMet[reason]
		parts = append(parts, fmt.Sprintf("%s %d", reason, v.NotMet[reason]))
	}
	return fmt.Sprintf("%d not met (%s)", total, strings.Join(parts, ", "))
}

func pruned(v importer.Verdicts) string {
	if v.Pruned == 0 {
		return ""
	}
	return fmt.Sprintf(", %d delivered and pruned before the verdict was read", v.Pruned)
}

// judge is the error that makes the exit code of an import that went through.
func judge(s importer.Summary) error {
	switch v := s.Verdicts; {
	case s.OK():
		return nil
	case s.Bad > 0:
		return fmt.Errorf("%d of %d lines were bad and not stored: correct them and import again; the others stay as they are", s.Bad, s.Lines)
	case v.Undecided > 0:
		return fmt.Errorf("%d entries have no verdict yet, but are stored and will be delivered: is a worker running (`worker status`)?", v.Undecided)
	default:
		return fmt.Errorf("%s: these entries are stored and will be delivered when the peers can (`worker status`)", notMet(*v))
	}
}

// importBar shows how far an import is; nothing where the output is no terminal.
type importBar struct {
	bar  *progressbar.ProgressBar // nil: nothing is shown
	size int64                    // of the file, -1: not known
}

func newImportBar(w io.Writer, size int64) importBar {
	f, ok := w.(*os.File)
	if !ok || !isatty.IsTerminal(f.Fd()) {
		return importBar{}
	}
	return importBar{size: size, bar: progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription("import"),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetPredictTime(size >= 0),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetSpinnerChangeInterval(0), // no goroutine of its own
		progressbar.OptionClearOnFinish(),
	)}
}

func (b importBar) show(p importer.Progress) {
	if b.bar == nil {
		return
	}
	text := fmt.Sprintf("%d stored", p.Summary.Entries())
	if p.Summary.Bad > 0 {
		text += fmt.Sprintf(", %d bad", p.Summary.Bad)
	}
	if v := p.Summary.Verdicts; v != nil {
		text += fmt.Sprintf(", %d undecided", v.Undecided)
	}
	b.bar.Describe(text)
	if p.Bytes < b.size || b.size < 0 { // the last one would end the bar while verdicts are waited for
		_ = b.bar.Set64(p.Bytes)
	}
}

func (b importBar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}
