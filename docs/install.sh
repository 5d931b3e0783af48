#!/bin/sh
# Installs ldm with libtorch for the CPU: sh install.sh [--prefix FOLDER]
#
#   --prefix FOLDER   gets lib/ldm, and links in bin and share; by default ~/.local
#   LDM_VERSION       the version, by default the newest
#   LDM_PACKAGES      a folder or address with the archive and SHA256SUMS, by default that of the release
set -eu

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Everything is in functions, so that a script cut by the network does nothing.
fetch() {
    case $packages in
    http://* | https://*)
        if command -v curl >/dev/null; then
            curl --fail --silent --show-error --location --output "$work/$1" "$packages/$1"
        elif command -v wget >/dev/null; then
            wget --quiet --output-document="$work/$1" "$packages/$1"
        else
            fail "curl: expected curl or wget, got neither; try installing one, or LDM_PACKAGES=FOLDER"
        fi || fail "$packages/$1: expected a file, got none; try again, or LDM_PACKAGES=FOLDER"
        ;;
    *)
        [ -f "$packages/$1" ] || fail "$packages/$1: expected a file, got none"
        cp -- "$packages/$1" "$work/$1"
        ;;
    esac
}

main() {
    prefix=${HOME:-}/.local
    while [ $# -gt 0 ]; do
        case $1 in
        --prefix)
            [ $# -gt 1 ] || fail "--prefix: expected a folder, got none"
            prefix=$2
            shift 2
            ;;
        --prefix=*) prefix=${1#*=}; shift ;;
        -h | --help) sed -n 's/^# \{0,1\}//p' "$0" | sed -n 2,6p; return ;;
        *) fail "$1: expected --prefix FOLDER, got another option" ;;
        esac
    done
    case $prefix in
    /.local) fail "HOME: expected a folder, got none; try --prefix FOLDER" ;;
    /*) ;;
    *) prefix=$PWD/$prefix ;;
    esac
    system=$(uname -s)-$(uname -m)
    [ "$system" = Linux-x86_64 ] || fail "this system: expected Linux-x86_64, got $system; try building from source"

    release=https://github.com/ldm-rs/ldm/releases
    if [ -n "${LDM_VERSION:-}" ]; then release=$release/download/v$LDM_VERSION; else release=$release/latest/download; fi
    packages=${LDM_PACKAGES:-$release}
    mkdir -p -- "$prefix/lib" || fail "$prefix: expected a folder that this user may write, got another; try --prefix FOLDER"
    # On the disk of the prefix: half a gigabyte is moved, not copied.
    work=$(mktemp -d "$prefix/lib/.ldm-install-XXXXXX")
    trap 'rm -rf -- "$work"' EXIT
    trap 'exit 130' INT TERM HUP

    fetch SHA256SUMS
    name=$(sed -n "s/^[0-9a-f]\{64\}  \(ldm-${LDM_VERSION:-.*}-linux-x86_64\)\.tar\.gz\$/\1/p" "$work/SHA256SUMS" | tail -n 1)
    [ -n "$name" ] || fail "$packages/SHA256SUMS: expected an archive for linux-x86_64, got none"
    fetch "$name.tar.gz"
    (cd -- "$work" && grep "  $name.tar.gz\$" SHA256SUMS | sha256sum -c - >/dev/null 2>&1) ||
        fail "$packages/$name.tar.gz: expected the sha256 of SHA256SUMS, got another; try again"
    tar -xzf "$work/$name.tar.gz" -C "$work" || fail "$prefix: expected room for 0.6 GB, got an error of tar; try --prefix FOLDER"
    # The program itself says what this system lacks, such as a newer glibc.
    "$work/$name/bin/ldm" --version >"$work/version" || exit 1
    grep -q '^flags.* avx2' /proc/cpuinfo 2>/dev/null ||
        printf 'note: this CPU has no AVX2: ldm works, but many times slower\n' >&2

    [ -L "$prefix/bin/ldm" ] || [ ! -e "$prefix/bin/ldm" ] ||
        fail "$prefix/bin/ldm: expected no such file or a link, got another program; try --prefix FOLDER"
    rm -rf -- "$prefix/lib/ldm.old"
    if [ -e "$prefix/lib/ldm" ]; then
        [ -x "$prefix/lib/ldm/libexec/ldm" ] || fail "$prefix/lib/ldm: expected an older ldm, got something else; try --prefix FOLDER"
        mv -- "$prefix/lib/ldm" "$prefix/lib/ldm.old"
    fi
    mv -- "$work/$name" "$prefix/lib/ldm"
    rm -rf -- "$prefix/lib/ldm.old"
    for file in bin/ldm share/bash-completion/completions/ldm share/zsh/site-functions/_ldm \
        share/fish/vendor_completions.d/ldm.fish; do
        mkdir -p -- "$prefix/${file%/*}"
        ln -sf -- "$prefix/lib/ldm/$file" "$prefix/$file"
    done
    mkdir -p -- "$prefix/share/man/man1"
    ln -sf -- "$prefix"/lib/ldm/share/man/man1/*.1 "$prefix/share/man/man1"
    printf '%s: %s' "$prefix/bin/ldm" "$(cat "$work/version")"
    case :${PATH:-}: in
    *:"$prefix/bin":*) echo ;;
    *) printf '; add %s to PATH\n' "$prefix/bin" ;;
    esac
}

main "$@"
