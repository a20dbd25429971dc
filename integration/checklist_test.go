package integration

import (
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	checklistPath = "../docs/checklist.md"
	checklistRows = 88
)

// checklistRow is a row of the tables of docs/checklist.md that are numbered.
type checklistRow struct {
	number int
	tests  []testName
	stead  string // what replaces it, "" for nothing
}

// testName is a test as the checklist names it.
type testName struct{ folder, test, subtest string }

func (n testName) String() string {
	if n.subtest == "" {
		return n.folder + "." + n.test
	}
	return n.folder + "." + n.test + "/" + n.subtest
}

// Every row is there, in order and once; it names a test or says what replaces it; and every test that the page names exists.
func TestChecklist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(checklistPath)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range checklistProblems(string(page), testFiles(t), records(t)) {
		t.Error(problem)
	}
}

// checklistProblems is what is wrong with a page; files are the test files by folder, records the decisions by path.
func checklistProblems(page string, files map[string][]string, records map[string]string) []string {
	var problems []string
	rows, problems := parseChecklist(page)
	for want := 1; want <= checklistRows; want++ {
		if n := len(slices.Collect(matching(rows, want))); n != 1 {
			problems = append(problems, "row "+strconv.Itoa(want)+" is there "+strconv.Itoa(n)+" times")
		}
	}
	for _, r := range rows {
		if len(r.tests) == 0 && r.stead == "" {
			problems = append(problems, "row "+strconv.Itoa(r.number)+" names neither a test nor what replaces it")
		}
	}
	for _, name := range testNames(page) {
		if !name.in(files) {
			problems = append(problems, "there is no test "+name.String())
		}
	}
	return append(problems, misquoted(page, records)...)
}

func matching(rows []checklistRow, number int) func(yield func(checklistRow) bool) {
	return func(yield func(checklistRow) bool) {
		for _, r := range rows {
			if r.number == number && !yield(r) {
				return
			}
		}
	}
}

// parseChecklist reads the rows whose first cell is a number.
func parseChecklist(page string) (rows []checklistRow, problems []string) {
	for line := range strings.Lines(page) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) < 3 {
			continue
		}
		number, err := strconv.Atoi(strings.TrimSpace(cells[1]))
		if err != nil {
			continue
		}
		if len(cells) != 6 { // with what is before the first and after the last bar
			problems = append(problems, "row "+strconv.Itoa(number)+" has "+strconv.Itoa(len(cells)-2)+" cells, want 4")
			continue
		}
		rows = append(rows, checklistRow{number: number, tests: testNames(cells[3]), stead: strings.TrimSpace(cells[4])})
	}
	return rows, problems
}

// testNames is what looks like the name of a test in code quotes.
func testNames(text string) (names []testName) {
	for _, m := range regexp.MustCompile("`([a-z/]+)\\.(Test[A-Za-z0-9_]+)(?:/([^`]+))?`").FindAllStringSubmatch(text, -1) {
		names = append(names, testName{folder: m[1], test: m[2], subtest: m[3]})
	}
	return names
}

// in reports whether a file of the folder has the test, and its subtest as a text in quotes.
func (n testName) in(files map[string][]string) bool {
	return slices.ContainsFunc(files[n.folder], func(source string) bool {
		return strings.Contains(source, "\nfunc "+n.test+"(") && (n.subtest == "" || strings.Contains(source, strconv.Quote(n.subtest)))
	})
}

// misquoted is quotes of a record of docs/adr that are not in it. A quote of one is "text" ([ADR n](adr/file)).
func misquoted(page string, records map[string]string) []string {
	var problems []string
	for _, m := range regexp.MustCompile(`"([^"]+)" \(\[ADR \d+\]\(([^)]+)\)\)`).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(records[m[2]], m[1]) {
			problems = append(problems, m[2]+" does not say: "+m[1])
		}
	}
	return problems
}

// testFiles is the text of all test files by the folder that they are in, "internal/peer".
func testFiles(t *testing.T) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == ".git" || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		files[path.Dir(name)] = append(files[path.Dir(name)], string(source))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// records is the text of the records of docs/adr, on one line each, by the path that the checklist links to.
func records(t *testing.T) map[string]string {
	t.Helper()
	found, err := filepath.Glob("../docs/adr/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, file := range found {
		text, err := os.ReadFile(file) //nolint:gosec // G304: a file of this repository
		if err != nil {
			t.Fatal(err)
		}
		texts["adr/"+filepath.Base(file)] = strings.Join(strings.Fields(string(text)), " ")
	}
	return texts
}

// The check itself finds what it is for.
func TestChecklistProblems(t *testing.T) {
	t.Parallel()
	var good strings.Builder
	for n := range checklistRows {
		good.WriteString("| " + strconv.Itoa(n+1) + " | says | `a/b.TestOne/sub test` | |\n")
	}
	files := map[string][]string{"a/b": {"package b\n\nfunc TestOne(t *testing.T) { t.Run(\"sub test\", nil) }\n"}}
	records := map[string]string{"adr/1.md": "it says so"}
	const seven = "| 7 | says | `a/b.TestOne/sub test` | |"
	for name, c := range map[string]struct{ old, new, want string }{
		"good":               {"", "", ""},
		"row missing":        {"| 7 |", "| seven |", "row 7 is there 0 times"},
		"row twice":          {"| 7 |", "| 8 |", "row 8 is there 2 times"},
		"cell missing":       {"| 7 | says ", "| 7 ", "row 7 has 3 cells"},
		"nothing named":      {"| 7 | says | `a/b.TestOne/sub test` |", "| 7 | says | none |", "row 7 names neither"},
		"only replaced":      {seven, "| 7 | says | none | better |", ""},
		"no such test":       {"| 7 | says | `a/b.TestOne/", "| 7 | says | `a/b.TestTwo/", "no test a/b.TestTwo/sub test"},
		"test of another":    {"| 7 | says | `a/b.", "| 7 | says | `a/c.", "no test a/c.TestOne"},
		"prefix of a test":   {"| 7 | says | `a/b.TestOne/", "| 7 | says | `a/b.TestOn/", "no test a/b.TestOn"},
		"no such subtest":    {"| 7 | says | `a/b.TestOne/sub test`", "| 7 | says | `a/b.TestOne/sub`", "no test a/b.TestOne/sub"},
		"quoted as it is":    {seven, `| 7 | says | none | "says so" ([ADR 1](adr/1.md)) |`, ""},
		"quoted otherwise":   {seven, `| 7 | says | none | "said so" ([ADR 1](adr/1.md)) |`, "adr/1.md does not say: said so"},
		"quote of no record": {seven, `| 7 | says | none | "says so" ([ADR 2](adr/2.md)) |`, "adr/2.md does not say"},
	} {
		got := checklistProblems(strings.Replace(good.String(), c.old, c.new, 1), files, records)
		if c.want == "" && len(got) > 0 || c.want != "" && !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, c.want) }) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := len(slices.Collect(maps.Keys(testFiles(t)))); got < 10 {
		t.Errorf("got test files of %d folders, want those of the whole tree", got)
	}
}
