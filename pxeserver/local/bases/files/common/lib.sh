# Functions that the scripts of this folder share; sourced, by busybox sh.

# The values of KEY=VALUE words on the kernel command line, one a line.
cmdline() {
    tr ' ' '\n' </proc/cmdline | sed -n "s|^$1=||p"
}

# The devices of every console=, else the default one.
consoles() {
    found=
    for console in $(cmdline console); do
        console=${console%%,*}
        [ -c "/dev/$console" ] && found="$found $console"
    done
    echo "${found:-console}"
}

# Copy standard input to every console. In subshells: the leader of a session must not get a terminal by writing to it.
to_consoles() {
    cat >"/tmp/.consoles.$$"
    for console in $(consoles); do
        (cat "/tmp/.consoles.$$" >"/dev/$console") 2>/dev/null
    done
    rm -f "/tmp/.consoles.$$"
}

# A line on every console.
say() {
    for console in $(consoles); do
        (printf 'pxeserver: %s\r\n' "$*" >"/dev/$console") 2>/dev/null
    done
    return 0
}

# The URL of this boot on the server: pxeserver.url=, else what find-server learnt; "" when there is none.
server_url() {
    url=$(cmdline pxeserver.url | tail -n 1)
    [ -n "$url" ] || url=$(cat /run/pxeserver/url 2>/dev/null)
    echo "$url"
}

# MiB of memory that the kernel has to give.
memory() {
    awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo
}

# The interface that the firmware booted from (BOOTIF=01-aa-bb-...), "" when it is not there.
boot_interface() {
    bootif=$(cmdline BOOTIF | tail -n 1 | tr 'A-F-' 'a-f:')
    [ -n "$bootif" ] || return 0
    for path in /sys/class/net/*; do
        [ -e "$path/address" ] && [ "$(cat "$path/address")" = "${bootif#01:}" ] && echo "${path##*/}" && return 0
    done
    return 0
}

# The network cards: interfaces that belong to a device.
cards() {
    for path in /sys/class/net/*; do
        [ -e "$path/device" ] && echo "${path##*/}"
    done
    return 0
}
