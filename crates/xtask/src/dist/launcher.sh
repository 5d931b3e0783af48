#!/bin/sh
# Starts ldm, or says in one sentence why the dynamic loader would not. Two short programs, a few milliseconds.
here=$0
if [ -L "$here" ]; then here=$(readlink -f -- "$here"); fi
home=$(cd -P -- "${here%/*}/.." && pwd)
program=$home/libexec/ldm
lib=$home/lib

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# Sizes tell another libtorch; the loader would name a symbol of C++.
expected='@SIZES@'
if [ "$(cd -P -- "$lib" && stat -L -c '%n %s' @LIBRARIES@ 2>&1)" != "$expected" ]; then
    for name in @LIBRARIES@; do
        [ -e "$lib/$name" ] || fail "$lib/$name: expected a library of libtorch, got none; try unpacking the archive again"
        printf '%s\n' "$expected" | grep -qxF "$(cd -P -- "$lib" && stat -L -c '%n %s' "$name")" ||
            fail "$lib/$name: expected that of libtorch @VERSION@, got another; try unpacking the archive again"
    done
fi

# The loader alone: it lists the libraries that it would load, and does not start the program.
if ! found=$(LD_TRACE_LOADED_OBJECTS=1 "$program" 2>&1) || [ -z "${found##*not found*}" ]; then
    case $found in
    *'version `GLIBC_'*)
        version=$(getconf GNU_LIBC_VERSION)
        fail "glibc: expected @GLIBC@ or newer, got ${version#glibc }; try a newer system or the container" ;;
    *'version `GLIBCXX_'* | *'version `CXXABI_'*)
        fail "libstdc++.so.6: expected GLIBCXX_@LIBSTDCXX@, got an older one; try unsetting LD_LIBRARY_PATH, or a newer system" ;;
    *libstdc++.so.6*not\ found* | *libgcc_s.so.1*not\ found*)
        fail "libstdc++.so.6: expected the C++ library of the system, got none; try installing libstdc++6 (Debian, Ubuntu) or libstdc++ (Fedora)" ;;
    esac
    [ -e /lib64/ld-linux-x86-64.so.2 ] ||
        fail "glibc: expected @GLIBC@ or newer on x86-64, got another C library or processor; try the container"
    fail "$program: expected a program that starts, got: $found"
fi
exec "$program" "$@"
