# shellcheck shell=bash
# For scripts that test DHCP servers in two network namespaces: installs packages, builds programs, creates the namespaces and
# removes them. To be sourced as root; $root is the directory of the project.

keep=
state=
server_ns=
client_ns=
driver=
features=
# The database servers of scripts/databases that run in the namespace of the server, for run_lab.
databases=()

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# The calling script defines a function `usage`.
bad_usage() {
    echo "${0##*/}: $1" >&2
    usage >&2
    exit 2
}

# Installs missing Debian packages, the servers' and those named, without recommended ones.
install_missing() {
    [ "$(id -u)" = 0 ] || fail "must be run as root"
    local package missing=()
    for package in kea-dhcp4-server kea-dhcp6-server kea-admin iproute2 python3 "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null || echo "apt-get update failed, trying with the existing lists" >&2
    apt-get install -y -q --no-install-recommends "${missing[@]}" </dev/null >/dev/null ||
        fail "the packages could not be installed"
    # The packages start their services; a machine without them before must not be left with running DHCP servers.
    if [ -d /run/systemd/system ]; then
        for package in "${missing[@]}"; do
            case $package in
            kea-dhcp?-server | kea-ctrl-agent) systemctl disable --now "$package" || true ;;
            esac
        done
    fi
}

# build_examples NAME...: builds examples with the features $features, and sets $examples to their directory.
build_examples() {
    local name arguments=(--features "$features")
    for name in "$@"; do
        arguments+=(--example "$name")
    done
    echo "building ${*}" >&2
    (cd "$root" && cargo build --quiet --locked --release "${arguments[@]}") || fail "the examples could not be built"
    examples=${CARGO_TARGET_DIR:-$root/target}/release/examples
}

# The namespaces $server_ns, with srv0 at 10.0.0.1/8 and 2001:db8::1/32, and $client_ns, with cli0 at 10.0.0.2/8 and
# 2001:db8::2/32.
make_network() {
    server_ns=dhcp$$-server
    client_ns=dhcp$$-client
    ip netns add "$server_ns" &&
        ip netns add "$client_ns" &&
        ip -n "$server_ns" link add srv0 type veth peer name cli0 netns "$client_ns" || return 1
    local ns
    for ns in "$server_ns" "$client_ns"; do
        # With accept_dad, an address cannot be used in its first second.
        ip netns exec "$ns" sh -c '
            for f in /proc/sys/net/ipv6/conf/*; do
                echo 0 >"$f/disable_ipv6"
                echo 0 >"$f/accept_dad"
            done' 2>/dev/null
        ip -n "$ns" link set lo up || return 1
    done
    ip -n "$server_ns" link set srv0 up &&
        ip -n "$client_ns" link set cli0 up &&
        ip -n "$server_ns" addr add 10.0.0.1/8 dev srv0 &&
        ip -n "$client_ns" addr add 10.0.0.2/8 dev cli0 &&
        ip -n "$server_ns" addr add 2001:db8::1/32 dev srv0 nodad &&
        ip -n "$client_ns" addr add 2001:db8::2/32 dev cli0 nodad
}

end_namespace() {
    local pids try
    ip netns pids "$1" >/dev/null 2>&1 || return 0
    # Repeated: a process may start another one between list and kill.
    for try in 1 2 3 4 5; do
        pids=$(ip netns pids "$1")
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086
        kill -KILL $pids 2>/dev/null
        sleep 0.2
    done
    ip netns del "$1"
}

end_lab() {
    # Must not be interrupted: timeout(1), for one, sends its signal twice.
    trap - EXIT
    trap '' INT TERM HUP
    if [ -n "$driver" ]; then
        # scripts/databases removes its servers.
        if [ ${#databases[@]} -gt 0 ]; then kill -TERM "$driver" 2>/dev/null; else kill -KILL "$driver" 2>/dev/null; fi
        wait "$driver" 2>/dev/null
    fi
    [ -z "$client_ns" ] || end_namespace "$client_ns"
    [ -z "$server_ns" ] || end_namespace "$server_ns"
    if [ -n "$state" ]; then
        if [ -n "$keep" ]; then
            echo "kept: $state" >&2
        else
            rm -rf "$state"
        fi
    fi
}

# run_lab PROGRAM ARGUMENT...: runs a Python program of this directory with the namespaces and a directory for its files, and
# exits with its status. With $keep, the files are kept. With $databases, the program runs beside database servers.
run_lab() {
    local program=$1 within=()
    shift
    trap end_lab EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'exit 129' HUP
    state=$(mktemp -d "${TMPDIR:-/tmp}/${0##*/}.XXXXXX") || fail "cannot create a directory for the files"
    make_network || fail "the namespaces could not be set up"
    if [ ${#databases[@]} -gt 0 ]; then
        within=(ip netns exec "$server_ns" "$here/databases" run "${databases[@]}" --)
    fi
    # In the background, so that a signal to this script is handled immediately.
    PYTHONDONTWRITEBYTECODE=1 "${within[@]}" python3 "$here/$program" --state "$state" \
        --server-ns "$server_ns" --client-ns "$client_ns" "$@" &
    driver=$!
    wait "$driver"
    local status=$?
    driver=
    exit "$status"
}
