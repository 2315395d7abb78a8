package loader

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
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

// database returns a line of a database of accounts that begins with key, or of
// the user with that number. It asks getent, which knows directory services too.
func (r *run) database(ctx context.Context, database, key string) (line string, ok bool) {
	if getent := r.find("getent"); getent != "" {
		out, err := r.do(ctx, call{program: getent, args: []string{database, key}, env: r.ownEnv(), limit: r.askLimit})
		line, _, _ := strings.Cut(string(out), "\n")
		return line, err == nil && line != ""
	}
	text, err := readSmall(r.path("/etc/"+database), 16<<20)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if fields := strings.Split(line, ":"); len(fields) > 2 && (fields[0] == key || fields[2] == key) {
			return line, true
		}
	}
	return "", false
}

// lookup returns the account of a name or number, without its groups.
func (r *run) lookup(ctx context.Context, key string) (account, bool) {
	line, ok := r.database(ctx, "passwd", key)
	fields := strings.Split(line, ":")
	if !ok || len(fields) != 7 || !userForm.MatchString(fields[0]) {
		return account{}, false
	}
	uid, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return account{}, false
	}
	gid, err := strconv.ParseUint(fields[3], 10, 32)
	if err != nil {
		return account{}, false
	}
	return account{name: fields[0], uid: uint32(uid), gid: uint32(gid), home: fields[5]}, true
}

// withGroups returns the account with all of its groups.
func (r *run) withGroups(ctx context.Context, a account) (account, error) {
	id := r.find("id")
	if id == "" {
		return a, fmt.Errorf("groups of %s: id is not installed", a.name)
	}
	out, err := r.do(ctx, call{program: id, args: []string{"-G", a.name}, env: r.ownEnv(), limit: r.askLimit})
	if err != nil {
		return a, fmt.Errorf("groups of %s: %w", a.name, err)
	}
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
	if getsubids := r.find("getsubids"); getsubids != "" {
		args := []string{a.name}
		if kind == "subgid" {
			args = []string{"-g", a.name}
		}
		if out, err := r.do(ctx, call{program: getsubids, args: args, env: r.ownEnv(), limit: r.askLimit}); err == nil && len(bytes.TrimSpace(out)) > 0 {
			return true
		}
	}
	text, err := readSmall(r.path("/etc/"+kind), 16<<20)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		owner, _, ok := strings.Cut(line, ":")
		if ok && (owner == a.name || owner == strconv.FormatUint(uint64(a.uid), 10)) {
			return true
		}
	}
	return false
}
