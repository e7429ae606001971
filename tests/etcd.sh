#!/usr/bin/env bash
# Puts two real etcd versions where the integration tests look for them:
#
#   target/etcd/old/{etcd,etcdctl}   the 3.4 of Debian bookworm
#   target/etcd/new/{etcd,etcdctl}   the 3.5 of Debian trixie
#
# Needs no root and leaves the machine's apt alone: all of apt's state is private and below
# target/etcd. The mirror is the one this machine uses already; DEBIAN_MIRROR=<uri> overrides it.
set -euo pipefail
umask 022
export LC_ALL=C

fail() {
    printf 'tests/etcd.sh: %s\n' "$1" >&2
    exit 1
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# A relative CARGO_TARGET_DIR means relative to where the caller stands, as it does for cargo.
home=${CARGO_TARGET_DIR:-$here/target}/etcd
mkdir -p "$home" || fail "can't create the folder $home"
home=$(cd "$home" && pwd)

version() { "$home/$1/etcd" --version 2>/dev/null | sed -n 's/^etcd Version: //p'; }

ready() {
    [ -x "$home/$1/etcd" ] && [ -x "$home/$1/etcdctl" ] &&
        [ -n "$(version "$1")" ] && ETCDCTL_API=3 "$home/$1/etcdctl" version >/dev/null 2>&1
}

# One line "uri <tab> suite <tab> keyring" for each source the machine's apt knows.
sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] || continue
        awk '$1 == "deb" {
            key = ""; at = 2
            if ($at ~ /^\[/) {
                do {
                    word = $at; gsub(/[][]/, "", word)
                    if (word ~ /^signed-by=/) key = substr(word, 11)
                } while ($(at++) !~ /\]$/ && at <= NF)
            }
            printf "%s\t%s\t%s\n", $at, $(at + 1), key
        }' "$file"
    done
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -r "$file" ] || continue
        awk '
            function flush(  i, n, suite) {
                n = split(suites, suite, " ")
                if (off !~ /^no$/) for (i = 1; i <= n; i++) printf "%s\t%s\t%s\n", uri, suite[i], key
                uri = suites = key = off = field = ""
            }
            /^#/ { next }
            /^[ \t]*$/ { flush(); next }
            /^[^ \t]/ { field = tolower($1); sub(/^[^:]*:/, "") }
            field == "uris:" && uri == "" { uri = $1 }
            field == "suites:" { suites = suites " " $0 }
            field == "enabled:" { off = tolower($1) }
            # A key can stand there in full; only a path is of use here.
            field == "signed-by:" && $1 ~ /^\// { key = $1 }
            END { flush() }' "$file"
    done
}

find_mirror() {
    mirror=${DEBIAN_MIRROR:-}
    keyring=
    local codename suite line
    codename=$(. /etc/os-release 2>/dev/null && printf '%s' "${VERSION_CODENAME:-}") || codename=
    for suite in ${codename:+"$codename"} stable oldstable testing unstable sid; do
        line=$(sources | awk -F '\t' -v suite="$suite" '$1 != "" && $2 == suite { print; exit }')
        [ -n "$line" ] || continue
        [ -n "$mirror" ] || mirror=$(printf '%s' "$line" | cut -f 1)
        keyring=$(printf '%s' "$line" | cut -f 3)
        break
    done
    [ -n "$mirror" ] || fail "no Debian mirror in this machine's apt sources: set DEBIAN_MIRROR"
    # The distribution's own keyring holds the keys of every release; a release's file need not.
    local all=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -r "$all" ] || keyring=$all
    [ -n "$keyring" ] && [ -r "$keyring" ] || keyring=
}

# fetch <old|new> <suite>
fetch() {
    local slot=$1 suite=$2 work log
    work=$home/apt-$slot
    log=$work/log
    rm -rf "$work"
    mkdir -p "$work"/{state/lists/partial,cache/archives/partial,deb,files}
    : >"$work/status"
    printf 'deb %s%s %s main\n' "${keyring:+[signed-by=$keyring] }" "$mirror" "$suite" \
        >"$work/sources.list"
    # Of the machine's settings only the way out (a proxy, say) is taken over: its hooks, pins and
    # extra architectures are none of our business. A proxy's address may hold a password.
    (
        umask 077
        {
            apt-config dump | grep -E '^Acquire::https?:' || true
            printf '%s;\n' \
                'Dir::Etc::main "/dev/null"' 'Dir::Etc::parts "/dev/null"' \
                'Dir::Etc::preferences "/dev/null"' 'Dir::Etc::preferencesparts "/dev/null"' \
                "Dir::Etc::sourcelist \"$work/sources.list\"" 'Dir::Etc::sourceparts "-"' \
                "Dir::State \"$work/state\"" "Dir::State::status \"$work/status\"" \
                "Dir::Cache \"$work/cache\"" "Dir::Log \"$work\"" \
                "APT::Architecture \"$(dpkg --print-architecture)\"" \
                "APT::Architectures { \"$(dpkg --print-architecture)\"; }" \
                'APT::Sandbox::User ""' 'APT::Get::List-Cleanup "false"' \
                'Acquire::Languages "none"' 'Acquire::Retries "3"' \
                'Acquire::http::Timeout "60"' 'Acquire::https::Timeout "60"'
        } >"$work/apt.conf"
    )
    (
        cd "$work/deb"
        export APT_CONFIG=$work/apt.conf
        # apt-get update calls a failed download a warning; the download after it tells.
        apt-get -q update && apt-get -q download etcd-server etcd-client &&
            for deb in ./*.deb; do dpkg -x "$deb" "$work/files"; done
    ) >"$log" 2>&1 || fail "no etcd of Debian $suite from $mirror: $(
        grep -m 1 -E '^[EW]: ' "$log" || true
    ) (all of it in $log)"
    mkdir -p "$home/$slot"
    local name
    for name in etcd etcdctl; do
        # Moved into place in one step, so that nobody ever runs half a file.
        cp "$work/files/usr/bin/$name" "$home/$slot/.$name" &&
            mv -f "$home/$slot/.$name" "$home/$slot/$name" ||
            fail "the package of Debian $suite holds no usr/bin/$name"
    done
    ready "$slot" || fail "the etcd of Debian $suite does not run on this machine: $(
        "$home/$slot/etcd" --version 2>&1 | tail -n 1
    )"
    rm -rf "$work"
}

if ! ready old || ! ready new; then
    for tool in apt-get apt-config dpkg awk sed; do
        command -v "$tool" >/dev/null || fail "needs Debian's $tool, which is not on this machine"
    done
    if command -v flock >/dev/null; then
        exec 9>"$home/.lock"
        flock -w 600 9 || fail "another run holds $home/.lock for ten minutes already"
    fi
    find_mirror
    ready old || fetch old bookworm
    ready new || fetch new trixie
fi

version old
version new
