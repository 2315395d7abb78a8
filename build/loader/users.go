package loader

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"iter"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// userForm is what a user's name may look like; a directory service may add a
// domain (DOMAIN\user, user@example.com).
var userForm = regexp.MustCompile(`^[\p{L}0-9_.][\p{L}0-9_.@+\\-]{0,255}\$?$`)

// defaultUser is the user that GitLab Runner's package makes.
const defaultUser = "gitlab-runner"

// An account is a user of this host.
type account struct {
	name   string
	uid    uint32
	gid    uint32
	groups []uint32
	home   string
}

// number returns the user's number.
func (a account) number() string { return strconv.FormatUint(uint64(a.uid), 10) }

// identify finds out who runs this process.
func (r *run) identify(ctx context.Context) error {
	me, ok := r.lookup(ctx, strconv.Itoa(r.uid))
	if !ok { // a container need not know its user
		me = account{name: cmp.Or(r.getenv("USER"), strconv.Itoa(r.uid)), uid: uint32(r.uid), gid: uint32(os.Getegid())}
	}
	me.home = cmp.Or(r.getenv("HOME"), me.home) // systemd sets none, and engines want one
	r.me = me
	if me.home == "" {
		return failf(exitConfig, "user %s has no home: set HOME", me.name)
	}
	return nil
}

// passwd returns the line of the user with this name or number. It asks getent, which
// knows directory services too.
func (r *run) passwd(ctx context.Context, key string) string {
	if r.find("getent") != "" {
		out, err := r.as(ctx, r.me, "getent", "passwd", key)
		if err != nil {
			return ""
		}
		line, _, _ := strings.Cut(string(out), "\n")
		return line
	}
	for line := range r.lines("/etc/passwd") {
		if fields := strings.Split(line, ":"); len(fields) > 2 && (fields[0] == key || fields[2] == key) {
			return line
		}
	}
	return ""
}

// lines returns the lines of a system file, none if it cannot be read.
func (r *run) lines(name string) iter.Seq[string] {
	text, err := readSmall(r.path(name), 16<<20)
	if err != nil {
		text = nil
	}
	return strings.SplitSeq(string(text), "\n")
}

// lookup returns the account of a name or number, without its groups.
func (r *run) lookup(ctx context.Context, key string) (account, bool) {
	fields := strings.Split(r.passwd(ctx, key), ":")
	if len(fields) != 7 || !userForm.MatchString(fields[0]) {
		return account{}, false
	}
	uid, err := strconv.ParseUint(fields[2], 10, 32)
	gid, err2 := strconv.ParseUint(fields[3], 10, 32)
	return account{name: fields[0], uid: uint32(uid), gid: uint32(gid), home: fields[5]}, err == nil && err2 == nil
}

// withGroups returns the account with all of its groups.
func (r *run) withGroups(ctx context.Context, a account) (account, error) {
	out, err := r.as(ctx, r.me, "id", "-G", a.name)
	if err != nil {
		return a, fmt.Errorf("groups of %s: %w", a.name, err)
	}
	a.groups = nil
	for word := range strings.FieldsSeq(string(out)) {
		gid, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return a, fmt.Errorf("groups of %s: %q is not a number", a.name, word)
		}
		a.groups = append(a.groups, uint32(gid))
	}
	return a, nil
}

// defaultUsers returns root, and gitlab-runner where podman can work for it. It
// says why gitlab-runner is left out, where that user exists.
func (r *run) defaultUsers(ctx context.Context) (names []string, leftOut string) {
	a, ok := r.lookup(ctx, defaultUser)
	if !ok {
		return []string{"root"}, ""
	}
	for _, kind := range []string{"subuid", "subgid"} {
		if !r.hasSubIDs(ctx, a, kind) {
			return []string{"root"}, fmt.Sprintf("no subordinate IDs in /etc/%s, without which rootless podman does not work (usermod --add-subuids 200000-265535 --add-subgids 200000-265535 %s)", kind, a.name)
		}
	}
	return []string{"root", a.name}, ""
}

// hasSubIDs reports whether the user has a range of subordinate IDs. getsubids
// asks a directory service, but does not find users by number in the files,
// which newuidmap does (shadow 4.13, lib/subordinateio.c).
func (r *run) hasSubIDs(ctx context.Context, a account, kind string) bool {
	args := []string{a.name}
	if kind == "subgid" {
		args = []string{"-g", a.name}
	}
	if out, err := r.as(ctx, r.me, "getsubids", args...); err == nil && len(bytes.TrimSpace(out)) > 0 {
		return true
	}
	for line := range r.lines("/etc/" + kind) {
		owner, _, ok := strings.Cut(line, ":")
		if ok && (owner == a.name || owner == a.number()) {
			return true
		}
	}
	return false
}
