#!/usr/bin/env bash
# get-haproxy.sh SUITE DIR: leave a runnable DIR/haproxy, the HAProxy of Debian's SUITE
# (bookworm, trixie, sid, experimental).
#
# The package and the libraries it needs are downloaded with a private apt configuration and
# unpacked below DIR. Nothing is installed and no root is needed, so any number of versions can
# lie side by side. Quiet when all is well; says on stderr what is missing otherwise.
set -euo pipefail

fail() { echo "get-haproxy.sh: $*" >&2; exit 1; }
works() { [ -x "$1/haproxy" ] && "$1/haproxy" -v >/dev/null 2>&1; }

[ $# -eq 2 ] || fail "usage: get-haproxy.sh SUITE DIR"
suite=$1
mkdir -p "$(dirname "$2")"
dir=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
works "$dir" && exit 0

for tool in apt-get dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || fail "no $tool here: this needs a Debian system"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || fail "no $keyring (package debian-archive-keyring)"
# The mirror this machine is configured with, whichever that is.
# shellcheck disable=SC2016 # $(SITE) is apt's
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
    awk '/\/debian\/?$/ { found = $0 } END { print found }')
[ -n "$mirror" ] || fail "apt has no Debian mirror configured"

# Built beside DIR and renamed at the end: two callers at once, or one that was interrupted,
# never leave half a tree behind that looks whole.
new=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$new"' EXIT
chmod 755 "$new"
apt=$new/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$new/root"
: >"$apt/status" # an empty package database: every dependency is downloaded
{
    echo "deb [signed-by=$keyring] $mirror $suite main"
    # experimental holds only what differs from sid
    [ "$suite" != experimental ] || echo "deb [signed-by=$keyring] $mirror sid main"
} >"$apt/sources.list"
options=(
    -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
    -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status"
    -o Dir::Cache="$apt/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=root
    -o APT::Architecture="$(dpkg --print-architecture)" -o APT::Install-Recommends=0
    -o Acquire::Languages=none -o Acquire::Retries=3
)
# Without Error-Mode apt calls an unreachable mirror a warning and goes on with nothing.
apt-get "${options[@]}" -o APT::Update::Error-Mode=any -qq update >/dev/null ||
    fail "cannot read the package lists of $suite"
apt-get "${options[@]}" -qq -y --download-only -t "$suite" install haproxy >/dev/null ||
    fail "cannot download haproxy of $suite"

# Only libraries and haproxy itself: the rest (a shell, a package manager) is never run.
for package in "$apt"/cache/archives/*.deb; do
    case ${package##*/} in
        lib* | zlib1g_* | gcc-*-base_* | haproxy_*) dpkg-deb -x "$package" "$new/root" ;;
    esac
done
rm -rf "$apt"

# HAProxy runs under the loader and libraries of its own suite, whatever this machine has.
# --argv0: in master-worker mode it starts itself again by that name, which must be the wrapper's.
cd "$new"
loader=$(find root -name 'ld-linux*.so.*' -print -quit)
libraries=$(find root -name 'lib*.so*' -printf "$dir/%h\n" | sort -u | paste -sd:)
[ -n "$loader" ] || fail "no loader among the packages of $suite"
[ -x root/usr/sbin/haproxy ] || fail "no haproxy among the packages of $suite"
cat >haproxy <<END
#!/bin/sh
exec "$dir/$loader" --library-path "$libraries" --argv0 "\$0" "$dir/root/usr/sbin/haproxy" "\$@"
END
chmod +x haproxy
cd /

works "$dir" && exit 0 # another caller was faster
rm -rf "$dir"
mv -T "$new" "$dir"
works "$dir" || fail "$dir/haproxy does not run"
