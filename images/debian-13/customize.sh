#!/bin/sh
# Turns the bootstrapped packages into the image. mmdebstrap runs it on the host, as root, as the last hook.
# $1: the root tree. DENO: deno's binary. FILES: the tree to lay over it. SOURCES: the image's own apt sources; an empty file keeps what
# mmdebstrap wrote, its default mirror. EPOCH: where to write the newest date of the archives, in seconds.
set -eu
root=$1

cp -R --preserve=mode --no-preserve=ownership "$FILES/." "$root/"
chmod 0440 "$root/etc/sudoers.d/app"
install -m 0755 "$DENO" "$root/usr/local/bin/deno"

chroot "$root" useradd --uid 1000 --user-group --create-home --shell /bin/bash app
install -d -o 1000 -g 1000 "$root/app"
install -d -o 1000 -g 1000 "$root/home/app/.local/bin"
chown -R 1000:1000 "$root/home/app"
rm -rf "$root"/run/*
install -d -m 1777 "$root/run/lock"
# Mount points: /run/skerry is the agent's channel, /.skerry the agent itself, /data where volumes customarily go.
install -d "$root/run/skerry" "$root/.skerry" "$root/data"
# Empty means "not set": each sandbox is a machine of its own (machine-id(5)).
: >"$root/etc/machine-id"

# How this machine reaches its mirror is none of the image's business.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
if [ -s "$SOURCES" ]; then
	rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
	install -m 0644 "$SOURCES" "$root/etc/apt/sources.list.d/debian.sources"
fi
sed -n 's/^Date: //p' "$root"/var/lib/apt/lists/*Release | while read -r date; do date -d "$date" +%s; done | sort -n | tail -n 1 >"$EPOCH"

# Never read at run time: type declarations, source maps, static libraries.
rm -rf "$root/usr/share/nodejs/@types"
find "$root/usr/share/nodejs" -type f \( -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' -o -name '*.map' \) -delete
find "$root/usr/lib" -type f -name '*.a' -delete
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/aux-cache
rm -rf "$root"/var/log/apt "$root"/var/lib/dpkg/*-old "$root"/etc/*- "$root"/var/lib/apt/extended_states.*
find "$root/var/log" -type f -exec truncate --size=0 {} +
