// Package scratch names databases that are made for a while on a server that outlives their makers, so that those of a killed maker
// can be told by their age and dropped by the next one.
package scratch

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Name is a database name that nobody else uses: prefix, the time in hexadecimal seconds, label, random characters, as in
// qbtest_68b1f2a0_db_kzq3nbxr7d2a. Prefix and label are of a-z, 0-9 and "_" and together at most 40 bytes, so that the name
// is not cut (identifiers have at most 63 bytes).
func Name(prefix, label string) string {
	return fmt.Sprintf("%s%x_%s_%s", prefix, time.Now().Unix(), label, strings.ToLower(rand.Text()[:12]))
}

// IsAbandoned reports whether name is one of [Name] with the prefix that is older than age at the time now.
func IsAbandoned(name, prefix string, age time.Duration, now time.Time) bool {
	rest, ours := strings.CutPrefix(name, prefix)
	stamp, _, ok := strings.Cut(rest, "_")
	if !ours || !ok {
		return false
	}
	made, err := strconv.ParseInt(stamp, 16, 64)
	return err == nil && now.Sub(time.Unix(made, 0)) > age
}

// URL is the connection string of another database on the server of connString, which is a URL or a list of key=value. The
// result is a secret if connString is one.
func URL(connString, database string) string {
	u, err := url.Parse(connString)
	if err != nil || !strings.HasPrefix(u.Scheme, "postgres") {
		return connString + " dbname=" + database // the last of several wins
	}
	u.Path = "/" + database
	query := u.Query()
	query.Del("dbname") // it would win over the path
	query.Del("database")
	u.RawQuery = query.Encode()
	return u.String()
}
