#!/bin/sh
# SPDX-License-Identifier: MPL-2.0
#
# Installs what the make targets need, on Debian 12 and its relatives.
#
#   tools/setup.sh build run        install these groups, if something is missing
#   tools/setup.sh --list build     print the package names of a group
#
# All package names of the project are in the next block and nowhere else.
set -eu

# To compile the plugin.
build="gcc libc6-dev pkg-config ca-certificates libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev"
# To run the pipelines: gst-launch-1.0, VP8 and Matroska, textoverlay, srtenc, and a font.
run="gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
     gstreamer1.0-x fonts-dejavu-core"
# For the Python programs and the loopback RTSP camera.
python="python3 python3-gst-1.0 gir1.2-gst-plugins-base-1.0 gir1.2-gst-rtsp-server-1.0 python3-paho-mqtt"
# The servers of the tests, an MQTT broker and NATS, and who listens there.
broker="mosquitto mosquitto-clients nats-server"
# For live video of the wall by WebRTC, and to link it.
wall="libgstreamer-plugins-bad1.0-0 gstreamer1.0-nice"
# For the tests of its page.
browser="chromium"
# For meson.build.
meson="meson"
# To make a Debian package: cargo-deb asks dpkg what a library needs.
deb="dpkg-dev binutils"
# To try it in a Debian that has nothing else.
clean_root="mmdebstrap lintian util-linux"
# To prove the element by GStreamer's tools, one of which is compiled where it is not there.
valgrind="valgrind libc6-dbg"
validate="meson ninja-build libjson-glib-dev"
# What cargo-c is compiled with.
cargo_c="libssl-dev"
# A Rust toolchain, only where there is none that is recent enough.
rust="rustc-web cargo-web"
rust_lint="rustfmt-web rust-web-clippy"

rust_needed=1.92

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

group() {
    case $1 in
        build) echo $build ;;
        run) echo $run ;;
        python) echo $python ;;
        broker) echo $broker ;;
        wall) echo $wall ;;
        browser) echo $browser ;;
        meson) echo $meson ;;
        deb) echo $deb ;;
        clean-root) echo $clean_root ;;
        cargo-c) echo $cargo_c ;;
        valgrind) echo $valgrind ;;
        validate) echo $validate ;;
        rust) echo $rust ;;
        rust-lint) echo $rust_lint ;;
        *) die "unknown group '$1'; groups: build run python broker wall browser meson deb clean-root cargo-c valgrind validate rust rust-lint" ;;
    esac
}

if [ "${1-}" = --list ]; then
    shift
    for name; do group "$name"; done
    exit
fi

# Prints those of the packages given that are not installed.
missing() {
    have=" $(dpkg-query -W -f '${db:Status-Status}:${Package}\n' "$@" 2>/dev/null |
        sed -n 's/^installed://p' | tr '\n' ' ')"
    for package; do
        case $have in *" $package "*) ;; *) echo "$package" ;; esac
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "these packages are missing and this is not root, nor is there a sudo. As root, run:
    apt-get install$wanted"
    fi
}

install() {
    wanted=$(missing "$@" | sed 's/^/ /' | tr -d '\n')
    [ -n "$wanted" ] || return 0
    say "installing$wanted"
    # An unrelated repository that does not answer is no reason to stop here.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 update ||
        say "apt-get update complained; going on with the package lists there are"
    # --no-remove: nothing that is here has to go for us.
    # shellcheck disable=SC2086 # a list of names
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300 \
        install --no-install-recommends --no-remove $wanted ||
        die "apt-get could not install$wanted"
}

# Whether there is a rustc of the version needed and a cargo beside it.
rust_found() {
    command -v cargo >/dev/null || return 1
    version=$(rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9]*\.[0-9]*\).*/\1/p')
    [ -n "$version" ] || return 1
    [ "$(printf '%s\n%s\n' "$rust_needed" "$version" | sort -V | head -n 1)" = "$rust_needed" ]
}

setup_rust() {
    rust_found && return
    if command -v rustup >/dev/null; then
        die "rustc $rust_needed or newer is needed, and this rustup has none: run 'rustup update stable'"
    fi
    # shellcheck disable=SC2046 # a list of names
    install $(group rust)
    hash -r
    rust_found || die "rustc $rust_needed or newer is needed; found: $(rustc --version 2>&1) at $(command -v rustc)"
}

setup_rust_lint() {
    setup_rust
    cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
    if command -v rustup >/dev/null; then
        die "rustfmt and clippy are missing: run 'rustup component add rustfmt clippy'"
    fi
    # shellcheck disable=SC2046 # a list of names
    install $(group rust-lint)
}

packages=
toolchain=
for name; do
    case $name in
        rust | rust-lint) toolchain="$toolchain $name" ;;
        *) packages="$packages $(group "$name")" ;;
    esac
done

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
    # shellcheck disable=SC2086 # a list of names
    [ -z "$packages" ] || install $packages
elif [ -n "$packages" ]; then
    say "no apt here; you need what Debian calls:$packages"
fi
for name in $toolchain; do
    case $name in
        rust) setup_rust ;;
        rust-lint) setup_rust_lint ;;
    esac
done
