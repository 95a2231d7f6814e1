#!/bin/sh
# The page of the machine.
. /usr/lib/pxeserver/lib.sh

card=$(boot_interface)
card=${card:-$(cards | head -n 1)}
mac=$(cat "/sys/class/net/$card/address" 2>/dev/null)
spec=$(cat /run/pxeserver/spec 2>/dev/null)
# the image's name is known to the server that we were booted by
url=$(server_url)
[ -s /tmp/image ] || [ -z "$url" ] || timeout 2 wget -q -O - "$url/metadata" 2>/dev/null |
    sed -n 's/^ *"image": "\(.*\)",*$/\1/p' >/tmp/image
image=$(cat /tmp/image 2>/dev/null)
seconds=$(cut -d. -f1 /proc/uptime)
up="$((seconds / 86400)) d $((seconds % 86400 / 3600)) h $((seconds % 3600 / 60)) min $((seconds % 60)) s"
address=$(ip -o -4 addr show dev "$card" 2>/dev/null | awk '{ print $4; exit }')
services=$(ls /proc/1/root/containers/services 2>/dev/null | tr '\n' ' ')

row() {
    [ -n "$2" ] && printf '<tr><th>%s</th><td>%s</td></tr>\n' "$1" "$(printf %s "$2" | sed 's/&/\&amp;/g; s/</\&lt;/g')"
}

printf 'Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\r\n'
cat <<PAGE
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>$(hostname)</title>
<style>
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 10vh auto; padding: 0 1rem }
th { text-align: left; padding: .2rem 1.5rem .2rem 0; font-weight: 500; opacity: .7; vertical-align: top }
td { font-family: ui-monospace, monospace; overflow-wrap: anywhere }
</style></head><body>
<h1>$(hostname)</h1>
<p>This machine has no disk. It was booted over the network, and this page comes from one of its containers.</p>
<table>
$(row MAC "$mac")
$(row Address "$address")
$(row Spec "$spec")
$(row Image "$image")
$(row Up "$up")
$(row Memory "$(memory) MiB")
$(row Kernel "$(uname -r)")
$(row Services "$services")
</table></body></html>
PAGE
